"""The memory of the card behind the device: it counts while things run, and it can be full."""

from __future__ import annotations

from typing import Any

import torch

from ftcheck.allocator.caching import Allocator, Block, OutOfMemory
from ftcheck.vgpu.device import DEVICE_TYPE
from ftcheck.vgpu.record import Recorder

__all__ = ["install"]


def install(allocator: Allocator, recorder: Recorder) -> None:
    """Let an allocator take every storage of the device, and answer for `torch.vgpu`.

    Where it is full, `torch.OutOfMemoryError` is raised as on CUDA, in its words, as predicted.

    Args:
        allocator: Of a card, whose capacity it knows.
        recorder: What tells of storages that are made and freed.
    """
    blocks: dict[int, Block] = {}

    def take(number: int, size_bytes: int) -> None:
        try:
            blocks[number] = allocator.allocate(size_bytes)
        except OutOfMemory as error:
            raise torch.OutOfMemoryError(f"{error.message}; predicted on a virtual GPU") from None

    def give(number: int) -> None:
        block = blocks.pop(number, None)
        if block is not None:  # none where the card was full
            allocator.free(block)

    recorder.took, recorder.gave = take, give
    card = allocator.device
    backend: Any = getattr(torch, DEVICE_TYPE)
    backend.memory_allocated = lambda device=None: allocator.allocated.current
    backend.memory_reserved = lambda device=None: allocator.reserved.current
    backend.max_memory_allocated = lambda device=None: allocator.allocated.peak
    backend.max_memory_reserved = lambda device=None: allocator.reserved.peak
    backend.reset_peak_memory_stats = lambda device=None: allocator.reset_peaks()
    backend.mem_get_info = lambda device=None: (card.free_bytes, card.total_bytes)
    backend.empty_cache = allocator.empty_cache
    backend.total_memory = card.total_bytes
