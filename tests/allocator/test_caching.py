"""The simulated caching allocator: the rules, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ftcheck.allocator.caching import Allocator, AllocatorSettings, OutOfMemory
from ftcheck.allocator.out_of_memory import format_size

KIB, MIB, GIB = 1024, 1024**2, 1024**3


def sizes(allocator: Allocator) -> list[list[tuple[int, bool]]]:
    """(MiB, in use) of every block, segment by segment."""
    return [
        [(block.size_bytes // MIB, block.allocated) for block in segment.blocks]
        for segment in allocator.snapshot()
    ]


def test_small_requests_share_a_segment_of_two_mib() -> None:
    allocator = Allocator()
    first, second = allocator.allocate(1), allocator.allocate(513)
    assert (first.size_bytes, second.size_bytes) == (512, 1024)
    assert second.address == first.address + 512
    assert allocator.reserved.current == 2 * MIB
    assert allocator.allocated.current == 512 + 1024
    assert allocator.requested.current == 1 + 513
    assert allocator.segments.current == 1


def test_a_request_below_ten_mib_takes_twenty_and_splits() -> None:
    allocator = Allocator()
    allocator.allocate(4 * MIB)
    allocator.allocate(8 * MIB)
    assert sizes(allocator) == [[(4, True), (8, True), (8, False)]]
    assert allocator.reserved.current == 20 * MIB
    # 8 MiB are left; 9 MiB need a segment of their own.
    allocator.allocate(9 * MIB)
    assert allocator.reserved.current == 40 * MIB
    assert allocator.segments.current == 2


def test_a_rest_of_one_mib_or_less_stays_part_of_a_large_block() -> None:
    allocator = Allocator()
    # 11 MiB round up to a segment of 12; the rest of 1 MiB is not more than 1 MiB.
    block = allocator.allocate(11 * MIB)
    assert block.size_bytes == 12 * MIB
    assert allocator.allocated.current == 12 * MIB
    assert allocator.requested.current == 11 * MIB
    # 11 MiB less 512 bytes leave a rest of 1 MiB and 512 bytes, which is split off.
    other = allocator.allocate(11 * MIB - 512)
    assert other.size_bytes == 11 * MIB - 512


def test_a_small_rest_is_split_off_from_512_bytes_on() -> None:
    allocator = Allocator()
    blocks = [allocator.allocate(MIB), allocator.allocate(MIB - 512)]
    assert [block.size_bytes for block in blocks] == [MIB, MIB - 512]
    last = allocator.allocate(512)
    assert last.address == blocks[1].address + MIB - 512
    assert allocator.reserved.current == 2 * MIB


def test_best_fit_takes_the_smallest_then_the_lowest() -> None:
    allocator = Allocator()
    blocks = [allocator.allocate(size * MIB) for size in (40, 20, 30, 20)]
    for block in blocks:
        allocator.free(block)
    assert allocator.allocate(25 * MIB).address == blocks[2].address
    assert allocator.allocate(20 * MIB).address == blocks[1].address
    assert allocator.reserved.current == 110 * MIB


def test_a_freed_block_merges_with_both_neighbours() -> None:
    allocator = Allocator()
    blocks = [allocator.allocate(5 * MIB) for _ in range(4)]
    allocator.free(blocks[0])
    allocator.free(blocks[2])
    assert sizes(allocator) == [[(5, False), (5, True), (5, False), (5, True)]]
    allocator.free(blocks[1])
    assert sizes(allocator) == [[(15, False), (5, True)]]
    allocator.free(blocks[3])
    assert sizes(allocator) == [[(20, False)]]
    assert (allocator.allocated.current, allocator.reserved.current) == (0, 20 * MIB)


def test_streams_do_not_share() -> None:
    allocator = Allocator()
    allocator.free(allocator.allocate(30 * MIB, stream=0))
    allocator.allocate(30 * MIB, stream=1)
    assert allocator.reserved.current == 60 * MIB
    allocator.allocate(30 * MIB, stream=0)
    assert allocator.reserved.current == 60 * MIB


def test_a_full_card_gives_cached_segments_back_and_tries_again() -> None:
    allocator = Allocator(capacity_bytes=50 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    allocator.allocate(40 * MIB)
    assert allocator.retries == 1
    assert allocator.reserved.current == 40 * MIB
    assert allocator.reserved.peak == 40 * MIB


def test_a_split_segment_cannot_be_given_back() -> None:
    allocator = Allocator(capacity_bytes=50 * MIB)
    big = allocator.allocate(30 * MIB)
    allocator.free(big)
    pin = allocator.allocate(12 * MIB)  # the front of the cached 30 MiB
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(21 * MIB)
    error = caught.value
    # 21 MiB round up to a segment of 22; 50 - 30 = 20 MiB are free.
    assert (error.requested_bytes, error.segment_bytes) == (21 * MIB, 22 * MIB)
    assert (error.free_bytes, error.reserved_bytes) == (20 * MIB, 30 * MIB)
    assert error.allocated_bytes == 12 * MIB
    allocator.free(pin)
    assert allocator.allocate(50 * MIB).size_bytes == 50 * MIB


def test_limits_are_inclusive() -> None:
    assert Allocator(capacity_bytes=20 * MIB).allocate(2 * MIB).size_bytes == 2 * MIB
    with pytest.raises(OutOfMemory, match=r"Tried to allocate 20\.00 MiB"):
        Allocator(capacity_bytes=20 * MIB - 1).allocate(2 * MIB)


def test_empty_cache_keeps_what_is_split() -> None:
    allocator = Allocator()
    allocator.free(allocator.allocate(30 * MIB))
    allocator.allocate(2 * MIB)  # the front of the 30 MiB
    allocator.free(allocator.allocate(40 * MIB))
    allocator.free(allocator.allocate(100))
    assert allocator.reserved.current == 72 * MIB
    allocator.empty_cache()
    assert sizes(allocator) == [[(2, True), (28, False)]]
    assert allocator.segments.current == 1


def test_nothing_is_taken_for_nothing() -> None:
    allocator = Allocator(capacity_bytes=0)
    block = allocator.allocate(0)
    assert (block.size_bytes, allocator.reserved.current) == (0, 0)
    allocator.free(block)
    with pytest.raises(ValueError, match="not in use"):
        allocator.free(block)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity_bytes": -1}, "capacity: got -1 bytes, expected 0 or more"),
        ({"device_total_bytes": -1}, "device total: got -1 bytes"),
        ({"capacity_bytes": 2, "device_total_bytes": 1}, "capacity: got 2 bytes, expected at most"),
        ({"capacity_bytes": 1, "device_total_bytes": 0}, "capacity: got 1 bytes, expected at most"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Allocator(**arguments)


def test_a_block_is_freed_once_and_where_it_came_from() -> None:
    allocator = Allocator()
    with pytest.raises(ValueError, match="size: got -1 bytes"):
        allocator.allocate(-1)
    block = allocator.allocate(8)
    with pytest.raises(ValueError, match="not in use, expected a live block"):
        Allocator().free(block)
    allocator.free(block)
    with pytest.raises(ValueError, match="not in use, expected a live block"):
        allocator.free(block)


def test_unsplittable_blocks() -> None:
    allocator = Allocator(AllocatorSettings(max_split_size_bytes=100 * MIB))
    big = allocator.allocate(200 * MIB)
    allocator.free(big)
    # Below the limit nothing may use a block of the limit or more.
    assert allocator.allocate(30 * MIB).size_bytes == 30 * MIB
    assert allocator.reserved.current == 230 * MIB
    # From the limit on, a block that is less than 20 MiB larger is used whole.
    whole = allocator.allocate(181 * MIB)
    assert (whole.address, whole.size_bytes) == (big.address, 200 * MIB)
    allocator.free(whole)
    assert allocator.allocate(180 * MIB).address != big.address
    assert allocator.reserved.current == 410 * MIB


def test_a_block_of_just_the_limit_is_unsplittable() -> None:
    for cached, reserved in ((100 * MIB, 130 * MIB), (98 * MIB, 98 * MIB)):
        allocator = Allocator(AllocatorSettings(max_split_size_bytes=100 * MIB))
        allocator.free(allocator.allocate(cached))
        allocator.allocate(30 * MIB)
        assert allocator.reserved.current == reserved


def test_unsplittable_blocks_are_given_back_before_the_rest() -> None:
    options = AllocatorSettings(max_split_size_bytes=100 * MIB)
    allocator = Allocator(options, capacity_bytes=300 * MIB)
    kept, big = allocator.allocate(50 * MIB), allocator.allocate(200 * MIB)
    allocator.free(kept)
    allocator.free(big)
    # 60 MiB: 250 + 60 > 300. The 200 MiB go; the cached 50 stay, and no full flush is counted.
    allocator.allocate(60 * MIB)
    assert (allocator.reserved.current, allocator.retries) == (110 * MIB, 0)
    # Two of 120 MiB are cached; 230 MiB need both, the largest first.
    allocator = Allocator(options, capacity_bytes=300 * MIB)
    for block in [allocator.allocate(120 * MIB), allocator.allocate(120 * MIB)]:
        allocator.free(block)
    allocator.allocate(230 * MIB)
    assert (allocator.reserved.current, allocator.retries) == (230 * MIB, 0)


def test_a_memory_fraction_is_a_limit_of_its_own() -> None:
    allocator = Allocator(
        AllocatorSettings(per_process_memory_fraction=0.5), 90 * MIB, device_total_bytes=100 * MIB
    )
    allocator.allocate(50 * MIB)
    with pytest.raises(OutOfMemory, match=r"50\.00 MiB allowed; Of the allocated memory"):
        allocator.allocate(512)


def test_garbage_collection_releases_old_segments_first() -> None:
    options = AllocatorSettings(garbage_collection_threshold=0.5, per_process_memory_fraction=0.9)
    allocator = Allocator(options, capacity_bytes=100 * MIB)  # allowed 90, threshold 45
    old, young = allocator.allocate(20 * MIB), allocator.allocate(30 * MIB)
    allocator.free(old)
    allocator.free(allocator.allocate(2 * MIB))
    allocator.allocate(2 * MIB)
    allocator.free(young)
    assert sizes(allocator) == [[(2, True), (18, False)], [(30, False)]]
    # 36 MiB fit nowhere: 50 - 45 = 5 to reclaim, and only the unsplit 30 can go.
    allocator.allocate(36 * MIB)
    assert allocator.reserved.current == 56 * MIB
    assert allocator.retries == 0


def test_garbage_collection_goes_by_the_mean_age() -> None:
    options = AllocatorSettings(garbage_collection_threshold=0.4, per_process_memory_fraction=0.9)
    allocator = Allocator(options, capacity_bytes=100 * MIB)  # allowed 90, threshold 36
    allocator.free(allocator.allocate(12 * MIB, stream=1))
    for block in [allocator.allocate(10 * MIB) for _ in range(3)]:
        allocator.free(block)
        allocator.free(allocator.allocate(12 * MIB, stream=1))  # a search that finds
    assert allocator.reserved.current == 42 * MIB
    # Searches when each was cached: 4, 5, 6, and 7 for the 12 MiB. At the 8th search their ages
    # are 4, 3, 2 and 1, 2.5 in the mean. 42 - 36 = 6 to reclaim, yet both older ones go.
    allocator.allocate(26 * MIB)
    left = [segment.size_bytes // MIB for segment in allocator.snapshot()]
    assert left == [12, 10, 26]
    assert allocator.retries == 0


def test_garbage_collection_goes_on_until_there_is_enough() -> None:
    options = AllocatorSettings(garbage_collection_threshold=0.2, per_process_memory_fraction=0.9)
    allocator = Allocator(options, capacity_bytes=100 * MIB)  # allowed 90, threshold 18
    other = allocator.allocate(12 * MIB, stream=1)
    blocks = [allocator.allocate(10 * MIB) for _ in range(3)]
    allocator.free(other)
    for block in blocks:
        allocator.free(block)
        allocator.free(allocator.allocate(12 * MIB, stream=1))  # a search that finds
    # 42 - 18 = 24 to reclaim. Ages 4, 3, 2, 1: the two above 2.5 give 20, and of the two that are
    # left, 1.5 in the mean, the older one goes, too.
    allocator.allocate(26 * MIB)
    left = [segment.size_bytes // MIB for segment in allocator.snapshot()]
    assert left == [12, 26]
    assert allocator.retries == 0


@pytest.mark.parametrize(("above", "left"), [(0, [20, 30]), (1, [30])])
def test_garbage_collection_starts_above_the_threshold(above: int, left: list[int]) -> None:
    options = AllocatorSettings(
        garbage_collection_threshold=(20 * MIB - above) / 2**26, per_process_memory_fraction=0.5
    )
    allocator = Allocator(options, capacity_bytes=2**27)  # allowed 2**26 bytes
    allocator.free(allocator.allocate(20 * MIB))
    allocator.allocate(30 * MIB)
    assert [segment.size_bytes // MIB for segment in allocator.snapshot()] == left


@pytest.mark.parametrize(
    ("capacity", "cached", "wanted", "reserved"),
    [
        # Both of 120 MiB go; what is below the limit of 100 stays.
        (300, (120, 120, 50), 230, 280),
        # Exactly enough is enough.
        (360, (120, 120, 110), 240, 350),
        # One of just the limit goes, too.
        (300, (130, 100), 230, 230),
    ],
)
def test_no_more_unsplittable_blocks_go_than_are_needed(
    capacity: int, cached: tuple[int, ...], wanted: int, reserved: int
) -> None:
    options = AllocatorSettings(max_split_size_bytes=100 * MIB)
    allocator = Allocator(options, capacity_bytes=capacity * MIB)
    for block in [allocator.allocate(size * MIB) for size in cached]:
        allocator.free(block)
    block = allocator.allocate(wanted * MIB)
    assert (allocator.reserved.current, allocator.retries) == (reserved * MIB, 0)
    allocator.free(block)
    assert allocator.allocated.current == 0


def test_unsplittable_blocks_of_other_streams_stay() -> None:
    options = AllocatorSettings(max_split_size_bytes=100 * MIB)
    allocator = Allocator(options, capacity_bytes=480 * MIB)
    for block in [allocator.allocate(120 * MIB, stream=stream) for stream in (0, 1, 2)]:
        allocator.free(block)
    # 360 + 130 > 480: the one of stream 1 is not enough for 130, and all of the cache goes.
    allocator.allocate(130 * MIB, stream=1)
    assert (allocator.reserved.current, allocator.retries) == (130 * MIB, 1)


def test_a_fraction_of_a_device_without_a_capacity() -> None:
    allocator = Allocator(
        AllocatorSettings(per_process_memory_fraction=0.5), device_total_bytes=100 * MIB
    )
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(51 * MIB)
    assert (caught.value.capacity_bytes, caught.value.device_total_bytes) == (100 * MIB,) * 2
    assert caught.value.allowed_bytes == 50 * MIB


def test_a_fraction_alone_collects_nothing() -> None:
    allocator = Allocator(AllocatorSettings(per_process_memory_fraction=0.9), 100 * MIB)
    allocator.free(allocator.allocate(20 * MIB))
    allocator.allocate(30 * MIB)
    assert sizes(allocator) == [[(20, False)], [(30, True)]]


def test_a_request_of_just_the_limit_may_use_a_larger_block() -> None:
    allocator = Allocator(AllocatorSettings(max_split_size_bytes=100 * MIB))
    allocator.free(allocator.allocate(110 * MIB))
    assert allocator.allocate(100 * MIB).size_bytes == 110 * MIB


def test_what_a_full_card_gave_is_used_again() -> None:
    allocator = Allocator(capacity_bytes=50 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    block = allocator.allocate(40 * MIB)
    allocator.free(block)
    assert allocator.allocate(40 * MIB).address == block.address
    assert allocator.retries == 1


def test_an_empty_block_and_the_pools_of_segments() -> None:
    allocator = Allocator()
    empty = allocator.allocate(0, stream=3)
    assert (empty.address, empty.size_bytes, empty.stream) == (0, 0, 3)
    allocator.allocate(1, stream=3)
    allocator.allocate(2 * MIB)
    assert [(one.is_small, one.stream) for one in allocator.snapshot()] == [(True, 3), (False, 0)]


def test_cuda_says_it_like_this() -> None:
    allocator = Allocator(capacity_bytes=7666 * MIB, device_total_bytes=7806 * MIB)
    allocator.allocate(7650 * MIB)
    allocator.allocate(100 * KIB)
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(2 * MIB)
    # Free: 7666 - 7650 - 2 = 14. In use: 7652 and 140 outside, 7.61 GiB.
    assert caught.value.cuda_message() == (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.62 GiB "
        "of which 14.00 MiB is free. Including non-PyTorch memory, this process has 7.61 GiB "
        "memory in use. Of the allocated memory 7.47 GiB is allocated by PyTorch, and 1.90 MiB is "
        "reserved by PyTorch but unallocated. If reserved but unallocated memory is large try "
        "setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
        "documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/"
        "cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)"
    )
    assert "GPU rtx4070-laptop-8gb has" in caught.value.cuda_message("rtx4070-laptop-8gb")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 bytes"),
        (1024, "1024 bytes"),
        (1536, "1.50 KiB"),
        (MIB, "1024.00 KiB"),
        (MIB + 1, "1.00 MiB"),
        (GIB, "1024.00 MiB"),
        (3 * GIB, "3.00 GiB"),
    ],
)
def test_sizes_are_printed_as_torch_does(amount: int, text: str) -> None:
    assert format_size(amount) == text
