"""DPOTrainer on pairs of answers, with LoRA: its batches are not those of language modelling."""

# mypy: ignore-errors
# Written as people write them, without types.

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")
tokenizer = AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")
train_dataset = load_dataset("trl-lib/ultrafeedback_binarized", split="train[:64]")

training_args = DPOConfig(
    output_dir="Qwen2.5-0.5B-DPO",
    beta=0.1,
    max_length=256,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=4,
    learning_rate=5e-6,
    num_train_epochs=1,
    logging_steps=10,
)
trainer = DPOTrainer(
    model=model,
    args=training_args,
    processing_class=tokenizer,
    train_dataset=train_dataset,
    peft_config=LoraConfig(r=16, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
)
trainer.train()
trainer.save_model("Qwen2.5-0.5B-DPO")
