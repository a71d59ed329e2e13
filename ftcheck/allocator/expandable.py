"""Expandable segments: one growing range of addresses per pool and stream, mapped in granules.

Mirrors `ExpandableSegment`, `find_expandable_block`, `map_block`, `try_allocate_expandable_block`
and `unmap_block` of `c10/cuda/CUDACachingAllocator.cpp`, torch 2.13.0 (the design note is at
:325-388, `unmap_block` at :4173-4230).
"""

from __future__ import annotations

from typing import Final

from ftcheck.allocator.blocks import AddressRange, Block, Pool, splice
from ftcheck.allocator.driver import Device
from ftcheck.allocator.settings import SMALL_SEGMENT_BYTES

__all__ = ["ExpandableSegments", "expandable_bytes"]

_UNLIMITED_BYTES: Final = 2**47
"""Addresses of a segment where the device's memory is not known."""


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

    def _growable(self, pool: Pool, rounded: int, stream: int) -> Block:
        """Lowest address with room, in a new range if there is none (`find_expandable_block`)."""
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
        granule = SMALL_SEGMENT_BYTES if pool.is_small else self._large_granule_bytes
        total = self._device.total_bytes
        # Room for 1 1/8 of the device, so that pages can be unmapped in front and mapped behind.
        wanted = _UNLIMITED_BYTES if total is None else total + total // 8
        # A request beyond that cannot be mapped either; room for it keeps `_grow` simple.
        size = -(-max(wanted, rounded) // granule) * granule
        start = self._device.addresses(size)
        block = Block(
            start, size, stream, pool, mapped=False, range=AddressRange(start, size, granule)
        )
        pool.insert_unmapped(block)
        return block

    def _map(self, block: Block, pool: Pool, size_bytes: int) -> bool:
        """Back the front of an unmapped block with memory, whole granules (`map_block`)."""
        assert block.range is not None
        size = -(-size_bytes // block.range.granule_bytes) * block.range.granule_bytes
        if not self._device.take(size):
            return False
        pool.remove_unmapped(block)
        if size < block.size_bytes:
            rest = Block(
                block.address + size,
                block.size_bytes - size,
                block.stream,
                pool,
                mapped=False,
                range=block.range,
            )
            splice(rest, block, block.next)
            pool.insert_unmapped(rest)
            block.size_bytes = size
        block.mapped = True
        pool.merge(block, block.previous)
        pool.merge(block, block.next)
        pool.insert(block)
        return True

    def unmap(self, block: Block, pool: Pool, addresses: AddressRange) -> None:
        """Give the whole granules inside a cached block back (`unmap_block`, :4173-4230)."""
        granule = addresses.granule_bytes
        first = -(-(block.address - addresses.start) // granule) * granule + addresses.start
        end = block.address + block.size_bytes
        last = (end - addresses.start) // granule * granule + addresses.start
        if first >= last:
            return
        pool.remove(block)
        for start, size, is_before in (
            (block.address, first - block.address, True),
            (last, end - last, False),
        ):
            if size:
                rest = Block(start, size, block.stream, pool, range=addresses)
                if is_before:
                    splice(rest, block.previous, block)
                else:
                    splice(rest, block, block.next)
                pool.insert(rest)
        block.address, block.size_bytes, block.mapped = first, last - first, False
        pool.merge(block, block.previous)
        pool.merge(block, block.next)
        self._device.give(last - first)
        if block.is_split:
            pool.insert_unmapped(block)
        # Otherwise the range is empty, and goes (`release_expandable_segment`).


def expandable_bytes(block: Block) -> int:
    """What a cached block could grow to; the block itself where nothing unmapped follows."""
    following = block.next
    grows = following is not None and not following.mapped
    return block.size_bytes + (following.size_bytes if following is not None and grows else 0)
