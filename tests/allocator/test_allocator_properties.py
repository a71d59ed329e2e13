"""The simulated caching allocator: what must hold for any requests in any order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ftcheck.allocator.caching import Allocator, Block, OutOfMemory
from ftcheck.allocator.conf import parse_conf

MIB = 1024**2
SMALL_FIRST = st.integers(0, 4096) | st.integers(0, 2 * MIB) | st.integers(0, 64 * MIB)


def layout(allocator: Allocator) -> list[list[tuple[int, bool]]]:
    """(Bytes, in use) of every block, segment by segment."""
    return [
        [(block.size_bytes, block.allocated) for block in segment.blocks]
        for segment in allocator.snapshot()
    ]


class Plain:
    """The default rules once more, as lists that are searched from end to end.

    A segment is a list of [bytes, owner]; its pool is told from the size of its segment, for small
    segments are always 2 MiB and large ones never.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.segments: list[list[list[int | None]]] = []

    @property
    def reserved(self) -> int:
        return sum(size(segment) for segment in self.segments)

    def allocate(self, owner: int, size_bytes: int) -> bool:
        rounded = max(512, -(-size_bytes // 512) * 512)
        small = rounded <= MIB
        if not self.place(owner, rounded, small):
            large = 20 * MIB if rounded < 10 * MIB else -(-rounded // (2 * MIB)) * 2 * MIB
            wanted = 2 * MIB if small else large
            if self.reserved + wanted > self.capacity_bytes:
                self.segments = [
                    segment for segment in self.segments if any(owner for _, owner in segment)
                ]
            if self.reserved + wanted > self.capacity_bytes:
                return False
            self.segments.append([[wanted, None]])
            assert self.place(owner, rounded, small)
        return True

    def place(self, owner: int, rounded: int, small: bool) -> bool:
        free = [
            (block[0], number, position)
            for number, segment in enumerate(self.segments)
            if (size(segment) == 2 * MIB) == small
            for position, block in enumerate(segment)
            if block[1] is None and (block[0] or 0) >= rounded
        ]
        if not free:
            return False
        whole, number, position = min(free)
        rest = (whole or 0) - rounded
        block = self.segments[number][position]
        block[1] = owner
        if (small and rest >= 512) or (not small and rest > MIB):
            block[0] = rounded
            self.segments[number].insert(position + 1, [rest, None])
        return True

    def free(self, owner: int) -> None:
        for number, segment in enumerate(self.segments):
            merged: list[list[int | None]] = []
            for block_size, block_owner in segment:
                kept = None if block_owner == owner else block_owner
                if kept is None and merged and merged[-1][1] is None:
                    merged[-1][0] = (merged[-1][0] or 0) + (block_size or 0)
                else:
                    merged.append([block_size, kept])
            self.segments[number] = merged


def size(segment: list[list[int | None]]) -> int:
    return sum(block[0] or 0 for block in segment)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), SMALL_FIRST, st.integers(0, 80)), max_size=80),
    st.sampled_from([30, 60, 120, 4000]),
)
def test_a_plain_implementation_of_the_rules_agrees(
    steps: list[tuple[bool, int, int]], capacity: int
) -> None:
    fast, plain = Allocator(capacity_bytes=capacity * MIB), Plain(capacity * MIB)
    live: list[tuple[int, Block]] = []
    for owner, (frees, wanted, index) in enumerate(steps, start=1):
        if frees and live:
            old, block = live.pop(index % len(live))
            fast.free(block)
            plain.free(old)
        elif wanted:
            fits = plain.allocate(owner, wanted)
            if fits:
                live.append((owner, fast.allocate(wanted)))
            else:
                with pytest.raises(OutOfMemory, match="CUDA out of memory"):
                    fast.allocate(wanted)
        assert layout(fast) == [
            [(block[0], block[1] is not None) for block in segment] for segment in plain.segments
        ]
        assert fast.reserved.current == plain.reserved


class AnyRequests(RuleBasedStateMachine):
    """Requests in any order, on two streams, on a card of 200 MiB."""

    settings_text = ""

    def __init__(self) -> None:
        super().__init__()
        options = parse_conf(self.settings_text)
        self.allocator = Allocator(options, capacity_bytes=200 * MIB)
        self.live: list[tuple[Block, int]] = []

    @rule(size=SMALL_FIRST, stream=st.integers(0, 1))
    def allocate(self, size: int, stream: int) -> None:
        try:
            block = self.allocator.allocate(size, stream=stream)
        except OutOfMemory as error:
            # All that could go was released: what is cached now is split or part of a granule.
            assert error.reserved_bytes <= error.capacity_bytes
            return
        assert block.size_bytes >= size
        self.live.append((block, size))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.live) - 1))
        self.allocator.free(self.live.pop(index)[0])

    @precondition(lambda self: self.live)
    @rule()
    def freed_memory_is_used_again(self) -> None:
        block, size = self.live.pop()
        before = self.allocator.reserved.current
        self.allocator.free(block)
        again = self.allocator.allocate(size, stream=block.stream)
        self.live.append((again, size))
        if self.allocator.settings.max_split_size_bytes is None:
            assert self.allocator.reserved.current == before

    @rule()
    def empty_cache(self) -> None:
        self.allocator.empty_cache()

    @invariant()
    def the_books_balance(self) -> None:
        allocator = self.allocator
        assert allocator.reserved.current >= allocator.allocated.current
        assert allocator.allocated.current >= allocator.requested.current
        assert allocator.requested.current == sum(size for _, size in self.live)
        assert allocator.allocated.current == sum(block.size_bytes for block, _ in self.live)
        assert allocator.reserved.current <= 200 * MIB
        for gauge in (allocator.allocated, allocator.reserved, allocator.requested):
            assert gauge.peak >= gauge.current
        segments = list(allocator.snapshot())
        assert allocator.reserved.current == sum(segment.size_bytes for segment in segments)
        if not allocator.settings.expandable_segments:
            assert allocator.segments.current == len(segments)

    @invariant()
    def blocks_lie_side_by_side_and_no_two_free_ones_touch(self) -> None:
        end = 0
        for segment in self.allocator.snapshot():
            assert segment.address >= end
            end = segment.address
            was_free = False
            for block in segment.blocks:
                assert block.address == end
                assert block.size_bytes > 0
                assert block.size_bytes % 512 == 0
                assert block.stream == segment.stream
                assert block.allocated or not was_free
                was_free = not block.allocated
                end += block.size_bytes
            assert end == segment.address + segment.size_bytes

    def teardown(self) -> None:
        for block, _ in self.live:
            self.allocator.free(block)
        assert self.allocator.allocated.current == self.allocator.requested.current == 0
        self.allocator.empty_cache()
        assert self.allocator.reserved.current == self.allocator.segments.current == 0


class AnyExpandable(AnyRequests):
    settings_text = "expandable_segments:True"


class AnyUnsplittable(AnyRequests):
    settings_text = "max_split_size_mb:24"


class AnyRounded(AnyRequests):
    settings_text = "roundup_power2_divisions:[1:4,4:2,>:8]"


class AnyCollected(AnyRequests):
    settings_text = "garbage_collection_threshold:0.3,per_process_memory_fraction:0.9"


TestAnyRequests = AnyRequests.TestCase
TestAnyExpandable = AnyExpandable.TestCase
TestAnyUnsplittable = AnyUnsplittable.TestCase
TestAnyRounded = AnyRounded.TestCase
TestAnyCollected = AnyCollected.TestCase
for machine in (
    TestAnyRequests,
    TestAnyExpandable,
    TestAnyUnsplittable,
    TestAnyRounded,
    TestAnyCollected,
):
    machine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@given(st.lists(SMALL_FIRST, max_size=30))
def test_the_order_of_frees_does_not_matter_for_what_stays(requests: list[int]) -> None:
    forward, backward = Allocator(), Allocator()
    for allocator, step in ((forward, 1), (backward, -1)):
        for block in [allocator.allocate(size) for size in requests][::step]:
            allocator.free(block)
    assert layout(forward) == layout(backward)
