"""Who asks for a value that the virtual GPU does not compute: a library, or the test."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Final

from ftcheck.memory.vgpu.errors import Unmeasured

__all__ = ["refuse"]

_CARRIERS: Final = ("torch", "numpy", "ftcheck.memory.vgpu", "ftcheck.pytest_plugin")
"""They ask because somebody asked them."""
_STEPS: Final = ("torch.optim", "torch.amp", "torch.nn.utils", "torch.autograd",
                 "torch.utils.checkpoint")  # fmt: skip
_LIBRARIES: Final = ("transformers", "peft", "accelerate", "bitsandbytes", "trl", "safetensors")
"""They train, generate and save, whatever the values are."""
_JUDGES: Final = ("transformers.tokenization", "transformers.testing_utils")


def refuse(what: str) -> None:
    """Refuse a value to all but the libraries that do not judge by it.

    Args:
        what: Such as "the value of a float32".

    Raises:
        Unmeasured: With the place that asked.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if _within(name, _STEPS) or (_within(name, _LIBRARIES) and not name.startswith(_JUDGES)):
            return
        if not _within(name, _CARRIERS):
            break
        frame = frame.f_back
    where = "the test"
    if frame is not None:
        where = f"{os.path.relpath(frame.f_code.co_filename)}:{frame.f_lineno}"
    raise Unmeasured(where, f"it asks for {what}, which only a real card computes")


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
