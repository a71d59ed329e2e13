"""Settings of the CUDA caching allocator that decide about device memory, and its constants.

Mirrors torch 2.13.0: `c10/core/AllocatorConfig.h`, `c10/core/AllocatorConfig.cpp` and
`c10/cuda/CUDAAllocatorConfig.cpp`. `ftcheck.allocator.conf` reads them from `PYTORCH_ALLOC_CONF`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "DEFAULT_LARGE_SEGMENT_BYTES",
    "INTERVALS",
    "MAX_MIB",
    "MIB",
    "MIN_BLOCK_BYTES",
    "MIN_LARGE_ALLOCATION_BYTES",
    "ROUND_LARGE_BYTES",
    "SMALL_ALLOCATION_BYTES",
    "SMALL_SEGMENT_BYTES",
    "AllocatorSettings",
    "bad_value",
    "is_power_of_two",
]

MIB: Final = 1024**2
MIN_BLOCK_BYTES: Final = 512
"""`kMinBlockSize`: every size is rounded up to a multiple of it (AllocatorConfig.h:18)."""
SMALL_ALLOCATION_BYTES: Final = 1 * MIB
"""`kSmallSize`: the largest allocation of the small pool (AllocatorConfig.h:20)."""
SMALL_SEGMENT_BYTES: Final = 2 * MIB
"""`kSmallBuffer`: what the small pool takes from the driver at once (AllocatorConfig.h:16)."""
MIN_LARGE_ALLOCATION_BYTES: Final = 10 * MIB
"""`kMinLargeAlloc`: below it, large allocations share a segment (AllocatorConfig.h:22)."""
ROUND_LARGE_BYTES: Final = 2 * MIB
"""`kRoundLarge`: segments of one allocation are a multiple of it (AllocatorConfig.h:24)."""
DEFAULT_LARGE_SEGMENT_BYTES: Final = 20 * MIB
"""`large_segment_size_`, formerly `kLargeBuffer` (AllocatorConfig.h:339)."""
INTERVALS: Final = 16
"""Powers of two from 1 MiB to 64 GiB that can have divisions of their own (AllocatorConfig.cpp)."""
MAX_MIB: Final = (2**64 - 1) // MIB
"""`std::numeric_limits<size_t>::max() / kMB`: the largest size in MiB."""

_FIRST_INTERVAL: Final = MIB.bit_length() - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorSettings:
    """Settings of PyTorch's native CUDA caching allocator that decide about device memory.

    Raises:
        ValueError: torch would refuse a value; the message names the key of `PYTORCH_ALLOC_CONF`.
    """

    expandable_segments: bool = False
    """One growing segment per pool and stream, instead of one `cudaMalloc` per segment."""
    max_split_size_bytes: int | None = None
    """Blocks of this size or more are never split; `None`: all may be."""
    max_non_split_rounding_bytes: int | None = None
    """How much larger than requested an unsplittable block may be; `None`: a large segment."""
    garbage_collection_threshold: float = 0.0
    """Share of the allowed memory above which old cached blocks are released; 0: never.

    Without a `per_process_memory_fraction` below 1 torch ignores it.
    """
    per_process_memory_fraction: float = 1.0
    """Share of the device that the process may take; 1: all, with no check of its own."""
    large_segment_bytes: int = DEFAULT_LARGE_SEGMENT_BYTES
    """What the large pool takes from the driver for an allocation below 10 MiB."""
    roundup_power2_divisions: tuple[int, ...] = (0,) * INTERVALS
    """Steps between two powers of two to which sizes are rounded up; 0 and 1: 512 bytes.

    One entry for each of 1 MiB, 2 MiB, 4 MiB ... 32 GiB; the first also holds for smaller
    sizes, the last for larger ones.
    """

    def __post_init__(self) -> None:
        large = self.large_segment_bytes
        _check_mib("large_segment_size_mb", large, least=MIN_LARGE_ALLOCATION_BYTES // MIB + 1)
        for key, value in (
            ("max_split_size_mb", self.max_split_size_bytes),
            ("max_non_split_rounding_mb", self.max_non_split_rounding_bytes),
        ):
            if value is not None:
                _check_mib(key, value, least=large // MIB)
        threshold = self.garbage_collection_threshold
        if threshold != 0 and not 0 < threshold < 1:
            raise bad_value("garbage_collection_threshold", threshold, "a number between 0 and 1")
        fraction = self.per_process_memory_fraction
        if not 0 <= fraction <= 1:
            raise bad_value("per_process_memory_fraction", fraction, "a number from 0 to 1")
        divisions = self.roundup_power2_divisions
        if len(divisions) != INTERVALS:
            raise bad_value("roundup_power2_divisions", divisions, f"{INTERVALS} numbers")
        for value in divisions:
            if value != 0 and not is_power_of_two(value):
                raise bad_value("roundup_power2_divisions", value, "a power of 2, or 0")

    @property
    def collects_garbage(self) -> bool:
        """Whether the threshold has an effect (CUDACachingAllocator.cpp:1758-1763)."""
        return self.garbage_collection_threshold > 0 and self.per_process_memory_fraction < 1

    def round_size(self, size_bytes: int) -> int:
        """Bytes of the block for a request (`round_size`, CUDACachingAllocator.cpp:3062)."""
        if size_bytes < MIN_BLOCK_BYTES:
            return MIN_BLOCK_BYTES
        interval = size_bytes.bit_length() - 1 - _FIRST_INTERVAL
        divisions = self.roundup_power2_divisions[min(max(interval, 0), INTERVALS - 1)]
        if divisions > 1 and size_bytes > MIN_BLOCK_BYTES * divisions:
            return _round_to_division(size_bytes, divisions)
        return -(-size_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES

    def segment_size(self, rounded_bytes: int) -> int:
        """Bytes to `cudaMalloc` for a block (`get_allocation_size`, :3700-3708)."""
        if rounded_bytes <= SMALL_ALLOCATION_BYTES:
            return SMALL_SEGMENT_BYTES
        if rounded_bytes < MIN_LARGE_ALLOCATION_BYTES:
            return self.large_segment_bytes
        return -(-rounded_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


def _round_to_division(size_bytes: int, divisions: int) -> int:
    """`roundup_power2_next_division`: 1200 with 4 divisions of 1024..2048 becomes 1280."""
    if is_power_of_two(size_bytes):
        return size_bytes
    floor = 1 << (size_bytes.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    if step == 0:
        return floor << 1
    return -(-size_bytes // step) * step


def is_power_of_two(value: int) -> bool:
    """Whether it is 1, 2, 4, 8, and so on."""
    return value > 0 and value & (value - 1) == 0


def _check_mib(key: str, value_bytes: int, *, least: int) -> None:
    if value_bytes % MIB or not least <= value_bytes // MIB <= MAX_MIB:
        got: object = value_bytes // MIB if value_bytes % MIB == 0 else f"{value_bytes} bytes"
        raise bad_value(key, got, f"whole MiB, {least} or more")


def bad_value(key: str, got: object, expected: str) -> ValueError:
    """The error of a key of `PYTORCH_ALLOC_CONF` with a value that torch would refuse."""
    return ValueError(f"{key}: got {got}, expected {expected}")
