"""SFTTrainer with formatting_func and peft_config, as in many blog posts."""

# mypy: ignore-errors
# Written as people write them, without types.

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

model_name = "meta-llama/Llama-3.2-1B"
dataset = load_dataset("databricks/databricks-dolly-15k", split="train[:200]")
tokenizer = AutoTokenizer.from_pretrained(model_name, trust_remote_code=True)
tokenizer.pad_token = "<|finetune_right_pad_id|>"
tokenizer.padding_side = "right"
model = AutoModelForCausalLM.from_pretrained(
    model_name, torch_dtype=torch.bfloat16, device_map="auto", attn_implementation="sdpa"
)
model.config.use_cache = False
model.config.pretraining_tp = 1


def formatting_func(example):
    text = f"### Instruction:\n{example['instruction']}\n\n"
    if example["context"]:
        text += f"### Input:\n{example['context']}\n\n"
    return text + f"### Response:\n{example['response']}"


peft_config = LoraConfig(
    lora_alpha=16,
    lora_dropout=0.1,
    r=64,
    bias="none",
    task_type="CAUSAL_LM",
    target_modules="all-linear",
)
trainer = SFTTrainer(
    model=model,
    train_dataset=dataset,
    peft_config=peft_config,
    formatting_func=formatting_func,
    processing_class=tokenizer,
    args=SFTConfig(
        output_dir="llama-dolly",
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        optim="adamw_torch_fused",
        logging_steps=10,
        learning_rate=2e-4,
        bf16=True,
        max_grad_norm=0.3,
        warmup_steps=5,
        lr_scheduler_type="constant_with_warmup",
        max_length=256,
        report_to="tensorboard",
    ),
)
trainer.train()
trainer.save_model("llama-dolly/final")
