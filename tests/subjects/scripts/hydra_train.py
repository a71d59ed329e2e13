"""A Hydra configuration under hydra_conf/, composed from groups, and instantiated."""

# mypy: ignore-errors
# Written as people write them, without types.

import hydra
from datasets import load_dataset
from hydra.utils import instantiate, to_absolute_path
from omegaconf import DictConfig, OmegaConf
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments


@hydra.main(version_base=None, config_path="hydra_conf", config_name="config")
def main(cfg: DictConfig) -> None:
    print(OmegaConf.to_yaml(cfg))
    tokenizer = AutoTokenizer.from_pretrained(cfg.model.name)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(cfg.model.name)
    model = get_peft_model(model, instantiate(cfg.model.lora))
    dataset = load_dataset(cfg.data.path, cfg.data.name, split="train")
    dataset = dataset.filter(lambda row: len(row["text"]) > 0).shuffle(seed=cfg.seed)
    dataset = dataset.select(range(cfg.data.rows))

    def tokenize(batch):
        return tokenizer(batch["text"], truncation=True, max_length=cfg.data.max_length)

    dataset = dataset.map(tokenize, batched=True, remove_columns=dataset.column_names)
    arguments = OmegaConf.to_container(cfg.training, resolve=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=dataset,
        data_collator=instantiate(cfg.collator, tokenizer=tokenizer),
    )
    trainer.train()
    model.save_pretrained(to_absolute_path("adapter"))


if __name__ == "__main__":
    main()
