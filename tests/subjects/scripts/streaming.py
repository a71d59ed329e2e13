"""A streamed data set, max_steps, a callback, and reports to services left on."""

# mypy: ignore-errors
# Written as people write them, without types.

import os

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

os.environ["WANDB_PROJECT"] = "my-project"
checkpoint = "EleutherAI/pythia-70m"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
if tokenizer.pad_token is None:
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
model = AutoModelForCausalLM.from_pretrained(checkpoint)

dataset = load_dataset("allenai/c4", "en", split="train", streaming=True)
dataset = dataset.shuffle(seed=42, buffer_size=1000)
dataset = dataset.map(
    lambda batch: tokenizer(batch["text"], truncation=True, max_length=64),
    batched=True,
    remove_columns=["text", "timestamp", "url"],
)
eval_dataset = dataset.take(50)
train_dataset = dataset.skip(50)


class SamplePrinter(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            print(state.global_step, logs)


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="pythia-c4",
        max_steps=1000,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.1,
        eval_strategy="steps",
        eval_steps=200,
        logging_steps=10,
        save_steps=200,
        report_to=["tensorboard", "wandb"],
        run_name="pythia-c4",
        push_to_hub=True,
        hub_model_id="me/pythia-c4",
    ),
    train_dataset=train_dataset,
    eval_dataset=eval_dataset,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    processing_class=tokenizer,
    callbacks=[SamplePrinter()],
)
trainer.train()
trainer.push_to_hub()
