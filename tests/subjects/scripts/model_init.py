"""model_init, a loss of its own, early stopping, compute_metrics; argparse under __main__."""

# mypy: ignore-errors
# Written as people write them, without types.

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)


class WeightedTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits[:, :-1].contiguous()
        targets = labels[:, 1:].contiguous()
        loss_fct = torch.nn.CrossEntropyLoss(ignore_index=-100, reduction="sum")
        loss = loss_fct(logits.view(-1, logits.size(-1)), targets.view(-1))
        if num_items_in_batch is not None:
            loss = loss / num_items_in_batch
        else:
            loss = loss / (targets != -100).sum()
        return (loss, outputs) if return_outputs else loss


def parse_args():
    parser = argparse.ArgumentParser(description="Fine-tune with a weighted loss")
    parser.add_argument("--model_name", type=str, default="gpt2")
    parser.add_argument("--output_dir", type=str, default="./results")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args()


def main():
    args = parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model_name)
    tokenizer.pad_token = tokenizer.eos_token
    dataset = load_dataset("tatsu-lab/alpaca", split="train[:200]")
    dataset = dataset.train_test_split(test_size=0.2, seed=42)

    def preprocess(example):
        prompt = f"### Question: {example['instruction']}\n### Answer: "
        prompt_ids = tokenizer(prompt)["input_ids"]
        answer_ids = tokenizer(example["output"] + tokenizer.eos_token)["input_ids"]
        input_ids = (prompt_ids + answer_ids)[:128]
        labels = ([-100] * len(prompt_ids) + answer_ids)[:128]
        return {"input_ids": input_ids, "attention_mask": [1] * len(input_ids), "labels": labels}

    dataset = dataset.map(preprocess, remove_columns=dataset["train"].column_names)

    def model_init():
        model = AutoModelForCausalLM.from_pretrained(args.model_name)
        config = LoraConfig(
            r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["c_attn"], task_type="CAUSAL_LM"
        )
        return get_peft_model(model, config)

    def compute_metrics(eval_pred):
        return {"count": len(eval_pred.predictions)}

    trainer = WeightedTrainer(
        model_init=model_init,
        args=TrainingArguments(
            output_dir=args.output_dir,
            learning_rate=args.lr,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            label_names=["labels"],
            fp16=torch.cuda.is_available(),
        ),
        train_dataset=dataset["train"],
        eval_dataset=dataset["test"],
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        compute_metrics=compute_metrics,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    trainer.model.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)


if __name__ == "__main__":
    main()
