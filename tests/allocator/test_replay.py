"""Replaying traces: peaks, failures, and the smallest card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ftcheck.allocator.caching import Allocator, AllocatorSettings, OutOfMemory
from ftcheck.allocator.replay import replay, replay_events, smallest_card
from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from tests.allocator.test_trace import traces

MIB = 1024**2
SETTINGS = st.sampled_from(
    [
        AllocatorSettings(),
        AllocatorSettings(expandable_segments=True),
        AllocatorSettings(max_split_size_bytes=20 * MIB),
        AllocatorSettings(roundup_power2_divisions=(4,) * 16),
    ]
)
FEW = examples(max_examples=60, deadline=None)


def trace_of(*steps: int) -> Trace:
    """A positive number allocates so many MiB as the next block; a negative one frees a block."""
    recorder = TraceRecorder()
    block = 0
    for step in steps:
        if step > 0:
            block += 1
            recorder.allocate(block, step * MIB)
        else:
            recorder.free(-step)
    return recorder.finish()


# Blocks: 1 has 4 MiB, 2 has 24, 3 has 12, 4 has 28.
MORE_IS_WORSE = trace_of(4, -1, 24, 12, -2, 28)


def test_peaks_by_hand() -> None:
    result = replay(trace_of(4, 30, -1, 12, -2, 40))
    # allocated: 4, 34, 30, 42, 12, 52. Segments: 20, 30; the 12 go into the 20; then 40.
    assert (result.peak_allocated_bytes, result.peak_allocated_index) == (52 * MIB, 5)
    assert (result.peak_reserved_bytes, result.peak_reserved_index) == (90 * MIB, 5)
    assert result.peak_requested_bytes == 52 * MIB
    assert result.fragmentation == pytest.approx(1 - 52 / 90, rel=1e-12, abs=0)
    assert (result.peak_segments, result.retries, result.fits) == (3, 0, True)


def test_an_empty_trace_takes_nothing() -> None:
    result = replay(trace_of())
    assert (result.peak_reserved_bytes, result.peak_reserved_index) == (0, -1)
    assert result.fragmentation == 0
    assert smallest_card(trace_of()) == 0


def test_a_failure_is_a_result() -> None:
    result = replay(trace_of(30, 30), 50 * MIB, device_total_bytes=60 * MIB)
    assert not result.fits
    assert result.failed_index == 1
    assert result.out_of_memory is not None
    assert result.out_of_memory.free_bytes == 20 * MIB
    assert "a total capacity of 60.00 MiB" in result.out_of_memory.cuda_message()
    assert result.peak_reserved_bytes == 30 * MIB


def test_streams_are_kept_apart() -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, 30 * MIB, Tags(stream=0))
    recorder.free(1)
    recorder.allocate(1, 30 * MIB, Tags(stream=7))
    assert replay(recorder.finish()).peak_reserved_bytes == 60 * MIB


def test_events_are_replayed_one_by_one() -> None:
    trace = trace_of(30, 12, -1, 40)
    allocator = Allocator(capacity_bytes=50 * MIB)
    events = replay_events(trace, allocator)
    allocated = [(next(events), allocator.allocated.current // MIB) for _ in range(3)]
    assert allocated == [(0, 30), (1, 42), (2, 12)]
    assert allocator.allocations == 2
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        next(events)


def test_the_smallest_card_lies_between_allocated_and_reserved() -> None:
    trace = trace_of(30, -1, 40)
    # Without a limit 30 + 40 are reserved; with one the cached 30 go back first.
    assert replay(trace).peak_reserved_bytes == 70 * MIB
    assert smallest_card(trace) == 40 * MIB
    assert smallest_card(trace, granularity_bytes=7 * MIB) == 42 * MIB
    with pytest.raises(ValueError, match="granularity: got 0 bytes"):
        smallest_card(trace, granularity_bytes=0)


def test_more_memory_can_be_worse() -> None:
    """The counter-example of `smallest_card`, capacity by capacity.

    On 40: segments 20; 24 needs the 20 back (20 + 24 > 40); 12 more make 36; the 24 are cached,
    and given back for 28: 12 + 28 = 40. On 44: 20 + 24 fit, the 12 settle in the 20, which then
    cannot go: 20 + 28 = 48.
    """
    fits = [capacity for capacity in range(36, 76, 2) if replay(MORE_IS_WORSE, capacity * MIB).fits]
    assert fits == [40, 42, *range(48, 76, 2)]
    assert replay(MORE_IS_WORSE).peak_reserved_bytes == 72 * MIB
    # The answer is a boundary: it works, and 2 MiB less do not.
    assert smallest_card(MORE_IS_WORSE) in (40 * MIB, 48 * MIB)


def test_a_memory_fraction_needs_a_larger_card() -> None:
    half = AllocatorSettings(per_process_memory_fraction=0.5)
    assert smallest_card(trace_of(30), half) == 60 * MIB
    with pytest.raises(ValueError, match="the trace runs at no capacity"):
        smallest_card(trace_of(30), AllocatorSettings(per_process_memory_fraction=0.0))


@FEW
@given(traces(), SETTINGS)
def test_the_order_of_the_peaks(trace: Trace, options: AllocatorSettings) -> None:
    result = replay(trace, None, options)
    assert result.fits
    assert result.retries == 0
    assert result.peak_reserved_bytes >= result.peak_allocated_bytes
    assert result.peak_allocated_bytes >= result.peak_requested_bytes
    assert result.peak_requested_bytes == trace.requested_peak_bytes
    assert 0 <= result.fragmentation < 1 or not result.peak_allocated_bytes


@FEW
@given(traces(), SETTINGS, st.integers(0, 300))
def test_replaying_again_gives_the_same(
    trace: Trace, options: AllocatorSettings, capacity: int
) -> None:
    first, second = (replay(trace, capacity * MIB, options) for _ in range(2))
    assert repr(first) == repr(second)


@FEW
@given(traces(), SETTINGS, st.integers(0, 100))
def test_from_the_reserved_peak_upwards_everything_fits(
    trace: Trace, options: AllocatorSettings, more: int
) -> None:
    free = replay(trace, None, options)
    limited = replay(trace, free.peak_reserved_bytes + more * MIB, options)
    assert limited.fits
    assert limited.peak_reserved_bytes == free.peak_reserved_bytes
    assert limited.peak_allocated_bytes == free.peak_allocated_bytes


@FEW
@given(traces(), SETTINGS)
def test_the_smallest_card_works_and_the_next_smaller_does_not(
    trace: Trace, options: AllocatorSettings
) -> None:
    least = smallest_card(trace, options)
    reserved = replay(trace, None, options).peak_reserved_bytes
    assert trace.requested_peak_bytes <= least <= -(-reserved // (2 * MIB)) * 2 * MIB
    assert replay(trace, least, options).fits
    assert not least or not replay(trace, least - 2 * MIB, options).fits
