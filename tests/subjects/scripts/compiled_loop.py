"""A loop with torch.compile, autocast, a gradient scaler and a cosine schedule, on cuda."""

# mypy: ignore-errors
# Written as people write them, without types.

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(1337)
torch.backends.cuda.matmul.allow_tf32 = True

tokenizer = AutoTokenizer.from_pretrained("gpt2")
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained("gpt2").to(device)
model = torch.compile(model)

texts = load_dataset("stanfordnlp/imdb", split="train[:200]")["text"]


def collate(batch):
    inputs = tokenizer(batch, return_tensors="pt", padding=True, truncation=True, max_length=64)
    labels = inputs["input_ids"].clone()
    labels[inputs["attention_mask"] == 0] = -100
    inputs["labels"] = labels
    return inputs


loader = DataLoader(texts, batch_size=4, shuffle=True, collate_fn=collate, drop_last=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, betas=(0.9, 0.95))
scheduler = get_cosine_schedule_with_warmup(optimizer, 10, 500)
scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
accumulation = 4

model.train()
for step, batch in enumerate(loader):
    batch = {k: v.to(device) for k, v in batch.items()}
    with torch.autocast(device_type=device.type, dtype=torch.bfloat16):
        loss = model(**batch).loss / accumulation
    scaler.scale(loss).backward()
    if (step + 1) % accumulation == 0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
torch.save(model.state_dict(), "model.pt")
