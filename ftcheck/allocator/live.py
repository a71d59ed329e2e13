"""The memory of a card while something runs on it: allocations one by one, and CUDA's counters."""

from __future__ import annotations

from ftcheck.allocator.caching import Allocator, AllocatorSettings, Block
from ftcheck.cards import Card

__all__ = ["LiveMemory"]


class LiveMemory:
    """What `replay` does with a trace, done as it is recorded. All figures are predicted.

    Args:
        card: Its capacity, less the CUDA context, is what there is.
        settings: Of the allocator, as `PYTORCH_ALLOC_CONF` says; `None`: the defaults.

    Attributes:
        allocations: How often memory was taken so far.
    """

    def __init__(self, card: Card, settings: AllocatorSettings | None = None) -> None:
        self._card = card
        self._allocator = Allocator(
            settings, card.allocator_bytes, device_total_bytes=card.capacity_bytes
        )
        self._blocks: dict[int, Block] = {}
        self.allocations = 0

    def take(self, block: int, size_bytes: int) -> None:
        """Allocate a block.

        Raises:
            OutOfMemory: The card is full; nothing was taken.
        """
        self._blocks[block] = self._allocator.allocate(size_bytes)
        self.allocations += 1

    def give(self, block: int) -> None:
        """Free a block; one that was not taken, because the card was full, is none."""
        held = self._blocks.pop(block, None)
        if held is not None:
            self._allocator.free(held)

    @property
    def allocated_bytes(self) -> int:
        """In blocks that are in use, after rounding (`torch.cuda.memory_allocated`)."""
        return self._allocator.allocated.current

    @property
    def reserved_bytes(self) -> int:
        """Held from the driver (`torch.cuda.memory_reserved`)."""
        return self._allocator.reserved.current

    @property
    def allocated_peak_bytes(self) -> int:
        """Most that was allocated since `reset_peaks` (`torch.cuda.max_memory_allocated`)."""
        return self._allocator.allocated.peak

    @property
    def reserved_peak_bytes(self) -> int:
        """Most that was reserved since `reset_peaks` (`torch.cuda.max_memory_reserved`)."""
        return self._allocator.reserved.peak

    @property
    def free_bytes(self) -> int:
        """What the driver could still give (`torch.cuda.mem_get_info`)."""
        return self._card.allocator_bytes - self.reserved_bytes

    @property
    def total_bytes(self) -> int:
        """Of the card."""
        return self._card.capacity_bytes

    def reset_peaks(self) -> None:
        """Begin new peaks, at what is held now (`torch.cuda.reset_peak_memory_stats`)."""
        for gauge in (self._allocator.allocated, self._allocator.reserved):
            gauge.peak = gauge.current

    def empty_cache(self) -> None:
        """Give back what is held and not in use (`torch.cuda.empty_cache`)."""
        self._allocator.empty_cache()
