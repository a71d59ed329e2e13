"""Replay of a trace through the caching allocator: peaks, fragmentation, the smallest capacity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ftcheck.allocator.caching import Allocator, AllocatorSettings, Block, OutOfMemory
from ftcheck.allocator.trace import Trace

__all__ = ["PhasePeak", "ReplayResult", "replay", "replay_events", "smallest_card"]

_GRANULARITY_BYTES: Final = 2 * 1024**2
"""Pages of the device, and the least that the allocator takes from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePeak:
    """Peaks of one phase, over all its parts."""

    phase: str
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """Figures of the allocator, up to the failure if there was one.

    Every figure is simulated: predicted, not measured. Bytes are those of the allocator alone: the
    CUDA context comes on top.
    """

    peak_allocated_bytes: int
    """Most bytes in blocks in use, after rounding."""
    peak_allocated_index: int
    """Index of the event that first reached it; -1 for an empty trace."""
    peak_reserved_bytes: int
    """Most bytes taken from the driver."""
    peak_reserved_index: int
    """Index of the event that first reached it; -1 for an empty trace."""
    allocated_at_reserved_peak_bytes: int
    """Bytes in use when the reserved peak was first reached."""
    peak_requested_bytes: int
    """Most bytes requested and alive."""
    peak_segments: int
    """Most `cudaMalloc`ed segments; 0 with expandable segments."""
    retries: int
    """How often the device was full and the whole cache was released."""
    out_of_memory: OutOfMemory | None
    """The failure, or `None`."""
    failed_index: int | None
    """Index of the event that failed, or `None`."""
    phases: tuple[PhasePeak, ...]
    """In the order in which they began."""

    @property
    def fits(self) -> bool:
        """Whether every request was granted."""
        return self.out_of_memory is None

    @property
    def fragmentation(self) -> float:
        """Share of the reserved peak that was not in use then: from 0 to 1."""
        if not self.peak_reserved_bytes:
            return 0.0
        return 1 - self.allocated_at_reserved_peak_bytes / self.peak_reserved_bytes


def replay_events(trace: Trace, allocator: Allocator) -> Iterator[int]:
    """Make an allocator do what a trace says, and yield the index of each event after it.

    Raises:
        OutOfMemory: The device is full: the event after the last one that was yielded failed.
    """
    blocks: dict[int, Block] = {}
    for index, (is_alloc, block, size, stream) in enumerate(trace.rows()):
        if is_alloc:
            blocks[block] = allocator.allocate(size, stream=stream)
        else:
            allocator.free(blocks.pop(block))
        yield index


class _Peaks:
    """Peaks of the run and of each phase, and the events that reached them."""

    def __init__(self, runs: Iterator[tuple[str, int, int]]) -> None:
        self.allocated = self.reserved = -1
        self.allocated_index = self.reserved_index = -1
        self.allocated_at_reserved_peak = 0
        self.phases: dict[str, tuple[int, int]] = {}
        """Phase to its peaks: allocated, reserved."""
        self._runs = runs
        self._run_end = 0
        self._phase = ""
        self._phase_peaks = (0, 0)

    def update(self, index: int, allocator: Allocator) -> None:
        """Look at the allocator after an event."""
        if index >= self._run_end:
            self.close_phase()
            self._phase, _, self._run_end = next(self._runs)
            self._phase_peaks = self.phases.get(self._phase, (0, 0))
        allocated, reserved = allocator.allocated.current, allocator.reserved.current
        phase_allocated, phase_reserved = self._phase_peaks
        if allocated > phase_allocated or reserved > phase_reserved:
            self._phase_peaks = max(allocated, phase_allocated), max(reserved, phase_reserved)
        if allocated > self.allocated:
            self.allocated, self.allocated_index = allocated, index
        # The gauge, since memory may have been reserved and released again within the event.
        if allocator.reserved.peak > self.reserved:
            self.reserved, self.reserved_index = allocator.reserved.peak, index
            self.allocated_at_reserved_peak = allocated

    def close_phase(self) -> None:
        """Keep the peaks of the phase that ended."""
        if self._run_end:
            self.phases[self._phase] = self._phase_peaks


def replay(
    trace: Trace,
    capacity_bytes: int | None = None,
    settings: AllocatorSettings | None = None,
    *,
    device_total_bytes: int | None = None,
) -> ReplayResult:
    """Run a trace through the caching allocator; stops at the first failure.

    Args:
        trace: What was requested.
        capacity_bytes: What the allocator may take: the card less its context. `None`: no limit.
        settings: What `PYTORCH_ALLOC_CONF` would say; `None`: the defaults.
        device_total_bytes: The card's memory, for memory fractions and CUDA's message.

    Raises:
        ValueError: An amount is negative, or the capacity is larger than the card.
    """
    allocator = Allocator(settings, capacity_bytes, device_total_bytes=device_total_bytes)
    peaks = _Peaks(trace.phases())
    failure: OutOfMemory | None = None
    index = -1
    try:
        for index in replay_events(trace, allocator):
            peaks.update(index, allocator)
    except OutOfMemory as error:
        failure = error
    peaks.close_phase()
    return ReplayResult(
        peak_allocated_bytes=allocator.allocated.peak,
        peak_allocated_index=peaks.allocated_index,
        peak_reserved_bytes=allocator.reserved.peak,
        peak_reserved_index=peaks.reserved_index,
        allocated_at_reserved_peak_bytes=peaks.allocated_at_reserved_peak,
        peak_requested_bytes=allocator.requested.peak,
        peak_segments=allocator.segments.peak,
        retries=allocator.retries,
        out_of_memory=failure,
        failed_index=None if failure is None else index + 1,
        phases=tuple(
            PhasePeak(phase=phase, allocated_bytes=allocated, reserved_bytes=reserved)
            for phase, (allocated, reserved) in peaks.phases.items()
        ),
    )


def smallest_card(
    trace: Trace,
    settings: AllocatorSettings | None = None,
    granularity_bytes: int = _GRANULARITY_BYTES,
) -> int:
    """Bytes that the allocator needs on a card for the trace to run, without the CUDA context.

    Bisects capacities between the peak of the rounded sizes that are alive, below which no capacity
    is enough, and the reserved peak without a limit, which is always enough. The answer is enough,
    and the next smaller multiple of the granularity is not.

    More memory is not always better. MiB: allocate 4, free it, allocate 24 and 12, free the 24,
    allocate 28. With 40, the 24 makes the cached segment of 20 go; then 12 + 28 = 40 fits. With 44
    that segment stays (20 + 24) and the 12 is placed in it, so that it cannot be released for the
    28: 20 + 28 = 48. In such cases the answer is one boundary of several, not necessarily the
    lowest. With a memory fraction below 1 the search continues above the reserved peak.

    Raises:
        ValueError: The granularity is not positive.
    """
    if granularity_bytes <= 0:
        raise ValueError(f"granularity: got {granularity_bytes} bytes, expected 1 or more")
    settings = settings if settings is not None else AllocatorSettings()
    too_small = -(-_least_bytes(trace, settings) // granularity_bytes) - 1
    enough = -(-replay(trace, None, settings).peak_reserved_bytes // granularity_bytes)
    # A memory fraction leaves the process less than the capacity, and garbage collection may
    # split the cache differently: go up until it is enough.
    while not _fits(trace, enough * granularity_bytes, settings):
        too_small, enough = enough, enough * 2 + 1
        if enough * granularity_bytes > 2**63:
            raise ValueError("settings: the trace runs at no capacity under this memory fraction")
    while enough - too_small > 1:
        middle = (enough + too_small) // 2
        if _fits(trace, middle * granularity_bytes, settings):
            enough = middle
        else:
            too_small = middle
    return enough * granularity_bytes


def _fits(trace: Trace, capacity_bytes: int, settings: AllocatorSettings) -> bool:
    try:
        for _ in replay_events(trace, Allocator(settings, capacity_bytes)):
            pass
    except OutOfMemory:
        return False
    return True


def _least_bytes(trace: Trace, settings: AllocatorSettings) -> int:
    """Most bytes alive after rounding: below the allocated ones where a rest is not split off."""
    alive = peak = 0
    for is_alloc, _block, size, _stream in trace.rows():
        rounded = settings.round_size(size) if size else 0
        alive += rounded if is_alloc else -rounded
        peak = max(peak, alive)
    return peak
