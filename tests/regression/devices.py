"""Part of the recipe left on the host, and everything moved to the card."""

from __future__ import annotations

from typing import Any

from tests.helpers.versions import at_least
from tests.regression.outcomes import said_by
from tests.regression.plain import base, lora, row, tensors

__all__ = ["has_virtual_gpu", "misplaced"]


def has_virtual_gpu() -> bool:
    """Whether the virtual GPU knows the installed libraries."""
    return at_least("transformers", "4.46")


def misplaced(gpu: Any, what: str) -> tuple[str, str]:
    """What a forward pass says with a part left behind, and what after moving everything.

    Args:
        gpu: A `VirtualGpu`, or what has a `device` as it does.
        what: "inputs", "half the model" or "adapter".
    """
    device = gpu.device
    model, inputs = base(), {"input_ids": tensors([row(4)])["input_ids"]}
    if what == "adapter":
        model = lora(model.to(device))
        for module in model.modules():
            if hasattr(module, "lora_A"):
                module.lora_A.to("cpu")
                module.lora_B.to("cpu")
    elif what == "half the model":
        model.to(device)
        model.transformer.h[2:].to("cpu")
    else:
        model.to(device)
    if what != "inputs":
        inputs = {name: value.to(device) for name, value in inputs.items()}
    said = said_by(lambda: model(**inputs))
    model.to(device)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    return said, said_by(lambda: model(**inputs))
