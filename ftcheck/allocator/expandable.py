"""Expandable segments: one growing range of addresses per pool and stream, mapped in granules.

Mirrors `ExpandableSegment`, `find_expandable_block`, `map_block`, `try_allocate_expandable_block`
and `unmap_block` of `c10/cuda/CUDACachingAllocator.cpp`, torch 2.13.0 (the design note is at
:325-388, `unmap_block` at :4173-4230).
"""

from __future__ import annotations

from typing import Final

from ftcheck.allocator.blocks import AddressRange, Block, Pool
from ftcheck.allocator.driver import Device
from ftcheck.allocator.settings import SMALL_SEGMENT_BYTES

__all__ = ["ExpandableSegments", "expandable_bytes"]

_UNLIMITED_BYTES: Final = 2**47
"""Size of a range where the device's memory is not known."""


class ExpandableSegments:
    """The expandable segments of one device.

    Args:
        device: Where the memory comes from.
        large_granule_bytes: What the large pool maps at once; the small pool maps 2 MiB.
    """

    def __init__(self, device: Device, *, large_granule_bytes: int) -> None:
        self._device = device
        self._large_granule_bytes = large_granule_bytes

    def grow(self, pool: Pool, rounded: int, stream: int) -> Block | None:
        """Map more of an expandable segment (`try_allocate_expandable_block`)."""
        block = self._growable(pool, rounded, stream)
        # Candidates: unmapped; unmapped then free; free then unmapped.
        if not block.mapped and not self._map(block, pool, min(block.size_bytes, rounded)):
            return None
        while block.size_bytes < rounded:
            following = block.next
            assert following is not None  # `_growable` counted the room
            missing = rounded - block.size_bytes
            if not self._map(following, pool, min(missing, following.size_bytes)):
                return None
            block = following
        pool.remove(block)
        return block

    def unmap(self, block: Block, pool: Pool, addresses: AddressRange) -> None:
        """Give the whole granules inside a cached block back (`unmap_block`, :4173-4230)."""
        granule, start = addresses.granule_bytes, addresses.start
        end = block.address + block.size_bytes
        first = start + _round_up(block.address - start, granule)
        last = start + (end - start) // granule * granule
        if first >= last:
            return
        pool.remove(block)
        if first > block.address:
            front, block = block, block.split_off(first - block.address)
            pool.insert(front)
        if last < end:
            pool.insert(block.split_off(last - first))
        block.mapped = False
        self._device.unmap(first, last - first, block.stream)
        pool.merge(block, block.previous)
        pool.merge(block, block.next)
        if block.is_split:
            pool.insert_unmapped(block)
        # Otherwise the range is empty and is dropped (`release_expandable_segment`).

    def _growable(self, pool: Pool, rounded: int, stream: int) -> Block:
        """Lowest block with room, in a new range if there is none (`find_expandable_block`)."""
        for unmapped in pool.unmapped(stream):
            block = unmapped
            if block.previous is not None and not block.previous.allocated:
                block = block.previous
            room = 0
            following: Block | None = block
            while room < rounded and following is not None and not following.allocated:
                room += following.size_bytes
                following = following.next
            if room >= rounded:
                return block
        return self._new_range(pool, rounded, stream)

    def _new_range(self, pool: Pool, rounded: int, stream: int) -> Block:
        granule = SMALL_SEGMENT_BYTES if pool.is_small else self._large_granule_bytes
        total = self._device.total_bytes
        # Room for 1 1/8 of the device, so that pages can be unmapped in front and mapped behind.
        wanted = _UNLIMITED_BYTES if total is None else total + total // 8
        # A request beyond that cannot be mapped either; room for it keeps `grow` simple.
        size = _round_up(max(wanted, rounded), granule)
        start = self._device.reserve_addresses(size)
        block = Block(
            start, size, stream, pool, mapped=False, range=AddressRange(start, size, granule)
        )
        pool.insert_unmapped(block)
        return block

    def _map(self, block: Block, pool: Pool, size_bytes: int) -> bool:
        """Back the front of an unmapped block with memory, whole granules (`map_block`)."""
        assert block.range is not None
        size = _round_up(size_bytes, block.range.granule_bytes)
        if not self._device.map(block.address, size, block.stream):
            return False
        pool.remove_unmapped(block)
        if size < block.size_bytes:
            pool.insert_unmapped(block.split_off(size))
        block.mapped = True
        pool.merge(block, block.previous)
        pool.merge(block, block.next)
        pool.insert(block)
        return True


def expandable_bytes(block: Block) -> int:
    """Bytes that a cached block could grow to; its own where nothing unmapped follows."""
    following = block.next
    grows = following is not None and not following.mapped
    return block.size_bytes + (following.size_bytes if following is not None and grows else 0)


def _round_up(size_bytes: int, granule_bytes: int) -> int:
    return -(-size_bytes // granule_bytes) * granule_bytes
