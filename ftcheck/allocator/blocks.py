"""Blocks, and the ordered sets of cached ones, of the simulated CUDA caching allocator.

Mirrors `Block`, `BlockPool`, `BlockComparatorSize` and `try_merge_blocks` of
`c10/cuda/CUDACachingAllocator.cpp`, torch 2.13.0.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["AddressRange", "Block", "Pool"]


@dataclass(frozen=True, slots=True)
class AddressRange:
    """The virtual addresses of one expandable segment (`ExpandableSegment`)."""

    start: int
    size_bytes: int
    granule_bytes: int
    """What is mapped and unmapped at once: 2 MiB in the small pool, else a large segment."""


@dataclass(slots=True, eq=False)
class Block:
    """A range of device addresses: in use, cached, or (expandable segments only) unmapped.

    What `Allocator.allocate` returns and `Allocator.free` takes. Only the allocator changes it.
    """

    address: int
    size_bytes: int
    """Rounded size: at least what was requested."""
    stream: int
    pool: Pool | None = field(repr=False)
    """`None` for a request of 0 bytes, which takes nothing from the device."""
    requested_bytes: int = 0
    """What was requested; 0 while the block is not in use."""
    allocated: bool = False
    """Whether it is in use."""
    mapped: bool = True
    """Whether there is memory behind the addresses."""
    previous: Block | None = field(default=None, repr=False)
    """Block in front of this one in its segment."""
    next: Block | None = field(default=None, repr=False)
    """Block after this one in its segment."""
    cached_at: int = 0
    """Searches of the pool when the block was cached: its age for garbage collection."""
    range: AddressRange | None = None
    """The expandable segment that the block lies in, or `None`."""

    @property
    def is_split(self) -> bool:
        """Whether the segment holds other blocks beside this one."""
        return self.previous is not None or self.next is not None

    def split_off(self, size_bytes: int) -> Block:
        """Shorten the block to its first bytes; returns the rest, linked after it (`splice`)."""
        rest = Block(
            self.address + size_bytes,
            self.size_bytes - size_bytes,
            self.stream,
            self.pool,
            mapped=self.mapped,
            previous=self,
            next=self.next,
            range=self.range,
        )
        if self.next is not None:
            self.next.previous = rest
        self.next = rest
        self.size_bytes = size_bytes
        return rest


@dataclass(slots=True, eq=False)
class Pool:
    """The cached and the unmapped blocks for small or for large allocations, in torch's order."""

    is_small: bool
    """Whether it serves allocations of up to 1 MiB."""
    searches: int = 0
    """Counted only where garbage collection is on (`get_free_blocks_call_count`)."""
    _cached: list[tuple[int, int, int]] = field(default_factory=list)
    """(stream, size, address): the order of `BlockComparatorSize`."""
    _unmapped: list[tuple[int, int]] = field(default_factory=list)
    """(stream, address): the order of `BlockComparatorAddress`."""
    _by_address: dict[int, Block] = field(default_factory=dict)

    def insert(self, block: Block) -> None:
        """Cache a block."""
        block.cached_at = self.searches
        insort(self._cached, (block.stream, block.size_bytes, block.address))
        self._by_address[block.address] = block

    def remove(self, block: Block) -> None:
        """Remove a cached block, before its address or size changes."""
        key = (block.stream, block.size_bytes, block.address)
        del self._cached[bisect_left(self._cached, key)]
        del self._by_address[block.address]

    def insert_unmapped(self, block: Block) -> None:
        """Keep an unmapped block."""
        insort(self._unmapped, (block.stream, block.address))
        self._by_address[block.address] = block

    def remove_unmapped(self, block: Block) -> None:
        """Remove an unmapped block, before its address changes."""
        del self._unmapped[bisect_left(self._unmapped, (block.stream, block.address))]
        del self._by_address[block.address]

    def cached(self) -> list[Block]:
        """All cached blocks, by stream, then size, then address; a copy."""
        return [self._by_address[key[2]] for key in self._cached]

    def unmapped(self, stream: int) -> Iterator[Block]:
        """Unmapped blocks of a stream, lowest address first."""
        for key in self._unmapped[bisect_left(self._unmapped, (stream, 0)) :]:
            if key[0] != stream:
                return
            yield self._by_address[key[1]]

    def at_least(self, stream: int, size_bytes: int) -> Iterator[Block]:
        """Cached blocks of a stream that are large enough, smallest first."""
        cached = self._cached
        index = bisect_left(cached, (stream, size_bytes, 0))
        while index < len(cached) and cached[index][0] == stream:
            yield self._by_address[cached[index][2]]
            index += 1

    def below(self, stream: int, size_bytes: int) -> list[Block]:
        """Cached blocks of a stream that are smaller than a size, largest first."""
        first = bisect_left(self._cached, (stream, 0, 0))
        last = bisect_left(self._cached, (stream, size_bytes, 0))
        return [self._by_address[key[2]] for key in reversed(self._cached[first:last])]

    def merge(self, block: Block, neighbour: Block | None) -> None:
        """Merge a neighbour into a block that is in no list (`try_merge_blocks`).

        Only neighbours that are not in use are merged, and only if both are mapped or both are not.
        """
        if neighbour is None or neighbour.allocated or neighbour.mapped != block.mapped:
            return
        if neighbour.mapped:
            self.remove(neighbour)
        else:
            self.remove_unmapped(neighbour)
        if block.previous is neighbour:
            block.address = neighbour.address
            block.previous = neighbour.previous
            if block.previous is not None:
                block.previous.next = block
        else:
            block.next = neighbour.next
            if block.next is not None:
                block.next.previous = block
        block.size_bytes += neighbour.size_bytes
