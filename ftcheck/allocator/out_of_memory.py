"""What the simulated allocator raises when the card is full, in CUDA's own words."""

from __future__ import annotations

from typing import ClassVar

from ftcheck.errors import FtcheckError

__all__ = ["OutOfMemory", "format_size"]


class OutOfMemory(FtcheckError):
    """The allocator could not get the memory that was asked for. All amounts are bytes.

    Args:
        requested_bytes: What was asked for.
        segment_bytes: What the allocator then asked of the driver; CUDA's message names this.
        capacity_bytes: What the allocator may take from the driver in all.
        device_total_bytes: Memory of the device, as `cudaMemGetInfo` gives it.
        allocated_bytes: In blocks that are in use.
        reserved_bytes: Held by the allocator, in use or cached.
        allowed_bytes: Limit from `per_process_memory_fraction`, or `None`.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        *,
        requested_bytes: int,
        segment_bytes: int,
        capacity_bytes: int,
        device_total_bytes: int,
        allocated_bytes: int,
        reserved_bytes: int,
        allowed_bytes: int | None = None,
    ) -> None:
        self.requested_bytes = requested_bytes
        self.segment_bytes = segment_bytes
        self.capacity_bytes = capacity_bytes
        self.device_total_bytes = device_total_bytes
        self.allocated_bytes = allocated_bytes
        self.reserved_bytes = reserved_bytes
        self.allowed_bytes = allowed_bytes
        super().__init__(self.cuda_message())

    @property
    def free_bytes(self) -> int:
        """What the driver could still give."""
        return self.capacity_bytes - self.reserved_bytes

    def cuda_message(self, card: str = "0") -> str:
        """The sentence of `torch.OutOfMemoryError`, with the numbers of the simulation.

        Worded as `malloc` in torch 2.13.0 does (`c10/cuda/CUDACachingAllocator.cpp:1928-1953`)
        where NVML answers, which adds the part about non-PyTorch memory; there only the context
        and what else was kept from the allocator is non-PyTorch memory.

        Args:
            card: What stands after "GPU": CUDA prints the index of the device.
        """
        outside_bytes = self.device_total_bytes - self.capacity_bytes
        allowed = (
            "" if self.allowed_bytes is None else f"{format_size(self.allowed_bytes)} allowed; "
        )
        return (
            f"CUDA out of memory. Tried to allocate {format_size(self.segment_bytes)}. "
            f"GPU {card} has a total capacity of {format_size(self.device_total_bytes)} "
            f"of which {format_size(self.free_bytes)} is free. "
            "Including non-PyTorch memory, this process has "
            f"{format_size(self.reserved_bytes + outside_bytes)} memory in use. {allowed}"
            f"Of the allocated memory {format_size(self.allocated_bytes)} is allocated by "
            f"PyTorch, and {format_size(self.reserved_bytes - self.allocated_bytes)} is reserved "
            "by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
            "documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/"
            "cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
        )


def format_size(size_bytes: int) -> str:
    """Print bytes as torch does (`format_size`, `c10/core/Allocator.h`), not as ftcheck does."""
    if size_bytes <= 1024:
        return f"{size_bytes} bytes"
    for unit, factor in (("KiB", 1024), ("MiB", 1024**2)):
        if size_bytes <= factor * 1024:
            return f"{size_bytes / factor:.2f} {unit}"
    return f"{size_bytes / 1024**3:.2f} GiB"
