"""The out-of-memory error of the simulated allocator, worded as CUDA's."""

from __future__ import annotations

from typing import ClassVar

from ftcheck.errors import FtcheckError

__all__ = ["OutOfMemory", "format_size"]


class OutOfMemory(FtcheckError):
    """The allocator could not get the memory that was requested."""

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
        """What was requested of the allocator."""
        self.segment_bytes = segment_bytes
        """What the allocator then requested of the driver; CUDA's message names this."""
        self.capacity_bytes = capacity_bytes
        """What the allocator may take from the driver in total."""
        self.device_total_bytes = device_total_bytes
        """Memory of the device, as `cudaMemGetInfo` gives it."""
        self.allocated_bytes = allocated_bytes
        """In blocks that are in use."""
        self.reserved_bytes = reserved_bytes
        """Taken from the driver, in use or cached."""
        self.allowed_bytes = allowed_bytes
        """Limit from `per_process_memory_fraction`, or `None`."""
        super().__init__(self.cuda_message())

    @property
    def free_bytes(self) -> int:
        """What the driver could still give."""
        return self.capacity_bytes - self.reserved_bytes

    def cuda_message(self, gpu: str = "0") -> str:
        """The message of `torch.OutOfMemoryError`, with the numbers of the simulation.

        Worded as in `malloc` of torch 2.13.0 (`c10/cuda/CUDACachingAllocator.cpp:1928-1953`) with
        NVML, which adds the part about non-PyTorch memory; here that is the context and whatever
        else the allocator may not take.

        Args:
            gpu: What follows "GPU": CUDA prints the index of the device.
        """
        outside_bytes = self.device_total_bytes - self.capacity_bytes
        allowed = (
            "" if self.allowed_bytes is None else f"{format_size(self.allowed_bytes)} allowed; "
        )
        return (
            f"CUDA out of memory. Tried to allocate {format_size(self.segment_bytes)}. "
            f"GPU {gpu} has a total capacity of {format_size(self.device_total_bytes)} "
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
