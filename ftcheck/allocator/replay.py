"""What a trace takes on a card: peaks, fragmentation, and the smallest card that works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ftcheck.allocator.caching import Allocator, AllocatorSettings, Block, OutOfMemory
from ftcheck.allocator.trace import Trace

__all__ = ["PhasePeak", "Point", "ReplayResult", "replay", "smallest_card"]

_GRANULARITY_BYTES: Final = 2 * 1024**2
"""Pages of the device, and the least that the allocator takes from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Memory after one event."""

    index: int
    """Index of the event in the trace."""
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePeak:
    """The most that one phase had, over all its parts."""

    phase: str
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What the allocator went through; up to the failure, where there was one.

    Every figure is that of the simulation: predicted, not measured. Bytes are of the allocator
    alone: the CUDA context comes on top.
    """

    peak_allocated_bytes: int
    """Most bytes in blocks in use, after rounding."""
    peak_allocated_index: int
    """Index of the event that first reached it; -1 for an empty trace."""
    peak_reserved_bytes: int
    """Most bytes held from the driver."""
    peak_reserved_index: int
    """Index of the event that first reached it; -1 for an empty trace."""
    allocated_at_reserved_peak_bytes: int
    peak_requested_bytes: int
    """Most bytes asked for and alive."""
    peak_segments: int
    """Most `cudaMalloc`ed segments; 0 with expandable segments."""
    retries: int
    """How often the card was full and the whole cache was released."""
    out_of_memory: OutOfMemory | None
    """The failure, or `None`."""
    failed_index: int | None
    """Index of the event that failed, or `None`."""
    timeline: tuple[Point, ...]
    """At most as many points as were asked for, in order; peaks of allocated are kept."""
    phases: tuple[PhasePeak, ...]
    """In the order in which they began."""

    @property
    def fits(self) -> bool:
        return self.out_of_memory is None

    @property
    def fragmentation(self) -> float:
        """Share of the reserved peak that was not in use then: from 0 to 1."""
        if not self.peak_reserved_bytes:
            return 0.0
        return 1 - self.allocated_at_reserved_peak_bytes / self.peak_reserved_bytes


class _Watch:
    """Finds the events of the peaks, and thins the timeline while it is made."""

    def __init__(self, events: int, points: int, phases: Iterator[tuple[str, int, int]]) -> None:
        self.allocated_index = self.reserved_index = -1
        self.allocated_at_reserved_peak = 0
        self.kept: list[Point] = []
        self.phases: dict[str, tuple[int, int]] = {}
        self._runs = phases
        self._end = 0
        self._phase = ""
        self._most = (0, 0)
        self._reserved = self._allocated = -1
        self._stride = max(1, -(-events // points)) if points else 0
        self._best: tuple[int, int, int] | None = None

    def look(self, index: int, allocator: Allocator) -> None:
        allocated, reserved = allocator.allocated.current, allocator.reserved.current
        if index >= self._end:
            self._enter()
        most_allocated, most_reserved = self._most
        if allocated > most_allocated or reserved > most_reserved:
            self._most = (max(allocated, most_allocated), max(reserved, most_reserved))
        if allocated > self._allocated:
            self._allocated, self.allocated_index = allocated, index
        if allocator.reserved.peak > self._reserved:
            self._reserved, self.reserved_index = allocator.reserved.peak, index
            self.allocated_at_reserved_peak = allocated
        if not self._stride:
            return
        if self._best is None or allocated > self._best[0]:
            self._best = (allocated, reserved, index)
        if (index + 1) % self._stride == 0:
            self.flush()

    def _enter(self) -> None:
        self.leave()
        self._phase, _, self._end = next(self._runs)
        self._most = self.phases.get(self._phase, (0, 0))

    def leave(self) -> None:
        if self._end:
            self.phases[self._phase] = self._most

    def flush(self) -> None:
        if self._best is not None:
            allocated, reserved, index = self._best
            self.kept.append(Point(index=index, allocated_bytes=allocated, reserved_bytes=reserved))
            self._best = None


def replay(
    trace: Trace,
    capacity_bytes: int | None = None,
    settings: AllocatorSettings | None = None,
    *,
    device_total_bytes: int | None = None,
    points: int = 0,
) -> ReplayResult:
    """Run a trace through the caching allocator; stops at the first failure.

    Args:
        trace: What was asked for.
        capacity_bytes: What the allocator may take: the card less its context. `None`: no limit.
        settings: What `PYTORCH_ALLOC_CONF` would say; `None`: the defaults.
        device_total_bytes: The card's memory, for memory fractions and CUDA's message.
        points: How many points of the timeline to keep at most; 0: none.

    Raises:
        ValueError: An amount is negative, or the capacity is larger than the card.
    """
    if points < 0:
        raise ValueError(f"points: got {points}, expected 0 or more")
    allocator = Allocator(settings, capacity_bytes, device_total_bytes=device_total_bytes)
    watch = _Watch(len(trace), points, trace.phases())
    blocks: dict[int, Block] = {}
    failure: OutOfMemory | None = None
    failed_index: int | None = None
    for index, (is_alloc, block, size, stream) in enumerate(trace.rows()):
        if is_alloc:
            try:
                blocks[block] = allocator.allocate(size, stream=stream)
            except OutOfMemory as error:
                failure, failed_index = error, index
                break
        else:
            allocator.free(blocks.pop(block))
        watch.look(index, allocator)
    watch.flush()
    watch.leave()
    return _result(allocator, watch, failure, failed_index)


def _result(
    allocator: Allocator, watch: _Watch, failure: OutOfMemory | None, failed_index: int | None
) -> ReplayResult:
    return ReplayResult(
        peak_allocated_bytes=allocator.allocated.peak,
        peak_allocated_index=watch.allocated_index,
        peak_reserved_bytes=allocator.reserved.peak,
        peak_reserved_index=watch.reserved_index,
        allocated_at_reserved_peak_bytes=watch.allocated_at_reserved_peak,
        peak_requested_bytes=allocator.requested.peak,
        peak_segments=allocator.segments.peak,
        retries=allocator.retries,
        out_of_memory=failure,
        failed_index=failed_index,
        timeline=tuple(watch.kept),
        phases=tuple(
            PhasePeak(phase=phase, allocated_bytes=most[0], reserved_bytes=most[1])
            for phase, most in watch.phases.items()
        ),
    )


def smallest_card(
    trace: Trace,
    settings: AllocatorSettings | None = None,
    granularity_bytes: int = _GRANULARITY_BYTES,
) -> int:
    """Bytes that the allocator needs on a card for the trace to run, without the CUDA context.

    Between the peak of what is alive after rounding, below which nothing can work, and the peak
    of what is reserved without a limit, at which all goes as without one, capacities are bisected
    and replayed. The answer works, and the next smaller multiple of the granularity does not.

    More memory is not always better. MiB: allocate 4, free it, allocate 24 and 12, free the 24,
    allocate 28. On 40, the 24 needs the cached segment of 20 back; then 12 + 28 = 40 fits. On 44
    that segment stays (20 + 24) and the 12 settles in it, so that it cannot be given back for the
    28: 20 + 28 = 48. Where this happens, the answer is one boundary of several, not necessarily
    the lowest. From the reserved peak upwards everything works; with a memory fraction below 1
    the search goes on above it.

    Raises:
        ValueError: The granularity is not positive.
    """
    if granularity_bytes <= 0:
        raise ValueError(f"granularity: got {granularity_bytes} bytes, expected 1 or more")
    settings = settings if settings is not None else AllocatorSettings()
    fails = -(-_least_bytes(trace, settings) // granularity_bytes) - 1
    works = -(-replay(trace, None, settings).peak_reserved_bytes // granularity_bytes)
    # A memory fraction leaves the process less than the capacity, and garbage collection may
    # split the cache in other ways: go up until it works.
    while not replay(trace, works * granularity_bytes, settings).fits:
        fails, works = works, works * 2 + 1
        if works * granularity_bytes > 2**63:
            raise ValueError("settings: the trace runs at no capacity under this memory fraction")
    while works - fails > 1:
        middle = (works + fails) // 2
        if replay(trace, middle * granularity_bytes, settings).fits:
            works = middle
        else:
            fails = middle
    return works * granularity_bytes


def _least_bytes(trace: Trace, settings: AllocatorSettings) -> int:
    """Most that is alive after rounding: less than allocated, where a rest is not split off."""
    alive = peak = 0
    for is_alloc, _block, size, _stream in trace.rows():
        rounded = settings.round_size(size) if size else 0
        alive += rounded if is_alloc else -rounded
        peak = max(peak, alive)
    return peak
