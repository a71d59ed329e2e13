"""Expandable segments of the simulated caching allocator: the rules, worked out by hand."""

from __future__ import annotations

import pytest

from ftcheck.allocator.caching import Allocator, AllocatorSettings, Block, OutOfMemory
from ftcheck.allocator.expandable import expandable_bytes
from tests.allocator.test_caching import GIB, MIB, sizes


def test_expandable_segments_grow_by_granules() -> None:
    allocator = Allocator(AllocatorSettings(expandable_segments=True), capacity_bytes=GIB)
    first = allocator.allocate(5 * MIB)
    assert allocator.reserved.current == 20 * MIB
    second = allocator.allocate(30 * MIB)
    # 15 MiB are left; 15 more are missing, which is one granule of 20.
    assert second.address == first.address + 5 * MIB
    assert allocator.reserved.current == 40 * MIB
    assert sizes(allocator) == [[(5, True), (30, True), (5, False)]]
    assert allocator.segments.current == 0
    allocator.allocate(100)
    assert allocator.reserved.current == 42 * MIB


def test_expandable_segments_split_any_rest() -> None:
    allocator = Allocator(AllocatorSettings(expandable_segments=True))
    assert allocator.allocate(20 * MIB - 512).size_bytes == 20 * MIB - 512
    assert allocator.allocate(11 * MIB).size_bytes == 11 * MIB


def test_expandable_segments_spare_the_block_that_can_grow() -> None:
    allocator = Allocator(AllocatorSettings(expandable_segments=True), capacity_bytes=160 * MIB)
    blocks = [allocator.allocate(size * MIB) for size in (10, 30, 16)]
    allocator.free(blocks[1])
    assert sizes(allocator) == [[(10, True), (30, False), (16, True), (4, False)]]
    # The 4 MiB at the end are the better fit, but can grow: the hole of 30 is taken.
    assert allocator.allocate(3 * MIB).address == blocks[1].address
    # Addresses for 1 1/8 of the device: 160 + 20 MiB.
    assert blocks[0].range is not None
    assert blocks[0].range.size_bytes == 180 * MIB


def test_expandable_segments_unmap_whole_granules() -> None:
    # The range of addresses is 1 1/8 of the device: room for twelve granules.
    allocator = Allocator(
        AllocatorSettings(expandable_segments=True), 100 * MIB, device_total_bytes=200 * MIB
    )
    blocks = [allocator.allocate(size * MIB) for size in (10, 50, 20)]
    assert allocator.reserved.current == 80 * MIB
    allocator.free(blocks[1])
    # Free from 10 to 60; whole granules inside are 20..40 and 40..60.
    allocator.empty_cache()
    assert allocator.reserved.current == 40 * MIB
    assert sizes(allocator) == [[(10, True), (10, False)], [(20, True)]]
    # 60 MiB: the 10 and the hole of 40 are not enough, so it goes behind: 3 granules.
    behind = allocator.allocate(60 * MIB)
    assert behind.address == blocks[2].address + 20 * MIB
    assert allocator.reserved.current == 100 * MIB
    allocator.free(behind)
    # 50 MiB fit where they were, once the card gives 60 back: 20 of them are mapped again.
    allocator.empty_cache()
    assert allocator.reserved.current == 40 * MIB
    again = allocator.allocate(50 * MIB)
    assert again.address == blocks[1].address
    assert allocator.reserved.current == 80 * MIB
    for block in (again, blocks[0], blocks[2]):
        allocator.free(block)
    allocator.empty_cache()
    assert (allocator.reserved.current, sizes(allocator)) == (0, [])


def test_an_expandable_segment_fails_where_its_granule_does_not_fit() -> None:
    allocator = Allocator(AllocatorSettings(expandable_segments=True), capacity_bytes=39 * MIB)
    allocator.allocate(20 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.allocate(11 * MIB)
    assert allocator.retries == 1


def test_expandable_segments_keep_what_is_part_of_a_granule_at_both_ends() -> None:
    allocator = Allocator(AllocatorSettings(expandable_segments=True), capacity_bytes=GIB)
    front, middle, back = (allocator.allocate(size * MIB) for size in (5, 50, 5))
    allocator.free(middle)
    # Free from 5 to 55; the one whole granule inside is 20..40.
    allocator.empty_cache()
    assert sizes(allocator) == [[(5, True), (15, False)], [(15, False), (5, True)]]
    assert [segment.is_expandable for segment in allocator.snapshot()] == [True, True]
    assert allocator.reserved.current == 40 * MIB
    # What is kept can be used, that which cannot grow before the other, and given back.
    kept = [allocator.allocate(15 * MIB) for _ in range(2)]
    assert [block.address - front.address for block in kept] == [40 * MIB, 5 * MIB]
    for block in kept:
        allocator.free(block)
    # The hole is mapped again, and joins what is free on both sides.
    again = allocator.allocate(50 * MIB)
    assert again.address == front.address + 5 * MIB
    assert sizes(allocator) == [[(5, True), (50, True), (5, True)]]
    assert allocator.reserved.current == 60 * MIB
    for block in (again, back, front):
        allocator.free(block)
    allocator.empty_cache()
    assert (allocator.reserved.current, sizes(allocator)) == (0, [])


def test_an_expandable_segment_goes_when_the_last_of_it_is_unmapped() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1)):
        allocator = Allocator(AllocatorSettings(expandable_segments=True), capacity_bytes=GIB)
        blocks = [allocator.allocate(20 * MIB) for _ in range(3)]
        first = blocks[0].address
        assert blocks[0].range is not None
        behind = first + blocks[0].range.size_bytes
        for number in order[:2]:
            allocator.free(blocks[number])
            allocator.empty_cache()
        # While any of it is in use, the range is filled from the lowest address that has room.
        more = allocator.allocate(20 * MIB)
        assert first <= more.address < behind
        for block in (more, blocks[order[2]]):
            allocator.free(block)
            allocator.empty_cache()
        assert allocator.allocate(20 * MIB).address > behind


@pytest.mark.parametrize(
    ("total", "addresses"),
    [
        (1600 * MIB, 1800 * MIB),
        (170 * MIB, 200 * MIB),  # 191.25 MiB, in granules of 20
        (None, -(-(2**47) // (20 * MIB)) * 20 * MIB),
    ],
)
def test_the_addresses_of_an_expandable_segment(total: int | None, addresses: int) -> None:
    block = Allocator(AllocatorSettings(expandable_segments=True), total).allocate(20 * MIB)
    assert block.range is not None
    assert block.range.size_bytes == addresses
    assert isinstance(block.range.size_bytes, int)


def test_a_cached_block_can_grow_into_what_is_not_mapped() -> None:
    block = Block(0, 512, 0, None)
    assert expandable_bytes(block) == 512
    block.next = Block(512, 1024, 0, None)
    assert expandable_bytes(block) == 512
    block.next.mapped = False
    assert expandable_bytes(block) == 512 + 1024


def test_what_lies_behind_what_is_mapped() -> None:
    allocator = Allocator(AllocatorSettings(expandable_segments=True), capacity_bytes=GIB)
    block = allocator.allocate(20 * MIB)
    assert block.range is not None
    rest = block.next
    assert rest is not None
    assert (rest.address, rest.mapped, rest.next) == (block.address + 20 * MIB, False, None)
    assert rest.size_bytes == block.range.size_bytes - 20 * MIB
