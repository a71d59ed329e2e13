"""What `PYTORCH_ALLOC_CONF` says to the CUDA caching allocator, and the allocator's constants.

Mirrors torch 2.13.0: `c10/core/AllocatorConfig.h`, `c10/core/AllocatorConfig.cpp` (the parser) and
`c10/cuda/CUDAAllocatorConfig.cpp` (the keys that only CUDA has).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ftcheck.allocator.conf import INTERVALS, MAX_MIB, MIB, parse

__all__ = [
    "DEFAULT_LARGE_SEGMENT_BYTES",
    "MIN_BLOCK_BYTES",
    "MIN_LARGE_ALLOCATION_BYTES",
    "ROUND_LARGE_BYTES",
    "SMALL_ALLOCATION_BYTES",
    "SMALL_SEGMENT_BYTES",
    "AllocatorSettings",
]

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

_FIRST_INTERVAL: Final = MIB.bit_length() - 1
_VARIABLES: Final = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""In the order in which torch 2.13 looks; the first one that is set counts, alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorSettings:
    """Settings of PyTorch's native CUDA caching allocator that decide about device memory.

    Raises:
        ValueError: A value is outside of what torch accepts; the message names the key.
    """

    expandable_segments: bool = False
    """One growing segment per pool and stream, instead of one `cudaMalloc` per segment."""
    max_split_size_bytes: int | None = None
    """Blocks of this size or more are never split; `None`: all may be."""
    max_non_split_rounding_bytes: int | None = None
    """How much larger than asked an unsplittable block may be; `None`: a large segment."""
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
        _in_mib("large_segment_size_mb", large, least=MIN_LARGE_ALLOCATION_BYTES // MIB + 1)
        for key, value in (
            ("max_split_size_mb", self.max_split_size_bytes),
            ("max_non_split_rounding_mb", self.max_non_split_rounding_bytes),
        ):
            if value is not None:
                _in_mib(key, value, least=large // MIB)
        threshold = self.garbage_collection_threshold
        if threshold != 0 and not 0 < threshold < 1:
            raise _wrong("garbage_collection_threshold", threshold, "a number between 0 and 1")
        fraction = self.per_process_memory_fraction
        if not 0 <= fraction <= 1:
            raise _wrong("per_process_memory_fraction", fraction, "a number from 0 to 1")
        divisions = self.roundup_power2_divisions
        if len(divisions) != INTERVALS:
            raise _wrong("roundup_power2_divisions", divisions, f"{INTERVALS} numbers")
        for value in divisions:
            if value != 0 and not _is_power_of_two(value):
                raise _wrong("roundup_power2_divisions", value, "a power of 2, or 0")

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

    @classmethod
    def from_environment(cls, text: str) -> AllocatorSettings:
        """Read a value of `PYTORCH_ALLOC_CONF`, such as `max_split_size_mb:128`.

        Stricter than torch in one way: text that torch's parser would skip or cut off (`128abc`,
        a missing comma) is refused. Keys about pinned memory and locks are accepted and ignored.

        Raises:
            ValueError: A key is unknown, a value is not one that torch accepts, or the text
                asks for a backend that is not simulated.
        """
        return cls(**parse(text))

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> AllocatorSettings:
        """Settings from environment variables, in torch 2.13's order of precedence.

        Raises:
            ValueError: As for `from_environment`, with the name of the variable in front.
        """
        for name in _VARIABLES:
            if name in environ:
                try:
                    return cls.from_environment(environ[name])
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        return cls()

    def to_environment(self) -> str:
        """The text that `from_environment` reads back to equal settings; empty for defaults."""
        parts = []
        if self.expandable_segments:
            parts.append("expandable_segments:True")
        if self.large_segment_bytes != DEFAULT_LARGE_SEGMENT_BYTES:
            parts.append(f"large_segment_size_mb:{self.large_segment_bytes // MIB}")
        if self.max_split_size_bytes is not None:
            parts.append(f"max_split_size_mb:{self.max_split_size_bytes // MIB}")
        if self.max_non_split_rounding_bytes is not None:
            parts.append(f"max_non_split_rounding_mb:{self.max_non_split_rounding_bytes // MIB}")
        if self.garbage_collection_threshold:
            parts.append(f"garbage_collection_threshold:{self.garbage_collection_threshold!r}")
        if self.per_process_memory_fraction != 1:
            parts.append(f"per_process_memory_fraction:{self.per_process_memory_fraction!r}")
        if any(self.roundup_power2_divisions):
            steps = ",".join(f"{2**i}:{d}" for i, d in enumerate(self.roundup_power2_divisions))
            parts.append(f"roundup_power2_divisions:[{steps}]")
        return ",".join(parts)


def _round_to_division(size_bytes: int, divisions: int) -> int:
    """`roundup_power2_next_division`: 1200 with 4 divisions of 1024..2048 becomes 1280."""
    if _is_power_of_two(size_bytes):
        return size_bytes
    floor = 1 << (size_bytes.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    if step == 0:
        return floor << 1
    return -(-size_bytes // step) * step


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _in_mib(key: str, value_bytes: int, *, least: int) -> None:
    if value_bytes % MIB or not least <= value_bytes // MIB <= MAX_MIB:
        got: object = value_bytes // MIB if value_bytes % MIB == 0 else f"{value_bytes} bytes"
        raise _wrong(key, got, f"whole MiB, {least} or more")


def _wrong(key: str, got: object, expected: str) -> ValueError:
    return ValueError(f"{key}: got {got}, expected {expected}")
