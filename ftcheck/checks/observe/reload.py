"""Saving as the trainer does it, and loading again: does the same come back?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ftcheck.checks.facts import Reload
from ftcheck.checks.observe.batch import (
    batches,
    forward,
    in_eval,
    ready,
    shortened,
    without_adapter,
)
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.checks.observe.subject import Subject

__all__ = ["see_reload"]

_MERGED_AGAIN: Final = ("lora_A", "lora_embedding_A")


def see_reload(subject: Subject, folder: Path) -> Reload:
    """Save the trained model, load it again and compare; only in a fork."""
    seen: dict[str, Any] = {}
    try:
        _look(subject, folder / "saved", seen)
    except Exception as error:  # noqa: BLE001 - what saving or loading raises is a result
        seen["failure"] = failure_of(error, str(seen.get("during", "computing logits")))
    seen.pop("during", None)
    return Reload(**seen)


def _look(subject: Subject, folder: Path, seen: dict[str, Any]) -> None:
    trainer = subject.trainer
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    found = batches(trainer, 1)
    if not found:
        return
    batch = shortened(ready(trainer, found[0]))
    if "input_ids" not in batch:
        return
    given = ("input_ids", "attention_mask", "labels", "decoder_input_ids")
    batch = {name: batch[name] for name in given if name in batch}
    with in_eval(model):
        trained = forward(model, batch)
        with without_adapter(model):
            base = forward(model, batch)
    seen["scale"] = max(1.0, float(trained.abs().max()))
    seen["during"] = "saving"
    trainer.save_model(str(folder))
    seen["during"] = "loading"
    seen["files"] = tuple(sorted(path.name for path in folder.iterdir()))
    if not hasattr(model, "peft_config"):
        loaded = type(model).from_pretrained(str(folder)).to(model.device)
    else:
        from peft import PeftModel

        seen["adapter_effect"] = float((trained - base).abs().max())
        device = model.device
        loaded = PeftModel.from_pretrained(model.unload(), str(folder))
        if subject.trainer.args.device.type != "cpu":
            loaded.to(device)
    with in_eval(loaded):
        again = forward(loaded, batch)
    seen["difference"] = float((trained - again).abs().max())
    if seen.get("adapter_effect") and any(
        hasattr(module, name) for module in loaded.modules() for name in _MERGED_AGAIN
    ):
        merged = loaded.merge_and_unload()
        with in_eval(merged):
            error = float((forward(merged, batch) - again).abs().max())
        seen["merge_error"] = error / seen["adapter_effect"]
