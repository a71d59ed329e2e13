"""SFTTrainer on conversations, with the loss on the assistant's turns; then it chats."""

# mypy: ignore-errors
# Written as people write them, without types.

from datasets import load_dataset
from peft import AutoPeftModelForCausalLM, LoraConfig
from transformers import AutoTokenizer, pipeline
from trl import SFTConfig, SFTTrainer

dataset = load_dataset("trl-lib/Capybara", split="train[:200]")
split = dataset.train_test_split(test_size=0.1, seed=0)
trainer = SFTTrainer(
    model="Qwen/Qwen3-0.6B",
    args=SFTConfig(
        output_dir="Qwen3-0.6B-Capybara",
        assistant_only_loss=True,
        num_train_epochs=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        learning_rate=2e-4,
        eval_strategy="steps",
        eval_steps=100,
        logging_steps=10,
        push_to_hub=True,
    ),
    train_dataset=split["train"],
    eval_dataset=split["test"],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"]),
)
trainer.train()
trainer.save_model()
trainer.push_to_hub(dataset_name="trl-lib/Capybara")

model = AutoPeftModelForCausalLM.from_pretrained("Qwen3-0.6B-Capybara")
tokenizer = AutoTokenizer.from_pretrained("Qwen3-0.6B-Capybara")
chat = pipeline("text-generation", model=model, tokenizer=tokenizer)
messages = [{"role": "user", "content": "Write a function."}]
print(chat(messages, max_new_tokens=16, do_sample=False)[0]["generated_text"][-1])
