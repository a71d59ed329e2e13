"""The device under the allocator: what is taken from the driver, up to its capacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Device", "Gauge"]

_FIRST_ADDRESS: Final = 2**40
_GAP_BYTES: Final = 2 * 1024**2
"""Left between two ranges of addresses, so that nothing adjoins by chance."""


@dataclass(slots=True)
class Gauge:
    """A counter and its highest value so far."""

    current: int = 0
    peak: int = 0

    def add(self, amount: int) -> None:
        self.current += amount
        # A comparison, for max() would take three times as long, and this runs for every event.
        if self.current > self.peak:  # noqa: PLR1730
            self.peak = self.current


class Device:
    """A driver that gives memory until the capacity is reached, at ever higher addresses.

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
        self._next_address = _FIRST_ADDRESS

    def take(self, size_bytes: int) -> bool:
        """Take memory; `False` where it is not there (`cudaErrorMemoryAllocation`)."""
        capacity = self.capacity_bytes
        if capacity is not None and self.taken.current + size_bytes > capacity:
            return False
        self.taken.add(size_bytes)
        return True

    def give(self, size_bytes: int) -> None:
        """Give memory back."""
        self.taken.add(-size_bytes)

    def addresses(self, size_bytes: int) -> int:
        """First of a new range of addresses, above all earlier ones."""
        address = self._next_address
        self._next_address += size_bytes + _GAP_BYTES
        return address
