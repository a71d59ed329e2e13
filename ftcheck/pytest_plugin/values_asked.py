"""Who asks for a value that the virtual GPU does not compute: a library, or the test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

from ftcheck.memory.vgpu.errors import Unmeasured

__all__ = ["Asked"]

_CARRIERS: Final = ("torch", "numpy", "ftcheck.memory.vgpu", "ftcheck.pytest_plugin")
"""They ask because somebody asked them."""
_STEPS: Final = ("torch.optim", "torch.amp", "torch.nn.utils", "torch.autograd",
                 "torch.utils.checkpoint")  # fmt: skip
_LIBRARIES: Final = (*_STEPS, "transformers", "peft", "accelerate", "bitsandbytes", "trl",
                     "safetensors")  # fmt: skip
"""They train, generate and save, whatever the values are."""
_TELLERS: Final = ("transformers.tokenization", "transformers.testing_utils")
"""What they make of values is for whoever called them."""


class Asked:
    """Refuses values to all but libraries that go on whatever they are; those get nominal ones.

    Args:
        assume: Told of the libraries that got some.
    """

    def __init__(self, assume: Callable[[str], None]) -> None:
        self._assume = assume

    def __call__(self, what: str) -> None:
        """Somebody asks.

        Args:
            what: Such as "the value of a float32".

        Raises:
            Unmeasured: With the place that asked.
        """
        library, tells = "", False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if _within(name, _LIBRARIES):
                library = library or name
                tells = tells or name.startswith(_TELLERS)
            elif not _within(name, _CARRIERS):
                break
            frame = frame.f_back
        if library and not tells:
            package = library.partition(".")[0]
            self._assume(f"{package} got nominal values of what only a real card computes")
            return
        where = "the test"
        if frame is not None:
            where = f"{os.path.relpath(frame.f_code.co_filename)}:{frame.f_lineno}"
        raise Unmeasured(where, f"it asks for {what}, which only a real card computes")


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
