"""A simulation of PyTorch's native CUDA caching allocator, for one device.

Mirrors `DeviceCachingAllocator` of torch 2.13.0; line numbers below are those of
`c10/cuda/CUDACachingAllocator.cpp` in that version.

Exact, given the same requests in the same order: sizes, pools, best fit, splits, merges, segments,
what is released when the device is full, expandable segments, the counters. Assumed:

- `cudaMalloc` succeeds while its sum stays within the capacity, and each segment has a higher
  address than those before it. Addresses only decide between cached blocks of equal size.
- No block is used on a second stream (`record_stream`), so a freed block can be reused at once,
  and active bytes equal allocated bytes.
- No CUDA graphs, no private pools, no free-memory callbacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftcheck.allocator.blocks import Block, Pool
from ftcheck.allocator.driver import Device, Gauge
from ftcheck.allocator.expandable import ExpandableSegments, expandable_bytes
from ftcheck.allocator.out_of_memory import OutOfMemory
from ftcheck.allocator.settings import (
    MIN_BLOCK_BYTES,
    SMALL_ALLOCATION_BYTES,
    AllocatorSettings,
)

__all__ = ["Allocator", "AllocatorSettings", "Block", "Gauge", "OutOfMemory", "Segment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Device memory taken from the driver at once, or one mapped part of an expandable segment."""

    address: int
    size_bytes: int
    stream: int
    is_small: bool
    is_expandable: bool
    blocks: tuple[Block, ...]
    """In the order of their addresses, without gaps."""


class Allocator:
    """The caching allocator of one device.

    Args:
        settings: What `PYTORCH_ALLOC_CONF` would say.
        capacity_bytes: What it may take from the driver: the device's memory less the CUDA
            context and less what other processes hold. `None`: without limit.
        device_total_bytes: The device's memory as `cudaMemGetInfo` gives it; a memory fraction
            is a fraction of this. `None`: the same as the capacity.
    """

    def __init__(
        self,
        settings: AllocatorSettings | None = None,
        capacity_bytes: int | None = None,
        *,
        device_total_bytes: int | None = None,
    ) -> None:
        self.settings = settings if settings is not None else AllocatorSettings()
        self.device = Device(capacity_bytes, device_total_bytes)
        """The driver's side: capacity, and what was taken."""
        self.allocated = Gauge()
        """Bytes in blocks that are in use, after rounding (`allocated_bytes`)."""
        self.reserved = self.device.taken
        """Bytes taken from the driver (`reserved_bytes`)."""
        self.requested = Gauge()
        """Bytes that were requested and are in use (`requested_bytes`)."""
        self.segments = Gauge()
        """Number of `cudaMalloc`ed segments; expandable ones are not counted."""
        self.allocations = 0
        """Number of allocations so far, without those of 0 bytes (`allocation.all.allocated`)."""
        self.retries = 0
        """How often the whole cache had to be released (`num_alloc_retries`)."""
        self._small = Pool(is_small=True)
        self._large = Pool(is_small=False)
        self._expandable = ExpandableSegments(
            self.device, large_granule_bytes=self.settings.large_segment_bytes
        )
        self._live: dict[int, Block] = {}

    @property
    def active(self) -> Gauge:
        """Bytes in use or waiting for a stream: as `allocated`, since streams do not wait here."""
        return self.allocated

    @property
    def allowed_bytes(self) -> int | None:
        """Limit from `per_process_memory_fraction`, or `None` (`setMemoryFraction`, :2550)."""
        if self.settings.per_process_memory_fraction >= 1 or self.device.total_bytes is None:
            return None
        return int(self.settings.per_process_memory_fraction * self.device.total_bytes)

    def allocate(self, size_bytes: int, *, stream: int = 0) -> Block:
        """Allocate a block (`malloc`, :1722-1960).

        Args:
            size_bytes: Bytes requested; 0 gives an empty block and takes nothing.
            stream: Only blocks of the same stream are reused.

        Raises:
            OutOfMemory: The device is full, even after the whole cache was released.
            ValueError: The size is negative.
        """
        if size_bytes <= 0:
            if size_bytes < 0:
                raise ValueError(f"size: got {size_bytes} bytes, expected 0 or more")
            return Block(0, 0, stream, None, allocated=True)
        rounded = self.settings.round_size(size_bytes)
        pool = self._small if rounded <= SMALL_ALLOCATION_BYTES else self._large
        block = self._find(pool, rounded, stream)
        if block is None:
            block = self._reserve(pool, rounded, stream)
        if block is None:
            raise self._out_of_memory(size_bytes, rounded)
        if self._should_split(block, pool, rounded):
            pool.insert(block.split_off(rounded))
        block.allocated = True
        block.requested_bytes = size_bytes
        self._live[block.address] = block
        self.allocations += 1
        self.allocated.add(block.size_bytes)
        self.requested.add(size_bytes)
        return block

    def free(self, block: Block) -> None:
        """Free a block; it stays cached (`free`, `free_block`, :3505-3579).

        Raises:
            ValueError: The block is not in use, or belongs to another allocator.
        """
        pool = block.pool
        if not block.allocated or (pool is not None and self._live.get(block.address) is not block):
            raise ValueError(f"block at {block.address:#x}: not in use, expected a live block")
        block.allocated = False
        if pool is None:
            return
        del self._live[block.address]
        self.allocated.add(-block.size_bytes)
        self.requested.add(-block.requested_bytes)
        block.requested_bytes = 0
        pool.merge(block, block.previous)
        pool.merge(block, block.next)
        pool.insert(block)

    def empty_cache(self) -> None:
        """Give the cache back to the driver, as far as whole segments or granules are free.

        `release_cached_blocks`, `release_blocks` (:4059-4103, :4251-4275).
        """
        for pool in (self._large, self._small):
            for block in pool.cached():
                if block.range is not None:
                    self._expandable.unmap(block, pool, block.range)
                elif not block.is_split:
                    self._release(block, pool)

    def reset_peaks(self) -> None:
        """Restart the peaks at the current values (`resetPeakStats`)."""
        for gauge in (self.allocated, self.reserved, self.requested, self.segments):
            gauge.peak = gauge.current

    def snapshot(self) -> Iterator[Segment]:
        """All segments, and mapped parts of expandable ones, by address."""
        heads = [*self._live.values(), *self._small.cached(), *self._large.cached()]
        for head in sorted(heads, key=lambda block: block.address):
            if head.previous is not None and head.previous.mapped:
                continue
            blocks = [head]
            while (following := blocks[-1].next) is not None and following.mapped:
                blocks.append(following)
            yield Segment(
                address=head.address,
                size_bytes=sum(block.size_bytes for block in blocks),
                stream=head.stream,
                is_small=head.pool is self._small,
                is_expandable=head.range is not None,
                blocks=tuple(blocks),
            )

    # What follows is in the order in which `malloc` goes through it.

    def _find(self, pool: Pool, rounded: int, stream: int) -> Block | None:
        """Take the best fitting cached block (`get_free_block`, :3710)."""
        settings = self.settings
        if settings.collects_garbage:
            pool.searches += 1
        candidates = pool.at_least(stream, rounded)
        block = next(candidates, None)
        if block is None:
            return None
        if settings.expandable_segments:
            # A block at the growing end counts with what it can grow to, which keeps it for
            # requests that need that much.
            for following in candidates:
                if expandable_bytes(following) >= expandable_bytes(block):
                    break
                block = following
        limit = settings.max_split_size_bytes
        if limit is not None:
            spare = settings.max_non_split_rounding_bytes or settings.large_segment_bytes
            if rounded < limit <= block.size_bytes:
                return None
            if rounded >= limit and block.size_bytes >= rounded + spare:
                return None
        pool.remove(block)
        return block

    def _reserve(self, pool: Pool, rounded: int, stream: int) -> Block | None:
        """Get memory from the driver, releasing cached blocks if it is full (:1756-1794)."""
        if self.settings.collects_garbage and self.allowed_bytes is not None:
            self._collect_garbage(self.allowed_bytes)
        block = self._take(pool, rounded, stream)
        if block is None and self._release_oversize(pool, rounded, stream):
            block = self._take(pool, rounded, stream)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._take(pool, rounded, stream)
        return block

    def _take(self, pool: Pool, rounded: int, stream: int) -> Block | None:
        """Try once to get a segment or to map more (`alloc_block`, :3843-3997)."""
        size = self.settings.segment_size(rounded)
        allowed = self.allowed_bytes
        if allowed is not None and self.reserved.current + size > allowed:
            return None
        if self.settings.expandable_segments:
            return self._expandable.grow(pool, rounded, stream)
        address = self.device.malloc(size, stream)
        if address is None:
            return None
        self.segments.add(1)
        return Block(address, size, stream, pool)

    def _should_split(self, block: Block, pool: Pool, rounded: int) -> bool:
        """Whether the rest becomes a cached block or stays part of this one (`should_split`)."""
        rest = block.size_bytes - rounded
        if pool.is_small or self.settings.expandable_segments:
            return rest >= MIN_BLOCK_BYTES
        limit = self.settings.max_split_size_bytes
        return (limit is None or rounded < limit) and rest > SMALL_ALLOCATION_BYTES

    def _collect_garbage(self, allowed: int) -> None:
        """Release large segments of above-average age (`garbage_collect...`, :3779-3836)."""
        threshold = int(self.settings.garbage_collection_threshold * allowed)
        to_reclaim = self.reserved.current - threshold
        if to_reclaim <= 0:
            return
        pool = self._large
        # torch counts expandable blocks too, but releases none of them.
        unsplit = [block for block in pool.cached() if not block.is_split]
        while to_reclaim > 0 and unsplit:
            mean_age = sum(pool.searches - block.cached_at for block in unsplit) / len(unsplit)
            kept = []
            for block in unsplit:
                age = pool.searches - block.cached_at
                if block.range is None and age >= mean_age:
                    to_reclaim -= block.size_bytes
                    self._release(block, pool)
                else:
                    kept.append(block)
            if len(kept) == len(unsplit):
                return
            unsplit = kept

    def _release_oversize(self, pool: Pool, rounded: int, stream: int) -> bool:
        """Release enough unsplittable blocks for the request (`release_available...`, :4002)."""
        limit = self.settings.max_split_size_bytes
        if limit is None:
            return False
        wanted = max(rounded, limit)
        block = next(pool.at_least(stream, wanted), None)
        if block is not None and block.range is None:
            self._release(block, pool)
            return True
        released = 0
        for smaller in pool.below(stream, wanted):
            if released >= wanted or smaller.size_bytes < limit:
                break
            if smaller.range is None:
                released += smaller.size_bytes
                self._release(smaller, pool)
        return released >= wanted

    def _release(self, block: Block, pool: Pool) -> None:
        """Free a cached segment (`release_block`; its `cudaFree` is at :4141)."""
        pool.remove(block)
        self.device.free(block.address, block.size_bytes, block.stream)
        self.segments.add(-1)

    def _out_of_memory(self, size_bytes: int, rounded: int) -> OutOfMemory:
        # Without a capacity only a memory fraction can refuse, and that needs a device total.
        total = self.device.total_bytes or 0
        capacity = self.device.capacity_bytes
        return OutOfMemory(
            requested_bytes=size_bytes,
            segment_bytes=self.settings.segment_size(rounded),
            capacity_bytes=total if capacity is None else capacity,
            device_total_bytes=total,
            allocated_bytes=self.allocated.current,
            reserved_bytes=self.reserved.current,
            allowed_bytes=self.allowed_bytes,
        )
