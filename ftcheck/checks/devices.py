"""FT6xx: devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ftcheck.checks.facts import Failure
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []

_REFUSED: Final = re.compile(
    r"is not supported for .*(bitsandbytes|quantized) model|cannot cast a .* model in a new `dtype`"
)
"""What `to`, `cuda`, `half` and `float` of a quantized `PreTrainedModel` say (transformers 4 and 5,
`modeling_utils.py`)."""


@check("FT601", "devices-differ", Level.MEMORY, Severity.ERROR)
def differ(self: Check, seen: Seen) -> Iterator[Finding]:
    """Tensors on different devices meet in one operation.

    `RuntimeError: Expected all tensors to be on the same device`. Found by running on the virtual
    GPU, where each tensor has its device.

    Bad: `model.to("cuda").generate(**tokenizer(prompt, return_tensors="pt"))`

    Good: `tokenizer(prompt, return_tensors="pt").to(model.device)`
    """
    found = [
        seen.memory if isinstance(seen.memory, Failure) else None,
        seen.record.failure if seen.record is not None else None,
    ]
    if all(one is None for one in found) and seen.memory is None and seen.record is None:
        seen.need("memory")
    for failure in found:
        if failure is not None and "same device" in failure.text:
            yield self.finding(
                failure.text.splitlines()[0],
                place=failure.place,
                key="model.device",
                fix="Move the inputs: inputs.to(model.device).",
            )
            return
    if isinstance(seen.memory, Failure):
        raise NotMeasured(f"on the virtual GPU: {seen.memory.text.splitlines()[0]}")


@check("FT602", "model-offloaded", Level.STATIC, Severity.WARNING)
def offloaded(self: Check, seen: Seen) -> Iterator[Finding]:
    """Parts of the model lie on the CPU or the disk, and the rest on a card.

    `device_map="auto"` puts there what does not fit. Training is many times slower, or fails.

    Bad: `device_map="auto"` on a card that is too small.

    Good: `device_map={"": 0}`, which fails at once, or 4 bits.
    """
    setup = seen.need("setup")
    places = set(setup.device_map.values())
    off = sorted(places & {"cpu", "disk"})
    if off and places - {"cpu", "disk"}:
        names = [name for name, place in setup.device_map.items() if place in ("cpu", "disk")]
        yield self.finding(
            f"{len(names)} modules are offloaded to {' and '.join(off)}",
            evidence=names[:3],
            key="model",
            fix='Set device_map={"": 0}, and a model or a precision that fits.',
        )


@check("FT603", "data-parallel-unasked", Level.STATIC, Severity.WARNING)
def data_parallel(self: Check, seen: Seen) -> Iterator[Finding]:
    """There are several cards and no launcher: `Trainer` uses `DataParallel` by itself.

    Losses are averaged wrongly, and quantized models fail (transformers#37474).

    Bad: `python train.py` on a machine with two cards.

    Good: `CUDA_VISIBLE_DEVICES=0 python train.py`, or `accelerate launch train.py`.
    """
    setup = seen.need("setup")
    if setup.gpus > 1 and not setup.launched:
        yield self.finding(
            f"{setup.gpus} cards and no launcher: Trainer will use DataParallel",
            key="training",
            fix="Set CUDA_VISIBLE_DEVICES=0, or start it by accelerate launch.",
        )


@check("FT604", "quantized-model-moved", Level.STATIC, Severity.ERROR)
def moved(self: Check, seen: Seen) -> Iterator[Finding]:
    """A quantized model is moved or cast.

    "`.to` is not supported for `8-bit` bitsandbytes models": up to transformers 4 for devices,
    always for types.

    Bad: `model.half()` on a model that was loaded in 8 bits.

    Good: `device_map={"": 0}` when it is loaded.
    """
    failure = seen.record.failure if seen.record is not None else seen.refused
    if failure is None:
        raise NotApplicable("nothing failed")
    if _REFUSED.search(failure.text):
        yield self.finding(
            failure.text.splitlines()[0],
            place=failure.place,
            key="quantization",
            fix="Leave a quantized model where it was loaded.",
        )
