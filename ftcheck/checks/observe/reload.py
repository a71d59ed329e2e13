"""Saving as the trainer does it, and loading again: does the same come back?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from ftcheck.checks.observe.setup import of_an_adapter
from ftcheck.checks.observe.subject import Subject
from ftcheck.pipeline.model import load_base

__all__ = ["base_of", "see_reload"]

_FROM_THE_BASE: Final = ("pissa", "olora", "corda", "loftq")
_MERGED_AGAIN: Final = ("lora_A", "lora_embedding_A")


def base_of(model: Any) -> dict[str, Any]:
    """Copies of what is trained beside an adapter: name to tensor; empty where there is no adapter.

    An adapter is loaded on the base as it was before training.
    """
    if not hasattr(model, "peft_config"):
        return {}
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if value.requires_grad and not of_an_adapter(name)
    }


def see_reload(subject: Subject, folder: Path, start: Mapping[str, Any]) -> Reload:
    """Save the trained model, load it again and compare; only in a fork.

    Args:
        subject: After a few steps.
        folder: To save to.
        start: What `base_of` gave before them.
    """
    seen: dict[str, Any] = {}
    try:
        _look(subject, folder / "saved", start, seen)
    except Exception as error:  # noqa: BLE001 - what saving or loading raises is a result
        seen["failure"] = failure_of(error, str(seen.get("during", "computing logits")))
    seen.pop("during", None)
    return Reload(**seen)


def _look(subject: Subject, folder: Path, start: Mapping[str, Any], seen: dict[str, Any]) -> None:
    import torch

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
        if _starts_by_changing_the_base(model):
            under = _anew(subject)
            if under is None:
                return
        else:
            with torch.no_grad():
                for name, value in model.named_parameters():
                    if name in start:
                        value.copy_(start[name])
            under = model.unload()
        loaded = PeftModel.from_pretrained(under, str(folder))
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


def _starts_by_changing_the_base(model: Any) -> bool:
    """Whether drawing the adapter takes part of the base's weights, as PiSSA does; loading it does
    so again, and wants the base as it was."""
    starts = [getattr(config, "init_lora_weights", "") for config in model.peft_config.values()]
    return any(str(start).startswith(_FROM_THE_BASE) for start in starts)


def _anew(subject: Subject) -> Any:
    """The base of a recipe, loaded again; `None` where it is not at hand."""
    recipe, source = subject.recipe, subject.base_model
    if recipe is None or source is None or subject.tokenizer is None or not subject.real_weights:
        return None
    on_cpu = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, device="cpu"))
    return load_base(on_cpu, subject.tokenizer, source=source)
