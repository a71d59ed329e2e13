"""FT5xx: precision and quantization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ftcheck.checks.facts import Reload
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []

_MERGE_LOST: Final = 0.15


@check("FT501", "fp16-weights-under-amp", Level.STATIC, Severity.ERROR)
def fp16_weights(self: Check, seen: Seen) -> Iterator[Finding]:
    """Trained parameters are float16, and fp16 training is on.

    `ValueError: Attempting to unscale FP16 gradients.`, on a card; a CPU says nothing.

    Bad: `from_pretrained(..., dtype=torch.float16)` and `fp16=True`.

    Good: float32 weights under `fp16=True`; peft makes adapters float32 by itself.
    """
    setup = seen.need("setup")
    if not setup.arguments.get("fp16"):
        raise NotApplicable("fp16 is off")
    half = [one.name for one in setup.trainable if one.dtype == "float16"]
    if half:
        yield self.finding(
            f"{len(half)} trained parameters are float16 under fp16=True: their gradients cannot "
            "be unscaled",
            evidence=half[:3],
            key="training.fp16",
            fix="Load the model in float32, or cast what is trained to float32.",
        )


@check("FT502", "fp16-not-tried", Level.STATIC, Severity.NOTE)
def fp16_not_covered(self: Check, seen: Seen) -> Iterator[Finding]:
    """fp16 is on, and what ran here ran in float32.

    On a CPU `fp16=True` is taken and does nothing: no scaler, no overflow. Nothing that is said
    here is about float16.

    Bad: "it passed in CI" as proof that fp16 is stable.

    Good: bf16, which has float32's range; or a run on a card.
    """
    setup = seen.need("setup")
    on_card = any(one.device == "cuda" for one in setup.parameters)
    if setup.arguments.get("fp16") and not on_card:
        yield self.finding(
            "fp16 was not tried: on a CPU it has no effect, and steps ran in float32",
            key="training.fp16",
        )


@check("FT503", "trained-in-half-precision", Level.STATIC, Severity.WARNING)
def pure_half(self: Check, seen: Seen) -> Iterator[Finding]:
    """Trained parameters are float16 without a scaler.

    Gradients below 6e-8 are zero, and updates round away. bfloat16 is a note: small updates are
    lost in its 8 bits as well. Since transformers 5 the dtype of the checkpoint is the default.

    Bad: `model.half()` and no `fp16=True`.

    Good: `dtype=torch.float32` and `bf16=True`.
    """
    setup = seen.need("setup")
    for dtype, severity in (("float16", Severity.WARNING), ("bfloat16", Severity.NOTE)):
        half = [one for one in setup.trainable if one.dtype == dtype]
        if half and not (dtype == "float16" and setup.arguments.get("fp16")):
            count = len(setup.trainable)
            yield self.finding(
                f"{len(half)} of {count} trained parameters are {dtype}: small updates are lost",
                evidence=[half[0].name],
                key="model.dtype",
                fix="Load the model in float32, and set bf16=True or fp16=True.",
                severity=severity,
            )


@check("FT504", "quantized-not-prepared", Level.STATIC, Severity.NOTE)
def unprepared(self: Check, seen: Seen) -> Iterator[Finding]:
    """The base is quantized, and `prepare_model_for_kbit_training` was not at it.

    Its norms stay in half precision. Measured with 8 bits: it trains as well.

    Bad: `get_peft_model(quantized, config)`

    Good: `get_peft_model(prepare_model_for_kbit_training(quantized), config)`
    """
    setup = seen.need("setup")
    if not setup.quantized:
        raise NotApplicable("the base is not quantized")
    if not setup.prepared:
        yield self.finding(
            f"the {setup.quantized} base was not prepared: its norms are in half precision",
            key="quantization",
            fix="Call prepare_model_for_kbit_training before get_peft_model.",
        )


@check("FT505", "merge-loses-the-adapter", Level.ROUNDTRIP, Severity.NOTE)
def merge(self: Check, seen: Seen) -> Iterator[Finding]:
    """Merging the adapter into a quantized base rounds part of it away.

    Measured, as the error of the merged logits over the effect of the adapter after three steps,
    where that is 5 % of the largest logit or more. A note, from 15 % on; a warning where a script
    merges.

    Bad: `model.merge_and_unload()` on a 4-bit base.

    Good: load the base in half precision, then merge; or ship the adapter.
    """
    setup = seen.need("setup")
    if not setup.quantized:
        raise NotApplicable("the base is not quantized")
    merged = seen.record.of("merge") if seen.record is not None else ()
    reload: Reload | None = seen.need("reload") if not merged else seen.reload
    error = reload.merge_error if reload is not None else None
    if merged:
        yield self.finding(
            f"the adapter is merged into a {setup.quantized} base, which rounds it",
            place=merged[0].place,
            fix="Load the base in half precision before merging.",
            severity=Severity.WARNING,
        )
    elif reload is None or error is None:
        raise NotMeasured("nothing was merged")
    elif (reload.adapter_effect or 0.0) < 0.05 * reload.scale:
        raise NotMeasured("three steps have taught the adapter too little to tell")
    elif error >= _MERGE_LOST:
        yield self.finding(
            f"merging into the {setup.quantized} base would be off by {100 * error:.0f} % of what "
            "three steps have learned",
            key="quantization",
            fix="Ship the adapter, or merge it into a base in half precision.",
        )


@check("FT506", "bf16-on-an-older-card", Level.STATIC, Severity.ERROR)
def bf16_card(self: Check, seen: Seen) -> Iterator[Finding]:
    """bf16 is on, and the card of the budget is older than Ampere.

    "Your setup doesn't support bf16/gpu."

    Bad: `bf16=True` on a T4 (compute capability 7.5).

    Good: `fp16=True` there.
    """
    from ftcheck.vram.budget import budget_of

    setup = seen.need("setup")
    if seen.recipe is None or not setup.arguments.get("bf16"):
        raise NotApplicable("bf16 is off, or no card is named")
    card = budget_of(seen.recipe)
    if card is None or seen.recipe.budget.card is None:
        raise NotApplicable("no card is named")
    if card.compute_capability < (8, 0):
        yield self.finding(
            f"bf16 needs compute capability 8.0, and {card.title} has "
            f"{'.'.join(map(str, card.compute_capability))}",
            key="training.bf16",
            fix="Set fp16 instead.",
            change={"training.bf16": None, "training.fp16": True},
        )


@check("FT507", "bf16-weights-under-fp16", Level.STATIC, Severity.WARNING)
def mixed_up(self: Check, seen: Seen) -> Iterator[Finding]:
    """The weights are bfloat16, and fp16 training is on.

    Activations of a model that was trained in bfloat16 overflow float16: NaN after some steps.

    Bad: a bfloat16 checkpoint under transformers 5, whose dtype is the default, and `fp16=True`.

    Good: `bf16=True`
    """
    setup = seen.need("setup")
    if not setup.arguments.get("fp16"):
        raise NotApplicable("fp16 is off")
    wide = [one for one in setup.parameters if one.dtype == "bfloat16" and not one.adapter]
    if wide:
        yield self.finding(
            f"{len(wide)} parameters are bfloat16 under fp16=True",
            evidence=[wide[0].name],
            key="training.fp16",
            fix="Set bf16=True instead of fp16.",
            change={"training.fp16": None, "training.bf16": True},
        )
