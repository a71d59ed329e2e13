"""Parts that looking at a running model shares: a batch that is not too long, losses by hand."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ftcheck.checks.facts import IGNORED
from ftcheck.pipeline.adapter import unwrapped

__all__ = [
    "at_highest_rate",
    "batches",
    "dropouts",
    "forward",
    "in_eval",
    "mean_loss",
    "ready",
    "shortened",
    "without_adapter",
    "without_dropout",
    "without_packing",
]

_MOST_TOKENS: Final = 512
_MOST_TRIED: Final = 8


def batches(trainer: Any, count: int) -> list[dict[str, Any]]:
    """The first batches of the training loader that have something to learn, on the device."""
    found: list[dict[str, Any]] = []
    for batch in itertools.islice(trainer.get_train_dataloader(), count * _MOST_TRIED):
        if not isinstance(batch, Mapping):
            continue  # rows as they are, of a trainer that makes its batches later
        labels = batch.get("labels")
        if labels is not None and labels.dim() > 1 and not (labels[..., 1:] != IGNORED).any():
            continue
        found.append(dict(batch))
        if len(found) == count:
            break
    return found


def ready(trainer: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch on the trainer's device."""
    return dict(trainer._prepare_inputs(dict(batch)))


def shortened(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Rows and columns of a batch, so that it has no more than 512 tokens."""
    import torch

    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    sizes = {tuple(value.shape) for value in tensors.values() if value.dim() == 2}
    if len(sizes) != 1 or any(value.dim() > 2 for value in tensors.values()):
        return dict(batch)
    rows, length = next(iter(sizes))
    rows_kept = max(1, min(rows, _MOST_TOKENS // max(1, min(length, _MOST_TOKENS))))
    return {
        name: value[:rows_kept, :_MOST_TOKENS]
        if isinstance(value, torch.Tensor) and value.dim() == 2
        else value[:rows_kept]
        if isinstance(value, torch.Tensor) and value.dim() == 1 and len(value) == rows
        else value
        for name, value in batch.items()
    }


def forward(model: Any, batch: Mapping[str, Any]) -> Any:
    """Logits, float32, (rows, length, vocabulary)."""
    given = {name: value for name, value in batch.items() if name not in ("labels",)}
    given.pop("num_items_in_batch", None)
    if getattr(unwrapped(model).config, "is_encoder_decoder", False) and "labels" in batch:
        writes = unwrapped(model).prepare_decoder_input_ids_from_labels(batch["labels"])
        given.setdefault("decoder_input_ids", writes)
    return model(**given).logits.float()


def mean_loss(logits: Any, labels: Any, *, shift: int = 1) -> Any:
    """Mean negative log-likelihood over label tokens, in nats."""
    import torch

    if shift:
        logits, labels = logits[:, :-shift], labels[:, shift:]
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        labels.reshape(-1).to(logits.device).long(),
        ignore_index=IGNORED,
    )


@contextlib.contextmanager
def in_eval(model: Any) -> Iterator[None]:
    """Evaluation mode and no gradients, for a while."""
    import torch

    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def without_adapter(model: Any) -> contextlib.AbstractContextManager[Any]:
    """The base under an adapter, for a while."""
    if hasattr(model, "disable_adapter"):
        context: contextlib.AbstractContextManager[Any] = model.disable_adapter()
        return context
    return contextlib.nullcontext()


_RATES: Final = ("dropout_p", "attention_dropout", "attn_dropout", "dropout")
"""Attributes of modules that call `functional.dropout`, as OPT's do."""


def dropouts(model: Any) -> Iterator[tuple[str, Any]]:
    """Modules that drop something while they are in training mode."""
    import torch

    for name, module in model.named_modules():
        rates = [getattr(module, rate, None) for rate in _RATES]
        own = module.p if isinstance(module, torch.nn.Dropout) else 0.0
        if own > 0 or any(isinstance(rate, float) and rate > 0 for rate in rates):
            yield name, module


def without_dropout(model: Any) -> None:
    """Take dropout out, for good; only in a fork."""
    import torch

    for _, module in dropouts(model):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in _RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def without_packing(model: Any) -> None:
    """Keep 4-bit weights as they are trained; only in a fork.

    On CPUs with AVX512-BF16 bitsandbytes packs them at the first forward pass in evaluation mode,
    and unpacks them to save. Both round, and no gradient comes back through packed ones.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def at_highest_rate(trainer: Any) -> Any:
    """The optimizer of a trainer, made where it has none, at the rate that its schedule reaches."""
    if trainer.optimizer is None:
        trainer.create_optimizer()
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = group.get("initial_lr", group["lr"])
    return trainer.optimizer
