"""The meter of the fixture `vram`: peaks of a block of a test, and limits to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

import pytest

from ftcheck.pytest_plugin.devices import Gpu
from ftcheck.pytest_plugin.requirements import Budget, budget_of
from ftcheck.pytest_plugin.state import tell, unmeasured
from ftcheck.units import format_bytes, format_count

__all__ = ["Block", "Measurement", "OverBudget", "Vram", "excess"]


class OverBudget(AssertionError):
    """More memory was taken than is allowed."""


@dataclass(slots=True)
class Measurement:
    """Peaks of a block, whole when it has ended.

    Both count from zero, not from the start of the block: a model that was on the card before is in
    them, for a card must hold it, too.

    Attributes:
        kind: Whether the figures were measured on a card or predicted.
        place: The same in words, with the card.
        context_bytes: What the CUDA context takes beside the allocator.
        allocated_peak_bytes: Most bytes in tensors (`torch.cuda.max_memory_allocated`).
        reserved_peak_bytes: Most bytes held by the allocator (`torch.cuda.max_memory_reserved`).
    """

    kind: Literal["measured", "predicted"]
    place: str
    context_bytes: int
    allocated_peak_bytes: int = 0
    reserved_peak_bytes: int = 0

    @property
    def card_peak_bytes(self) -> int:
        """Most bytes taken from the card: reserved, and the context."""
        return self.reserved_peak_bytes + self.context_bytes

    def peak_bytes(self, of: str) -> int:
        """The peak of what a budget limits."""
        return int(getattr(self, f"{of}_peak_bytes"))


_RUNNING: Final = pytest.StashKey[list[Measurement]]()
_DONE: Final = pytest.StashKey[list[dict[str, Any]]]()
"""Of a test, for all its meters: each resets the peaks of the one card."""


class Vram:
    """Measures blocks of one test, one after another or one in another.

    Args:
        gpu: The card.
        item: The test; it is told what was measured.
    """

    def __init__(self, gpu: Gpu, item: pytest.Item) -> None:
        self.gpu = gpu
        self._item = item
        self._running = item.stash.setdefault(_RUNNING, [])
        self._done = item.stash.setdefault(_DONE, [])

    def measure(self) -> Block:
        """Peaks of a block: `with vram.measure() as m: …`, then `m.reserved_peak_bytes`.

        The cache is emptied before it. A block that took no memory from the card makes the test
        `unmeasured`, which is not passed.
        """
        return Block(self)

    def limit(
        self, limit: str | int, *, of: Literal["reserved", "allocated", "card"] = "reserved"
    ) -> Block:
        """Measure a block and fail where it takes more: `with vram.limit("8 GiB"): …`.

        Args:
            limit: With its unit, or bytes; it is allowed.
            of: `reserved` by the allocator, `allocated` in it, or all that is taken from the
                `card`, with the CUDA context.

        Raises:
            OverBudget: When the block ends, and took more.
            WrongMarker: The limit cannot be read.
        """
        return Block(self, budget_of(limit, of))

    def begin(self) -> Measurement:
        """Begin a measurement."""
        self._note()
        self.gpu.empty_cache()
        self.gpu.reset_peaks()
        found = Measurement(self.gpu.how, self.gpu.place, self.gpu.card.context_overhead_bytes)
        self._running.append(found)
        return found

    def end(self, found: Measurement) -> None:
        """Its peaks are whole."""
        self._note()
        self._running.remove(found)

    def tell(self, found: Measurement) -> None:
        """Send a measurement to where results come together."""
        self._done.append(
            {
                "kind": found.kind,
                "card": self.gpu.name,
                "allocated_peak_bytes": found.allocated_peak_bytes,
                "reserved_peak_bytes": found.reserved_peak_bytes,
                "card_peak_bytes": found.card_peak_bytes,
            }
        )
        tell(self._item, {"vram": self._done})

    def nothing(self) -> NoReturn:
        """End the test: there is nothing to be measured."""
        unmeasured(self._item, f"nothing was put on {self.gpu.name}: is the model on gpu.device?")

    def _note(self) -> None:
        """Add the peaks so far to the blocks that run, before they are reset for another."""
        allocated, reserved = self.gpu.allocated_peak_bytes, self.gpu.reserved_peak_bytes
        for found in self._running:
            found.allocated_peak_bytes = max(found.allocated_peak_bytes, allocated)
            found.reserved_peak_bytes = max(found.reserved_peak_bytes, reserved)


class Block:
    """A block that is measured, and held against a budget if there is one.

    Args:
        vram: Measures it.
        budget: What it may take.
    """

    def __init__(self, vram: Vram, budget: Budget | None = None) -> None:
        self._vram = vram
        self._budget = budget

    def __enter__(self) -> Measurement:
        self._found = self._vram.begin()
        self._before = self._vram.gpu.allocations
        return self._found

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        __tracebackhide__ = True
        self._vram.end(self._found)
        if error is not None:
            return
        if self._vram.gpu.allocations == self._before:
            self._vram.nothing()
        self._vram.tell(self._found)
        if self._budget is not None:
            above = excess(self._found, self._budget)
            if above:
                raise OverBudget(above)


def excess(found: Measurement, budget: Budget) -> str:
    """How far a measurement is above a budget, in a sentence; empty where it is not."""
    peak = found.peak_bytes(budget.of)
    if peak <= budget.limit_bytes:
        return ""
    taken = format_bytes(peak)
    if taken == format_bytes(budget.limit_bytes):
        more = peak - budget.limit_bytes
        taken = f"{format_count(more)} byte{'s' if more > 1 else ''} more"
    of = "of the card" if budget.of == "card" else budget.of
    return f"limited to {budget.text} {of}, took {taken} ({found.place})"
