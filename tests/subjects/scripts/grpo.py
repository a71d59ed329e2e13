"""GRPOTrainer with a reward function: its batches are written by the model itself."""

# mypy: ignore-errors
# Written as people write them, without types.

from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

dataset = load_dataset("trl-lib/tldr", split="train[:64]")


def reward_len(completions, **kwargs):
    return [-abs(20 - len(completion)) for completion in completions]


trainer = GRPOTrainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    reward_funcs=reward_len,
    args=GRPOConfig(
        output_dir="Qwen2.5-0.5B-GRPO",
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=12,
        logging_steps=10,
    ),
    train_dataset=dataset,
)
trainer.train()
