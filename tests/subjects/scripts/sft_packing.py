"""SFTTrainer with packing on plain text, and a quantized base under LoRA."""

# mypy: ignore-errors
# Written as people write them, without types.

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

base_model = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
quantization = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
)
tokenizer = AutoTokenizer.from_pretrained(base_model)
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(
    base_model, quantization_config=quantization, device_map={"": 0}
)
dataset = load_dataset("timdettmers/openassistant-guanaco", split="train")

training_args = SFTConfig(
    output_dir="./tinyllama-guanaco",
    packing=True,
    packing_strategy="wrapped",
    max_length=128,
    dataset_text_field="text",
    per_device_train_batch_size=2,
    gradient_accumulation_steps=4,
    gradient_checkpointing=True,
    learning_rate=2e-4,
    max_steps=500,
    bf16=True,
    optim="paged_adamw_32bit",
    logging_steps=25,
    report_to="wandb",
)
trainer = SFTTrainer(
    model=model,
    args=training_args,
    train_dataset=dataset,
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, task_type="CAUSAL_LM"),
)
trainer.train()
trainer.model.save_pretrained("final")
tokenizer.save_pretrained("final")
