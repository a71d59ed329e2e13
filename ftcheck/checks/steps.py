"""FT413 to FT416 and FT424 to FT426: what a few steps of training show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

from ftcheck.checks.explained import explained, next_step_of, said_elsewhere, sentence_of
from ftcheck.checks.facts import Batches, Failure, Record, Training
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []

_During = Literal["building", "running", "batches"]
_ROUNDING: Final = 1e-3
"""Relative difference of losses in float32 that reordering sums explains, with room."""


@check("FT413", "dropout-off-in-training", Level.STEP, Severity.WARNING)
def dropout_off(self: Check, seen: Seen) -> Iterator[Finding]:
    """Dropout is off while training: something put the model into evaluation mode.

    Bad: `model.eval()` in a callback or in `compute_loss`, and no `model.train()` after it.

    Good: the mode as `Trainer` sets it.
    """
    off = seen.need("training").dropout_off
    if off:
        yield self.finding(
            f"{len(off)} dropouts are off in a training step",
            evidence=off[:3],
            key="training",
            fix="Do not call model.eval() in what training calls.",
        )


@check("FT414", "dropout-on-in-evaluation", Level.STEP, Severity.WARNING)
def dropout_on(self: Check, seen: Seen) -> Iterator[Finding]:
    """Dropout is on while evaluating: `eval_loss` is too high, and another one each time.

    Bad: `model.train()` in `prediction_step` or `compute_loss`.

    Good: the mode as `Trainer` sets it.
    """
    training = seen.need("training")
    if training.eval_metrics is None:
        raise NotApplicable("nothing is evaluated")
    if training.dropout_on_in_eval:
        yield self.finding(
            f"{len(training.dropout_on_in_eval)} dropouts are on while evaluating",
            evidence=training.dropout_on_in_eval[:3],
            key="training",
            fix="Do not call model.train() in what evaluation calls.",
        )


@check("FT415", "weights-not-finite", Level.STATIC, Severity.ERROR)
def not_finite(self: Check, seen: Seen) -> Iterator[Finding]:
    """Parameters hold NaN or infinity before training.

    Bad: a checkpoint of a run that broke.

    Good: `torch.isfinite(parameter).all()`
    """
    wrong = [one.name for one in seen.need("setup").parameters if not one.finite]
    if wrong:
        yield self.finding(
            f"{len(wrong)} parameters hold NaN or infinity",
            evidence=wrong[:3],
            key="model.name_or_path",
            fix="Load another checkpoint.",
        )


@check("FT424", "loss-not-finite", Level.STEP, Severity.ERROR)
def nan_loss(self: Check, seen: Seen) -> Iterator[Finding]:
    """The loss of a training step is NaN or infinite, which the Trainer's log shows as 0.

    Bad: a batch whose labels are all −100, in a loss that divides by their number.

    Good: rows without labels are filtered out.
    """
    training = seen.need("training")
    if not training.losses:
        raise NotMeasured("no step was run")
    count = sum(1 for loss in training.losses if not math.isfinite(loss))
    if count or not training.finite:
        yield self.finding(
            f"{count} of {len(training.losses)} losses are no numbers"
            + ("" if training.finite else ", and neither are weights after them"),
            evidence=[", ".join(f"{loss:.3g}" for loss in training.losses)],
            key="data",
            fix="Look for rows without labels, infinite weights, and float16 that overflows.",
        )


@check("FT416", "not-deterministic", Level.STEP, Severity.WARNING)
def not_deterministic(self: Check, seen: Seen) -> Iterator[Finding]:
    """The same steps from the same start give other losses.

    Something draws from a generator that no seed reaches, such as `random.SystemRandom`, or the
    time. Reported where losses differ by more than 0.1 %.

    Bad: a collator that seeds itself by the clock.

    Good: generators that `transformers.set_seed` sets.
    """
    training = seen.need("training")
    if not training.repeat or not training.losses:
        raise NotMeasured("the steps were not run twice")
    first, again = training.losses, training.repeat
    apart = max(abs(a - b) for a, b in zip(first, again, strict=False))
    if apart > _ROUNDING * max(1.0, abs(first[0])):
        yield self.finding(
            f"the same steps give losses that differ by {apart:.3g}",
            evidence=[", ".join(f"{loss:.4f}" for loss in losses) for losses in (first, again)],
            key="training.seed",
            fix="Draw what is random from generators that set_seed sets.",
        )


@check("FT425", "frozen-weights-change", Level.STEP, Severity.ERROR)
def frozen_change(self: Check, seen: Seen) -> Iterator[Finding]:
    """Parameters that are not trained are other ones after three steps.

    Bad: a callback that writes to the base.

    Good: `requires_grad=True` for what is to change.
    """
    changed = [
        name
        for name in seen.need("training").changed_frozen
        if not (seen.need("setup").quantized and name.endswith("bias"))
    ]
    if changed:
        yield self.finding(
            f"{len(changed)} parameters that are not trained have changed",
            evidence=changed[:3],
            key="training",
            fix="Look for what writes to them.",
        )


def _placed(seen: Seen, sentence: str) -> tuple[str, str]:
    """The place in the recipe that a sentence begins with, and the rest of it."""
    source = None if seen.recipe is None else seen.recipe.source
    if source is None or not sentence.startswith(f"{source.file}:"):
        return "", sentence
    number, _, rest = sentence.removeprefix(f"{source.file}:").partition(": ")
    return (f"{source.file}:{number}", rest) if number.isdigit() else ("", sentence)


def _doubt(seen: Seen) -> list[str]:
    """What may be to blame instead, where something stood in for the model or for the data."""
    stood_in = not (seen.real_weights and seen.real_data)
    return ["a stand-in was used: see whether it is to blame (--stand-in)"] if stood_in else []


@check("FT426", "training-fails", Level.STEP, Severity.ERROR)
def fails(self: Check, seen: Seen) -> Iterator[Finding]:
    """The first steps of training, or of evaluating, raise an error.

    What other checks explain is left to them.

    Bad: a loss that is not connected to any trained parameter.

    Good: three steps that run.
    """
    tried: tuple[tuple[_During, Training | Record | Batches | None], ...] = (
        ("batches", seen.training),
        ("running", seen.record),
        ("batches", seen.batches),
    )
    failures: list[tuple[_During, Failure | None]] = [("building", seen.refused)]
    failures += [(during, one.failure) for during, one in tried if one is not None]
    for during, failure in failures:
        if failure is None or said_elsewhere(failure, during=during):
            continue
        sentence, key = sentence_of(failure)
        kind = "" if failure.kind == "InputError" else f" {failure.kind}:"
        place, sentence = _placed(seen, sentence)
        yield self.finding(
            f"{failure.during}:{kind} {sentence}",
            place=failure.place or place,
            evidence=[*failure.text.splitlines()[1:6], *_doubt(seen)],
            key=key or "training",
            fix=explained(failure) or next_step_of(failure),
        )
        return
    if not any(failure for _, failure in failures):
        seen.need("training")  # where no step was run, nobody knows
