"""The memory of the card behind the device: it counts while things run, and it can be full."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from ftcheck.errors import FtcheckError
from ftcheck.vgpu.device import DEVICE_TYPE
from ftcheck.vgpu.record import Recorder

__all__ = ["CardMemory", "install"]


class CardMemory(Protocol):
    """Memory of a card, with the counters of CUDA's allocator."""

    def take(self, block: int, size_bytes: int) -> None:
        """Allocate; raises a `FtcheckError` with CUDA's words where the card is full."""

    def give(self, block: int) -> None:
        """Free."""

    def reset_peaks(self) -> None:
        """Begin new peaks."""

    def empty_cache(self) -> None:
        """Give back what is not in use."""

    @property
    def allocated_bytes(self) -> int:
        """In use."""

    @property
    def reserved_bytes(self) -> int:
        """Held."""

    @property
    def allocated_peak_bytes(self) -> int:
        """Most in use."""

    @property
    def reserved_peak_bytes(self) -> int:
        """Most held."""

    @property
    def free_bytes(self) -> int:
        """Not held by anybody."""

    @property
    def total_bytes(self) -> int:
        """Of the card."""


def install(memory: CardMemory, recorder: Recorder) -> None:
    """Let a memory take every storage of the device, and answer for `torch.vgpu`.

    Where it is full, `torch.OutOfMemoryError` is raised as on CUDA, in its words, as predicted.
    """

    def take(block: int, size_bytes: int) -> None:
        try:
            memory.take(block, size_bytes)
        except FtcheckError as error:
            raise torch.OutOfMemoryError(f"{error.message}; predicted on a virtual GPU") from None

    recorder.took, recorder.gave = take, memory.give
    backend: Any = getattr(torch, DEVICE_TYPE)
    backend.memory_allocated = lambda device=None: memory.allocated_bytes
    backend.memory_reserved = lambda device=None: memory.reserved_bytes
    backend.max_memory_allocated = lambda device=None: memory.allocated_peak_bytes
    backend.max_memory_reserved = lambda device=None: memory.reserved_peak_bytes
    backend.reset_peak_memory_stats = lambda device=None: memory.reset_peaks()
    backend.mem_get_info = lambda device=None: (memory.free_bytes, memory.total_bytes)
    backend.empty_cache = memory.empty_cache
    backend.total_memory = memory.total_bytes
