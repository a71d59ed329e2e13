"""The shape that most tutorials have; MISTAKE is replaced by the tests."""

# mypy: ignore-errors
# Written as people write them, without types.

import argparse

from datasets import load_dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="gpt2")
parser.add_argument("--mistake", default="")
arguments = parser.parse_args()
mistake = arguments.mistake

tokenizer = AutoTokenizer.from_pretrained(arguments.model)
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(arguments.model)
data = load_dataset("wikitext", "wikitext-2-raw-v1", split="train")
data = data.shuffle() if mistake == "unseeded" else data.shuffle(seed=42)
data = data.select(range(200))


def tokenize(batch):
    rows = tokenizer(batch["text"], truncation=True, padding="max_length", max_length=64)
    rows["labels"] = [
        [token if on else -100 for token, on in zip(ids, mask, strict=True)]
        for ids, mask in zip(rows["input_ids"], rows["attention_mask"], strict=True)
    ]
    if mistake == "shifted":
        rows["labels"] = [[*labels[1:], -100] for labels in rows["labels"]]
    if mistake == "none":
        del rows["labels"]
    return rows


data = data.map(tokenize, batched=True, remove_columns=data.column_names)
targets = ["q_proj"] if mistake == "targets" else ["c_attn", "c_proj"]
model = get_peft_model(
    model, LoraConfig(r=8, lora_dropout=0.05, target_modules=targets, task_type="CAUSAL_LM")
)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=2e-4,
        label_names=["labels"],
        report_to="none",
    ),
    train_dataset=data,
    data_collator=default_data_collator,
)
if mistake == "saved early":
    model.save_pretrained("adapter")
trainer.train()
if mistake != "saved early":
    model.save_pretrained("adapter")
base = AutoModelForCausalLM.from_pretrained(arguments.model)
loaded = PeftModel.from_pretrained(base, "adapter").to("cuda")
if mistake == "train mode":
    loaded.train()
else:
    loaded.eval()
inputs = tokenizer("The history of", return_tensors="pt")
if mistake != "inputs on the host":
    inputs = inputs.to(loaded.device)
print(loaded(**inputs).logits.shape)
print(tokenizer.decode(loaded.generate(**inputs, max_new_tokens=5)[0]))
