"""A LightningModule around a model of transformers, and a LightningDataModule."""

# mypy: ignore-errors
# Written as people write them, without types.

import lightning as L
import torch
from datasets import load_dataset
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    get_linear_schedule_with_warmup,
)


class TextData(L.LightningDataModule):
    def __init__(self, model_name, batch_size=4, max_length=64):
        super().__init__()
        self.save_hyperparameters()
        self.tokenizer = AutoTokenizer.from_pretrained(model_name)
        self.tokenizer.pad_token = self.tokenizer.eos_token

    def setup(self, stage=None):
        dataset = load_dataset("wikitext", "wikitext-2-raw-v1")
        dataset = dataset.filter(lambda row: row["text"].strip())
        self.dataset = dataset.map(
            self.convert, batched=True, remove_columns=dataset["train"].column_names
        )

    def convert(self, batch):
        rows = self.tokenizer(batch["text"], truncation=True, max_length=self.hparams.max_length)
        rows["labels"] = [list(ids) for ids in rows["input_ids"]]
        return rows

    def train_dataloader(self):
        return DataLoader(
            self.dataset["train"],
            batch_size=self.hparams.batch_size,
            shuffle=True,
            collate_fn=DataCollatorForSeq2Seq(self.tokenizer),
        )

    def val_dataloader(self):
        return DataLoader(
            self.dataset["validation"],
            batch_size=self.hparams.batch_size,
            collate_fn=DataCollatorForSeq2Seq(self.tokenizer),
        )


class LanguageModel(L.LightningModule):
    def __init__(self, model_name, learning_rate=5e-5, warmup_steps=10):
        super().__init__()
        self.save_hyperparameters()
        self.model = AutoModelForCausalLM.from_pretrained(model_name)
        self.model.train()  # from_pretrained gives it in evaluation mode, and Lightning keeps that

    def forward(self, **inputs):
        return self.model(**inputs)

    def training_step(self, batch, batch_idx):
        outputs = self(**batch)
        loss = outputs.loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        outputs = self.model(**batch)
        self.log("val_loss", outputs.loss, prog_bar=True, sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)
        scheduler = get_linear_schedule_with_warmup(
            optimizer,
            num_warmup_steps=self.hparams.warmup_steps,
            num_training_steps=self.trainer.estimated_stepping_batches,
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


if __name__ == "__main__":
    L.seed_everything(42)
    data = TextData("distilgpt2")
    model = LanguageModel("distilgpt2")
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="auto",
        devices="auto",
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        callbacks=[ModelCheckpoint(monitor="val_loss"), LearningRateMonitor()],
        default_root_dir="lightning",
    )
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint("model.ckpt")
