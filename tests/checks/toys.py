"""Trainers that are built in a moment: the embedded tokenizer, two narrow layers, a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftcheck.assets import model_dir
from ftcheck.checks.finding import Finding, Outcome
from ftcheck.checks.registry import selected
from ftcheck.checks.runner import judge
from ftcheck.checks.seen import Seen
from ftcheck.subjects.trainer import check_trainer
from tests.checks.said import heard

__all__ = [
    "TEXTS",
    "base",
    "check_one",
    "found",
    "judged",
    "lora",
    "rows",
    "tokenizer",
    "trainer",
]

TEXTS = tuple(
    f"def add_{number}(a, b):\n    total = a + b * {number}\n    return total - {number}\n"
    for number in range(24)
)
"""Texts that differ, of some 25 tokens each."""


def tokenizer(**changes: Any) -> Any:
    """The embedded tokenizer, padding with EOS."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(str(model_dir()))
    made.pad_token = made.eos_token
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def base(**config: Any) -> Any:
    """A GPT-2 of two layers, 32 wide, with random weights that are the same each time."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 2048}
        ends = {"bos_token_id": 2047, "eos_token_id": 2047}
        return GPT2LMHeadModel(GPT2Config(**{**sizes, **ends, **config}))


def lora(model: Any = None, **config: Any) -> Any:
    """The base with LoRA on `c_attn`."""
    from peft import LoraConfig, get_peft_model

    given = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["c_attn"],
        "task_type": "CAUSAL_LM",
        "fan_in_fan_out": True,
    }
    return get_peft_model(model or base(), LoraConfig(**{**given, **config}))


def rows(
    texts: Sequence[str] = TEXTS, *, length: int = 48, eos: bool = True
) -> list[dict[str, Any]]:
    """Rows padded on the right, with pads masked in the labels."""
    words = tokenizer()
    made = []
    for text in texts:
        ids = words(text)["input_ids"][: length - 1]
        ids = [*ids, words.eos_token_id] if eos else ids
        pads = length - len(ids)
        made.append(
            {
                "input_ids": ids + [words.pad_token_id] * pads,
                "attention_mask": [1] * len(ids) + [0] * pads,
                "labels": ids + [-100] * pads,
            }
        )
    return made


def trainer(
    folder: Path,
    *,
    model: Any = None,
    train: Any = None,
    evaluation: Any = None,
    kind: Any = None,
    arguments: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A sound trainer, unless something is given that is not.

    Args:
        folder: Of its output.
        model: Instead of `lora()`.
        train: A list of rows, or a data set, instead of `rows()`.
        evaluation: The same, to evaluate on.
        kind: A subclass of `Trainer`.
        arguments: Of `TrainingArguments`, beside batches of 4, two accumulated, at 1e-3.
        more: Further arguments of the trainer, such as `data_collator`.
    """
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments, default_data_collator

    def data(given: Any) -> Any:
        return Dataset.from_list(given) if isinstance(given, list) else given

    usual = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "num_train_epochs": 4,
        "report_to": "none",
        "use_cpu": True,
        "label_names": ["labels"],
    }
    given = {"data_collator": default_data_collator, "processing_class": tokenizer(), **more}
    if model is None and "model_init" not in more:
        model = lora()
    return (kind or Trainer)(
        model=model,
        args=TrainingArguments(**{**usual, **(arguments or {})}),
        train_dataset=data(rows() if train is None else train),
        eval_dataset=data(evaluation),
        **given,
    )


def check_one(made: Any, code: str, **how: Any) -> Outcome:
    """What became of one check on a trainer."""
    (outcome,) = check_trainer(made, select=[code], **how).outcomes
    return heard(outcome)


def judged(seen: Seen, code: str) -> Outcome:
    """What becomes of one check on what was seen; it does not break."""
    (outcome,) = judge(seen, selected([code])).outcomes
    assert outcome.status.value != "error", f"{code}: {outcome.reason}"
    return heard(outcome)


def found(made: Any, code: str, **how: Any) -> tuple[Finding, ...]:
    """What one check finds on a trainer."""
    outcome = check_one(made, code, **how)
    assert outcome.status.value != "error", outcome.reason
    return outcome.findings
