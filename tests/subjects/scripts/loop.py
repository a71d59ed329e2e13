"""A training loop of its own."""

# mypy: ignore-errors
# Written as people write them, without types.

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

place, mistake, how = sys.argv[1:]


def main():
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    steps = 3 if mistake == "epochs" else 10
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, steps)
    texts = [f"def f_{n}(a):\n    return a + {n}\n" for n in range(40)]
    model.train()
    for start in range(0, 40, 4):
        batch = tokenizer(texts[start : start + 4], return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        if mistake == "shifted":
            labels = torch.cat([labels[:, 1:], labels.new_full((4, 1), -100)], dim=1)
        if mistake != "uncleared":
            optimizer.zero_grad()
        if how == "positional":
            loss = model(batch["input_ids"], None, batch["attention_mask"], labels=labels).loss
        else:
            loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        scheduler.step()


if __name__ == "__main__":
    main()
