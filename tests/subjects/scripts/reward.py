"""RewardTrainer: a model with one score for a text."""

# mypy: ignore-errors
# Written as people write them, without types.

from datasets import load_dataset
from trl import RewardConfig, RewardTrainer

trainer = RewardTrainer(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    args=RewardConfig(
        output_dir="Qwen2.5-0.5B-Reward", per_device_train_batch_size=2, learning_rate=1e-5
    ),
    train_dataset=load_dataset("trl-lib/ultrafeedback_binarized", split="train[:64]"),
)
trainer.train()
