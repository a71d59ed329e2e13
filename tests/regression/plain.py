"""The recipe as plain scripts have it: the libraries alone, nothing of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftcheck.assets import model_dir

__all__ = ["base", "gradient_norm", "logged", "lora", "row", "trainer", "true_loss"]


def base(**options: Any) -> Any:
    """The embedded model, in evaluation mode.

    Args:
        options: Of `from_pretrained`.
    """
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(model_dir()), **options)


def lora(model: Any, **settings: Any) -> Any:
    """A `PeftModel` over a model, drawn from seed 0."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(0)
    given = {"r": 4, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", **settings}
    return get_peft_model(model, LoraConfig(**given))


def row(length: int, *, start: int = 5, labelled: bool = True) -> dict[str, Any]:
    """A tokenized row without padding."""
    ids = [(start + 7 * position) % 2000 for position in range(length)]
    labels = {"labels": ids} if labelled else {}
    return {"input_ids": ids, "attention_mask": [1] * length, **labels}


def trainer(folder: Path, model: Any, rows: Sequence[dict[str, Any]] = (), **arguments: Any) -> Any:
    """A `Trainer` of one step over one row at a time, on the CPU; it evaluates on the same rows."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    rows = list(rows) or [row(16, start=start) for start in (5, 50, 500, 900)]
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(**given),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=default_data_collator,
    )


def logged(trainer: Any, name: str) -> list[float]:
    """The values of a metric in the log of a trainer."""
    return [float(entry[name]) for entry in trainer.state.log_history if name in entry]


def tensors(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of rows of one length."""
    import torch

    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def true_loss(model: Any, rows: Sequence[dict[str, Any]]) -> float:
    """Mean negative log-likelihood over the predicted label tokens of all rows, in nats."""
    import torch

    total, count = 0.0, 0
    with torch.no_grad():
        for one in rows:
            batch = tensors([one])
            logits = model(input_ids=batch["input_ids"]).logits[0, :-1].float()
            labels = batch["labels"][0, 1:]
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += int((labels != -100).sum())
    return total / count


def gradient_norm(model: Any) -> float:
    """L2 norm over the gradients of all parameters."""
    import torch

    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(torch.cat(gradients).norm())
