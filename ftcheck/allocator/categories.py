"""Categories of memory, as the virtual GPU assigns them and reports show them."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACTIVATIONS",
    "ADAPTERS",
    "GRADIENTS",
    "INPUTS",
    "LOGITS",
    "OPTIMIZER",
    "OTHER",
    "QUANTIZATION",
    "WEIGHTS",
    "WORKSPACES",
]

WEIGHTS: Final = "base weights"
ADAPTERS: Final = "adapters"
QUANTIZATION: Final = "quantization state"
GRADIENTS: Final = "gradients"
OPTIMIZER: Final = "optimizer state"
ACTIVATIONS: Final = "saved activations"
LOGITS: Final = "logits and loss"
INPUTS: Final = "inputs"
WORKSPACES: Final = "workspaces"
OTHER: Final = "other"
