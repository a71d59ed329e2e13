"""The CUDA driver under the allocator: memory up to a capacity, and addresses without end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Device", "DriverCall", "Gauge"]

_FIRST_ADDRESS: Final = 2**40
_GAP_BYTES: Final = 2 * 1024**2
"""Left between two ranges of addresses, so that no two segments are adjacent."""

DriverCall = Callable[[str, int, int, int], None]
"""Called with the action as PyTorch's snapshots name it, such as `segment_alloc`, and the address,
the bytes and the stream."""


@dataclass(slots=True)
class Gauge:
    """A counter and its peak."""

    current: int = 0
    peak: int = 0

    def add(self, amount: int) -> None:
        """Change the counter, and raise the peak where it is exceeded."""
        self.current += amount
        # A comparison, for max() would take three times as long, and this runs for every event.
        if self.current > self.peak:  # noqa: PLR1730
            self.peak = self.current


class Device:
    """A GPU's memory: given out until the capacity is reached, at ever higher addresses.

    Args:
        capacity_bytes: All that it can give; `None`: without limit.
        total_bytes: What `cudaMemGetInfo` calls the total; `None`: the same as the capacity.

    Raises:
        ValueError: An amount is negative, or the capacity is larger than the total.
    """

    def __init__(self, capacity_bytes: int | None, total_bytes: int | None) -> None:
        for name, value in (("capacity", capacity_bytes), ("device total", total_bytes)):
            if value is not None and value < 0:
                raise ValueError(f"{name}: got {value} bytes, expected 0 or more, or None")
        self.capacity_bytes = capacity_bytes
        self.total_bytes = capacity_bytes if total_bytes is None else total_bytes
        if capacity_bytes is not None and capacity_bytes > (self.total_bytes or 0):
            raise ValueError(
                f"capacity: got {capacity_bytes} bytes, expected at most the device total of "
                f"{total_bytes} bytes"
            )
        self.taken = Gauge()
        """Bytes that were given out and not given back."""
        self.on_call: DriverCall = lambda *_: None
        """Told of every call that takes memory or gives it back."""
        self._next_address = _FIRST_ADDRESS

    @property
    def free_bytes(self) -> int | None:
        """What it could still give (`cudaMemGetInfo`); `None`: without limit."""
        return None if self.capacity_bytes is None else self.capacity_bytes - self.taken.current

    def malloc(self, size_bytes: int, stream: int) -> int | None:
        """Address of new memory (`cudaMalloc`); `None` where there is not enough."""
        if not self._take(size_bytes):
            return None
        address = self.reserve_addresses(size_bytes)
        self.on_call("segment_alloc", address, size_bytes, stream)
        return address

    def free(self, address: int, size_bytes: int, stream: int) -> None:
        """Give memory back (`cudaFree`)."""
        self.on_call("segment_free", address, size_bytes, stream)
        self.taken.add(-size_bytes)

    def reserve_addresses(self, size_bytes: int) -> int:
        """Start of a new range of addresses without memory (`cuMemAddressReserve`)."""
        address = self._next_address
        self._next_address += size_bytes + _GAP_BYTES
        return address

    def map(self, address: int, size_bytes: int, stream: int) -> bool:
        """Back addresses with memory (`cuMemMap`); `False` where there is not enough."""
        if not self._take(size_bytes):
            return False
        self.on_call("segment_map", address, size_bytes, stream)
        return True

    def unmap(self, address: int, size_bytes: int, stream: int) -> None:
        """Give the memory behind addresses back (`cuMemUnmap`)."""
        self.on_call("segment_unmap", address, size_bytes, stream)
        self.taken.add(-size_bytes)

    def _take(self, size_bytes: int) -> bool:
        capacity = self.capacity_bytes
        if capacity is not None and self.taken.current + size_bytes > capacity:
            return False
        self.taken.add(size_bytes)
        return True
