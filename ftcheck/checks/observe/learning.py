"""The model on one batch: what the loss is made of, and whether it falls."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ftcheck.checks.facts import IGNORED, Learning
from ftcheck.checks.observe.batch import (
    at_highest_rate,
    batches,
    forward,
    in_eval,
    mean_loss,
    ready,
    shortened,
    without_adapter,
    without_dropout,
    without_packing,
)
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.checks.observe.subject import Subject, processing_of

__all__ = ["see_learning"]

_SECONDS: Final = 8.0
"""About how long the steps on one batch may take."""
_STEPS: Final = (2, 8)
_MICRO_BATCHES: Final = 3
_SAME: Final = 0.97
"""Share of the tokens of rows that come back when their text is tokenized again; ids that another
tokenizer made give text that is cut otherwise."""
_PROSE: Final = (
    "If the file is not found, an error is raised. The name of the file is the first argument of "
    "this function, and the second is the number of lines that are to be read from it."
)
"""What a model that was trained on any English at all predicts better than by guessing."""


def see_learning(subject: Subject, folder: Path) -> Learning:
    """Look at losses on one batch; only in a fork, since the model is trained by it."""
    del folder
    seen: dict[str, Any] = {}
    try:
        _look(subject.trainer, subject.tokenizer, seen)
    except Exception as error:  # noqa: BLE001 - what people's losses raise is a result
        seen["failure"] = failure_of(error, "computing the loss of one batch")
    return Learning(**seen)


def _look(trainer: Any, tokenizer: Any, seen: dict[str, Any]) -> None:
    model = trainer.model
    if not getattr(model, "hf_device_map", None):
        model.to(trainer.args.device)
    without_dropout(model)
    without_packing(model)
    found = batches(trainer, _MICRO_BATCHES)
    if not found:
        return
    whole = ready(trainer, found[0])
    batch = shortened(whole)
    if "labels" not in batch:
        return
    begun = time.monotonic()
    with in_eval(model):
        logits = forward(model, batch)
        seconds = time.monotonic() - begun
        seen["mean_loss"] = seen["start_loss"] = _number(mean_loss(logits, batch["labels"]))
        seen["unshifted_loss"] = _number(mean_loss(logits, batch["labels"], shift=0))
        _look_at_the_base(trainer, tokenizer, batch, logits, seen)
        seen["own_loss"] = _number(trainer.compute_loss(model, dict(batch)))
        seen["first_label_counts"] = _first_label_counts(trainer, batch)
        _look_at_rows(model, batch, logits, seen)
    if seconds < _SECONDS / 8:
        seen["accumulation"] = _accumulation(trainer, found)
    seen["losses"] = _descend(trainer, batch, seconds)


def _number(loss: Any) -> float:
    loss = loss[0] if isinstance(loss, tuple) else loss
    return float(loss.detach())


def _look_at_the_base(
    trainer: Any, tokenizer: Any, batch: Mapping[str, Any], logits: Any, seen: dict[str, Any]
) -> None:
    """The loss of the base on the tokens themselves, whatever the labels are."""
    model = trainer.model
    with without_adapter(model):
        base = forward(model, batch)
    tokens = _text_alone(batch, _pad(trainer, batch))
    if bool((tokens[:, 1:] != IGNORED).any()):
        seen["base_loss"] = _number(mean_loss(base, tokens))
        if seen["base_loss"] > math.log(base.shape[-1]) and tokenizer is not None:
            seen["prose_loss"] = _prose_loss(model, tokenizer, tokens[tokens != IGNORED].tolist())
    if hasattr(model, "disable_adapter") and base.shape == logits.shape:
        seen["adapter_effect"] = float((logits - base).abs().max())


def _prose_loss(model: Any, tokenizer: Any, ids: list[int]) -> float | None:
    """The loss of the base on plain English; `None` where ids are not the tokenizer's own."""
    import torch

    again = tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"]
    prose = tokenizer(_PROSE, add_special_tokens=False)["input_ids"]
    rows, kinds = model.get_input_embeddings().weight.shape[0], set(ids)
    if len(kinds & set(again)) < _SAME * len(kinds) or len(prose) < 2 or max(prose) >= rows:
        return None
    given = torch.tensor([prose], device=next(model.parameters()).device)
    with without_adapter(model):
        return _number(mean_loss(forward(model, {"input_ids": given}), given))


def _loss_function(trainer: Any) -> Any:
    """What a trainer was given to compute its loss with, where its version has that."""
    return getattr(trainer, "compute_loss_func", None)


def _first_label_counts(trainer: Any, batch: Mapping[str, Any]) -> bool | None:
    """Whether a loss of the trainer's own depends on the label of the first token."""
    from transformers import Trainer

    if type(trainer).compute_loss is Trainer.compute_loss and not _loss_function(trainer):
        return None
    labels, ids = batch["labels"], batch["input_ids"]
    learned = labels != IGNORED
    config = getattr(trainer.model, "active_peft_config", None)
    if labels.shape != ids.shape or getattr(config, "is_prompt_learning", False):
        return None
    if 10 * int((labels == ids)[learned].sum()) < 9 * int(learned.sum()):
        return None
    losses = []
    for token in (0, 1):
        alone = labels.new_full(labels.shape, IGNORED)
        alone[:, 0] = token
        try:
            loss = trainer.compute_loss(trainer.model, {**batch, "labels": alone})
        except Exception:  # noqa: BLE001 - it may well not take such labels
            return None
        losses.append(_number(loss))
    return all(map(math.isfinite, losses)) and abs(losses[0] - losses[1]) > 1e-6


def _text_alone(batch: Mapping[str, Any], pad: int | None) -> Any:
    """Token ids, with −100 in the place of pads and of what the mask hides."""
    tokens = batch["input_ids"].clone()
    mask = batch.get("attention_mask")
    if mask is not None and mask.dim() == 2 and bool(mask.any()):
        tokens[mask == 0] = IGNORED
    if pad is not None:
        tokens[batch["input_ids"] == pad] = IGNORED
    return tokens


def _pad(trainer: Any, batch: Mapping[str, Any]) -> int | None:
    """The pad id: of the tokenizer, else what the mask hides."""
    pad = getattr(processing_of(trainer), "pad_token_id", None)
    mask = batch.get("attention_mask")
    if pad is None and mask is not None and mask.dim() == 2 and bool((mask == 0).any()):
        pad = batch["input_ids"][mask == 0][0]
    return None if pad is None else int(pad)


def _look_at_rows(model: Any, batch: Mapping[str, Any], logits: Any, seen: dict[str, Any]) -> None:
    """Whether a row sees its neighbour."""
    ids = batch["input_ids"]
    scale = max(1.0, float(logits.abs().max()))
    if ids.shape[0] > 1:
        others = {**batch, "input_ids": ids.clone()}
        others["input_ids"][0] = ids[0].flip(0)
        changed = forward(model, others)
        seen["leak"] = float((changed[1:] - logits[1:]).abs().max()) / scale
    start, real = _last_text(batch)
    if start:
        others = {**batch, "input_ids": ids.clone()}
        others["input_ids"][0, :start] = ids[0, 0]
        changed = forward(model, others)
        seen["packed_leak"] = float((changed[0] - logits[0])[real].abs().max()) / scale


def _last_text(batch: Mapping[str, Any]) -> tuple[int, Any]:
    """Where the last text of the first row begins, and its places that are learned.

    0 where positions do not begin anew within the row, or nothing behind that is learned.
    """
    import torch

    positions, mask = batch.get("position_ids"), batch.get("attention_mask")
    if positions is None or positions.dim() != 2 or (mask is not None and mask.dim() != 2):
        return 0, None
    places = torch.arange(positions.shape[1], device=positions.device)
    start = int(places[positions[0] == 0].max()) if bool((positions[0] == 0).any()) else 0
    real = (places >= start) & (batch["labels"][0] != IGNORED)
    if mask is not None:
        real &= mask[0] != 0
    return (start, real) if bool(real.any()) else (0, None)


def _descend(trainer: Any, batch: Mapping[str, Any], seconds: float) -> tuple[float, ...]:
    """Mean loss of one batch after each step at the highest rate of the recipe."""
    import torch

    model = trainer.model
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return ()
    optimizer = at_highest_rate(trainer)
    least, most = _STEPS
    steps = max(least, min(most, int(_SECONDS / (4 * max(seconds, 1e-3)))))
    clip = float(trainer.args.max_grad_norm or 0.0)
    losses = []
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = trainer.compute_loss(model, dict(batch))
        loss = loss[0] if isinstance(loss, tuple) else loss
        if not loss.requires_grad:
            return ()
        loss.backward()
        if clip:
            held = [parameter for parameter in model.parameters() if parameter.grad is not None]
            torch.nn.utils.clip_grad_norm_(held, clip)
        optimizer.step()
        with in_eval(model):
            losses.append(_number(mean_loss(forward(model, batch), batch["labels"])))
        if not math.isfinite(losses[-1]):
            break
    return tuple(losses)


def _accumulation(trainer: Any, found: list[dict[str, Any]]) -> float | None:
    """Norm of the gradient that the trainer accumulates over that of the mean over label tokens.

    `None` where it does not accumulate, or where this version of the library has another interface.
    """
    steps = min(int(trainer.args.gradient_accumulation_steps), len(found))
    if steps < 2 or not any(parameter.requires_grad for parameter in trainer.model.parameters()):
        return None
    micro = [shortened(batch) for batch in found[:steps]]
    trainer.args.gradient_accumulation_steps = steps
    trainer.current_gradient_accumulation_steps = steps
    samples, items = _samples(trainer, micro)
    model = trainer.model
    model.zero_grad()
    arguments = (items,) if len(inspect.signature(trainer.training_step).parameters) > 2 else ()
    for inputs in samples:
        trainer.training_step(model, inputs, *arguments)
    accumulated = _norm(model)
    model.zero_grad()
    total = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in micro)
    for batch in micro:
        moved = ready(trainer, batch)
        count = int((batch["labels"][:, 1:] != IGNORED).sum())
        loss = mean_loss(forward(model, moved), moved["labels"]) * count / max(1, total)
        loss.backward()
    reference = _norm(model)
    model.zero_grad()
    return accumulated / reference if reference > 0 else None


def _samples(trainer: Any, micro: list[dict[str, Any]]) -> tuple[list[Any], Any]:
    wanted = inspect.signature(trainer.get_batch_samples).parameters
    more = (trainer.args.device,) if len(wanted) > 2 else ()
    samples, items = trainer.get_batch_samples(iter(micro), len(micro), *more)
    return samples, items


def _norm(model: Any) -> float:
    squares = [
        float(parameter.grad.float().pow(2).sum())
        for parameter in model.parameters()
        if parameter.grad is not None
    ]
    return math.sqrt(sum(squares))
