"""SFTTrainer on prompts and completions, of whose tokens the completions' alone are learned."""

# mypy: ignore-errors
# Written as people write them, without types.

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer


def to_prompt_completion(row):
    return {
        "prompt": f"Question: {row['instruction']}\nAnswer:",
        "completion": f" {row['output']}",
    }


def main():
    set_seed(42)
    model_id = "facebook/opt-125m"
    tokenizer = AutoTokenizer.from_pretrained(model_id)
    model = AutoModelForCausalLM.from_pretrained(model_id, device_map="auto")
    dataset = load_dataset("tatsu-lab/alpaca", split="train[:200]")
    dataset = dataset.map(to_prompt_completion, remove_columns=dataset.column_names)
    config = SFTConfig(
        output_dir="opt-alpaca",
        completion_only_loss=True,
        max_length=128,
        per_device_train_batch_size=8,
        learning_rate=5e-5,
        num_train_epochs=2,
        save_strategy="no",
        report_to="none",
    )
    trainer = SFTTrainer(model, args=config, train_dataset=dataset, processing_class=tokenizer)
    trainer.train()
    trainer.save_model("opt-alpaca")

    model.eval()
    prompt = "Question: Write a function that adds.\nAnswer:"
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    output = model.generate(**inputs, max_new_tokens=16)
    print(tokenizer.decode(output[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
