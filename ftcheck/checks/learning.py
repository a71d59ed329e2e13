"""FT407 to FT416 and FT420: what losses and gradients do."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from ftcheck.checks.facts import IGNORED, Learning, Setup
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen
from ftcheck.pipeline.library_bugs import LOSS_TYPE_MENDS, in_range, versions_of

__all__: list[str] = []

_MOSTLY: Final = 0.9
_OWN_DIVISION: Final = (
    "Let compute_loss divide by num_items_in_batch, or set "
    "trainer.model_accepts_loss_kwargs = False."
)
_ROUNDING: Final = 1e-3
"""Relative difference of losses in float32 that reordering sums explains, with room."""


@check("FT407", "accumulation-changes-gradient", Level.STEP, Severity.ERROR)
def accumulation(self: Check, seen: Seen) -> Iterator[Finding]:
    """Accumulated micro-batches give another gradient than the mean over their label tokens.

    A loss of one's own that ignores `num_items_in_batch` is not divided: the gradient is as many
    times too large as batches are accumulated, and clipping hides it. Reported where the norms
    differ by more than 40 %: batches of mixed lengths and the library's own rounding (up to 15 % on
    short rows of GPT-2, see gpt2-loss-type in `ftcheck doctor`) stay below.

    Bad:

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            return model(**inputs).loss

    Good: `super().compute_loss(...)`, or divide by `num_items_in_batch`.
    """
    learning = seen.need("learning")
    setup = seen.need("setup")
    if seen.record is not None and seen.record.loop:
        raise NotMeasured("how a loop of the script's own accumulates is not followed")
    if int(setup.arguments.get("gradient_accumulation_steps") or 1) < 2:
        raise NotApplicable("nothing is accumulated")
    if setup.arguments.get("label_smoothing_factor"):
        raise NotApplicable("the loss is smoothed")
    factor = learning.accumulation
    if factor is None:
        raise NotMeasured(_why(learning, "the accumulated gradient was not measured"))
    if not 1 / 1.4 <= factor <= 1.4:
        library = not setup.own_loss and _counts_before_the_shift(setup)
        fix, change = _mended_by_loss_type() if library else (_OWN_DIVISION, {})
        yield self.finding(
            f"the accumulated gradient is {factor:.2f} times that of the mean over label tokens",
            evidence=_own_methods(setup),
            key="model.loss_type" if library else "training.gradient_accumulation_steps",
            fix=fix,
            change=change,
        )


def _counts_before_the_shift(setup: Setup) -> bool:
    """Whether the library divides the loss by labels that it counted too early (FT412)."""
    helped = bool(setup.config.get("loss_type")) and in_range(LOSS_TYPE_MENDS)
    return setup.model_class.startswith("GPT2") and not helped


def _mended_by_loss_type() -> tuple[str, dict[str, Any]]:
    """What to do about it, with the installed version of transformers."""
    if in_range(LOSS_TYPE_MENDS):
        change = {"model.loss_type": "ForCausalLM"}
        return 'Set model.loss_type = "ForCausalLM" before the trainer is made.', change
    if in_range(versions_of("accumulated-gradient")):
        return "Upgrade transformers: from 4.49 on, losses of accumulated batches are averaged.", {}
    return 'Upgrade transformers to 5.10, and set model.loss_type = "ForCausalLM".', {}


def _own_methods(setup: Setup) -> list[str]:
    """What the trainer's class has of its own, as evidence."""
    return [f"its own: {', '.join(sorted(setup.overrides))}"] if setup.overrides else []


def _why(learning: Learning, otherwise: str) -> str:
    failure = learning.failure
    return otherwise if failure is None else f"{failure.kind}: {failure.text.splitlines()[0]}"


@check("FT429", "gradients-not-cleared", Level.STEP, Severity.ERROR)
def not_cleared(self: Check, seen: Seen) -> Iterator[Finding]:
    """A loop of the script's own adds each gradient to those of all the steps before.

    The step is made along the sum of all gradients since the start. Seen when a gradient comes in
    behind a step, and the one of that step is still there.

    Bad: `loss.backward()` and `optimizer.step()` without `optimizer.zero_grad()`.

    Good: `optimizer.zero_grad()` after each step.
    """
    record = seen.record
    if record is None or not record.loop:
        raise NotApplicable("a Trainer clears gradients by itself")
    steps = len(record.rates)
    if steps < 2:
        raise NotMeasured("fewer than two steps were made")
    if record.kept_gradients:
        yield self.finding(
            f"the gradient is not cleared after {record.kept_gradients} of {steps - 1} steps: the "
            "next one is added to it",
            key="training",
            fix="Call optimizer.zero_grad() after each optimizer.step().",
        )


@check("FT409", "loss-does-not-fall", Level.STEP, Severity.ERROR)
def does_not_fall(self: Check, seen: Seen) -> Iterator[Finding]:
    """Steps on one batch do not lower the loss on that batch.

    Without dropout, at the recipe's own rate: the gradient points somewhere else than down.
    Reported only where the loss rises or stays the same while the rate is 1e-6 or more.

    Bad: a loss of one's own with the wrong sign, or about something else than the labels.

    Good: the loss falls by a little in every such step.
    """
    learning = seen.need("learning")
    setup = seen.need("setup")
    start = learning.start_loss
    if not learning.losses or start is None:
        raise NotMeasured(_why(learning, "no step was run on one batch"))
    if not setup.trainable or float(setup.arguments.get("learning_rate") or 0.0) < 1e-6:
        raise NotApplicable("nothing is trained at a rate that shows in some steps")
    if _said_elsewhere(seen, setup):
        raise NotApplicable("another check says why it cannot")
    best, last = min(learning.losses), learning.losses[-1]
    if _explodes(start, last) or not math.isfinite(start):
        raise NotApplicable("it explodes, or is NaN")
    if best >= start:
        yield self.finding(
            f"the loss of one batch goes from {start:.4f} to {last:.4f} in "
            f"{len(learning.losses)} steps on it",
            evidence=_own_methods(setup),
            key="training.label_smoothing_factor",
            fix="Look at what compute_loss returns, and at what the labels are."
            if not setup.arguments.get("label_smoothing_factor")
            else "Smooth the labels less: 0.1 is usual.",
        )


def _said_elsewhere(seen: Seen, setup: Setup) -> bool:
    """Whether the adapter is scaled to nothing (FT304), or the optimizer lacks what is trained
    (FT401)."""
    scaled = any(adapter.config.get("lora_alpha") == 0 for adapter in setup.adapters)
    held = seen.training.in_optimizer if seen.training is not None else None
    trained = {one.name for one in setup.trainable}
    return scaled or (held is not None and not trained & held)


@check("FT420", "loss-explodes", Level.STEP, Severity.ERROR)
def explodes(self: Check, seen: Seen) -> Iterator[Finding]:
    """Steps at the recipe's highest rate raise the loss of the batch that they train on.

    Reported from 1.3 times the loss at the start and 0.3 more, or where it is no number.

    Bad: `learning_rate=2e-2` where 2e-4 was meant.

    Good: a rate at which the loss of one batch falls.
    """
    learning = seen.need("learning")
    start = learning.start_loss
    if not learning.losses or start is None or not math.isfinite(start):
        raise NotMeasured(_why(learning, "no step was run on one batch"))
    last = learning.losses[-1]
    if _explodes(start, last):
        rate = seen.need("setup").arguments.get("learning_rate")
        shown = ", ".join(f"{loss:.2f}" for loss in learning.losses)
        yield self.finding(
            f"the loss of one batch goes from {start:.2f} to {last:.2f} in "
            f"{len(learning.losses)} steps at its rate of {rate}",
            evidence=[f"after each step: {shown}"],
            key="training.learning_rate",
            fix="Set the learning rate ten times lower.",
            change={"training.learning_rate": float(rate) / 10} if rate else None,
        )


def _explodes(start: float, last: float) -> bool:
    return not math.isfinite(last) or last > 1.3 * start + 0.3


@check("FT408", "loss-not-that-of-labels", Level.STEP, Severity.NOTE)
def other_loss(self: Check, seen: Seen) -> Iterator[Finding]:
    """The trainer's loss is far from the mean over label tokens.

    It may be meant (weights, distillation): a note, from a quarter of the mean on. An error where
    it compares the logits of a token with that same token, and not with the next: that is told by
    the label of the first token, which no logits come before and which changes the loss all the
    same. The model learns to copy what it is given.

    Bad: `cross_entropy(logits.view(-1, size), labels.view(-1))`

    Good: `outputs.loss` of the model, or `logits[:, :-1]` and `labels[:, 1:]`.
    """
    learning, setup = seen.need("learning"), seen.need("setup")
    own, mean = learning.own_loss, learning.mean_loss
    if own is None or mean is None or not math.isfinite(mean):
        raise NotMeasured(_why(learning, "the loss of one batch was not computed"))
    if not setup.own_loss:
        raise NotApplicable("the loss is the library's")
    if setup.arguments.get("label_smoothing_factor") and not learning.first_label_counts:
        raise NotApplicable("the loss is smoothed")
    if learning.first_label_counts:
        yield self.finding(
            "the trainer's own loss does not shift: it compares the logits of a token with that "
            "token, and not with the next",
            evidence=[*_own_methods(setup), f"{own:.3f}; with a shift {mean:.3f}"],
            key="training",
            fix="Return outputs.loss, or compare logits[:, :-1] with labels[:, 1:].",
            severity=Severity.ERROR,
        )
    elif abs(own - mean) > 0.25 * max(abs(mean), 1e-6):
        yield self.finding(
            f"the trainer's own loss is {own:.3f} where the mean over label tokens is {mean:.3f}",
            key="training",
            fix="If it is to be the mean over label tokens, return outputs.loss.",
        )


@check("FT410", "layers-without-gradient", Level.STEP, Severity.ERROR)
def without_gradient(self: Check, seen: Seen) -> Iterator[Finding]:
    """A gradient never reaches some of the layers that are to be trained.

    Reentrant checkpointing over a frozen embedding, a `detach`, or a branch that is not used: B of
    such an adapter stays zero. A of a LoRA pair does not count, whose gradient is zero in the first
    step; nor do layers that no token of the batch goes through.

    Bad: `gradient_checkpointing_enable()` by hand on a frozen base without
    `enable_input_require_grads()`.

    Good: `gradient_checkpointing_kwargs={"use_reentrant": False}`
    """
    training, setup = seen.need("training"), seen.need("setup")
    if not training.gradients:
        raise NotMeasured("no step was run")
    if setup.arguments.get("learning_rate") == 0:
        raise NotApplicable("the learning rate is zero")
    if _said_elsewhere(seen, setup):
        raise NotApplicable("another check says why")
    groups: dict[str, list[float]] = defaultdict(list)
    for name, norm in training.gradients.items():
        if "lora_A" not in name and "lora_embedding" not in name:
            groups[_layer(name)].append(norm)
    silent = sorted(layer for layer, norms in groups.items() if not any(norms))
    passed_by = ("expert", "trainable_tokens")
    silent = [layer for layer in silent if not any(part in layer for part in passed_by)]
    if silent:
        yield self.finding(
            f"no gradient reaches {len(silent)} of {len(groups)} modules that are trained",
            evidence=silent[:5],
            key="lora",
            fix="With checkpointing, set use_reentrant to False; look for detach and no_grad.",
        )


def _layer(name: str) -> str:
    """The module that a parameter belongs to, without what peft puts around its name."""
    name = re.sub(r"\.(lora_[A-Za-z_]+|modules_to_save)\b.*", "", name)
    name = name.removeprefix("base_model.model.")
    return name.rpartition(".")[0] if name.endswith((".weight", ".bias")) else name


@check("FT423", "layers-do-not-move", Level.STEP, Severity.WARNING)
def do_not_move(self: Check, seen: Seen) -> Iterator[Finding]:
    """Layers have a gradient, and some steps leave them as they are.

    In half precision a small rate rounds to nothing: bfloat16 has 8 bits. Judged by module, after
    three steps at the highest rate: nine in ten elements with a gradient are as they were.

    Bad: all parameters in bfloat16, `learning_rate=1e-6`.

    Good: float32 weights under `bf16=True`.
    """
    training, setup = seen.need("training"), seen.need("setup")
    if not training.moved or training.failure is not None:
        raise NotMeasured("no step was run")
    held = training.in_optimizer or frozenset()
    if float(setup.arguments.get("learning_rate") or 0.0) <= 1e-8:
        raise NotApplicable("the learning rate is zero")
    rounded: dict[str, list[float]] = defaultdict(list)
    for name, share in training.rounded.items():
        if name in held:
            rounded[_layer(name)].append(share)
    still = sorted(layer for layer, shares in rounded.items() if max(shares) > _MOSTLY)
    if still:
        dtypes = sorted({one.dtype for one in setup.trainable})
        yield self.finding(
            f"{len(still)} of {len(rounded)} modules have a gradient and hardly move in three "
            "steps: updates are rounded away",
            evidence=[*still[:3], f"trained in {', '.join(dtypes)}"],
            key="training.learning_rate",
            fix="Train float32 weights, or set the learning rate higher.",
        )


@check("FT411", "rows-see-each-other", Level.STEP, Severity.ERROR)
def leak(self: Check, seen: Seen) -> Iterator[Finding]:
    """Other tokens in one row change the logits of another row of the batch.

    Rows of a batch are apart in every model of transformers; code of one's own has joined them.
    Reported from 1 % of the largest logit on. A note where texts that are packed into one row see
    each other though their `position_ids` begin anew: transformers keeps them apart by those alone
    where there is no attention mask. Packing without such positions is a choice, and not looked at.

    Bad: reshaping a batch into one long row without a mask that keeps them apart.

    Good: a block-diagonal mask, or `position_ids` that begin anew.
    """
    learning = seen.need("learning")
    if learning.packed_leak is not None and learning.packed_leak >= 0.01:
        yield self.finding(
            "texts of one row see each other, though their positions begin anew: logits of the "
            f"last change by {100 * learning.packed_leak:.0f} % of the largest with those before",
            key="tokenization.packing",
            fix="Leave attention_mask out of such batches, or make it block-diagonal.",
            severity=Severity.NOTE,
        )
    elif learning.leak is None:
        raise NotMeasured(_why(learning, "a batch has one row"))
    if learning.leak is not None and learning.leak >= 0.01:
        yield self.finding(
            f"logits of a row change by {100 * learning.leak:.0f} % of the largest when another "
            "row of its batch is changed",
            key="model",
            fix="Keep the rows of a batch apart in the attention mask.",
        )


@check("FT412", "loss-divided-by-unshifted-labels", Level.STEP, Severity.NOTE)
def divided(self: Check, seen: Seen) -> Iterator[Finding]:
    """The library divides the loss by labels that it counted before the shift.

    Models without a `loss_type` (GPT-2) under transformers 4.49 and later: loss and gradient are
    (L−1)/L of the true ones for rows of L labels (transformers#46204).

    Bad: a perplexity that is read off `eval_loss`, with rows of ten tokens.

    Good: `model.loss_type = "ForCausalLM"` before the trainer is made (transformers 5.10).
    """
    setup = seen.need("setup")
    learning = seen.need("learning")
    rows = [row for row in seen.rows("batches") if row.labels is not None]
    if setup.own_loss or not rows:
        raise NotApplicable("the loss is the subject's own")
    if learning.accumulation is not None and abs(learning.accumulation - 1) < _ROUNDING:
        return
    if not _counts_before_the_shift(setup):
        raise NotApplicable("the model's loss is counted after the shift")
    loss_type = None if seen.recipe is None else seen.recipe.model.loss_type
    if loss_type is not None and in_range(LOSS_TYPE_MENDS):
        raise NotApplicable("model.loss_type is set")
    before = sum(sum(label != IGNORED for label in row.labels or ()) for row in rows)
    after = sum(sum(label != IGNORED for label in (row.labels or ())[1:]) for row in rows)
    share = 1 - after / max(1, before)
    if share >= 0.02:
        fix, change = _mended_by_loss_type()
        yield self.finding(
            f"loss and gradient are {100 * share:.0f} % too small: divided by labels counted "
            "before the shift",
            key="model.loss_type",
            fix=fix,
            change=change,
        )
