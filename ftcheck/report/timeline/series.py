"""What a picture of memory over a run shows: a trace, thinned to what can be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ftcheck.allocator.categories import (
    ACTIVATIONS,
    ADAPTERS,
    GRADIENTS,
    INPUTS,
    LOGITS,
    OPTIMIZER,
    OTHER,
    QUANTIZATION,
    WEIGHTS,
    WORKSPACES,
)
from ftcheck.allocator.replay import ReplayResult
from ftcheck.allocator.trace import Event, Tags, Trace
from ftcheck.units import format_bytes

__all__ = ["COLOURS", "PARTS", "Band", "Moment", "Series", "Tick", "category", "ticks"]

COLOURS: Final = {
    WEIGHTS: "#4269d0",
    QUANTIZATION: "#97bbf5",
    ADAPTERS: "#a463f2",
    OPTIMIZER: "#3ca951",
    GRADIENTS: "#6cc5b0",
    INPUTS: "#9c6b4e",
    ACTIVATIONS: "#efb118",
    LOGITS: "#ff725c",
    WORKSPACES: "#ff8ab7",
    OTHER: "#9498a0",
}
"""Categories from the bottom of the stack to its top: what stays, then what comes and goes.

The colours are those of Observable 10, which keep apart on white and on black.
"""

PARTS: Final = 600
"""Parts of a run that are told apart. More of them would be narrower than a pixel, and would hide
a peak of a few events, which is where memory runs out."""
_FARTHEST: Final = 2.0
"""A budget above so many times the highest curve is named and not drawn: it would flatten all."""


@dataclass(frozen=True, slots=True)
class Band:
    """A run of events of one phase."""

    phase: str
    start: int
    end: int
    """Event behind the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The fullest moment of one part of the run."""

    start: int
    """First event of the part."""
    end: int
    """Event behind its last one."""
    index: int
    """Event after which most was alive."""
    event: Event
    sizes_bytes: tuple[int, ...]
    """As requested, by category, in stacking order."""
    reserved_bytes: int | None
    """The most that the allocator held in this part; `None` where that is not known."""

    @property
    def total_bytes(self) -> int:
        return sum(self.sizes_bytes)

    @property
    def middle(self) -> float:
        """Of the part: where the moment is marked."""
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the scale."""

    size_bytes: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Everything that is drawn. Make one with `Series.of`.

    Attributes:
        title: What was run.
        events: Length of the horizontal axis.
        categories: Those that hold something at some moment, in stacking order.
        moments: One for each part of the run, in order; at most `PARTS`.
        bands: Phases, in order, without gaps; events without one belong to the phase before.
        peak: The moment of most requested memory; `None` for an empty trace.
        blocks: Allocations that are alive at the peak, largest first.
        peak_reserved_bytes: The most that the allocator held; `None` where that is not known.
        budget_bytes: What the allocator may take; `None` where there is no budget.
        failed_index: Event at which memory ran out; `None` if it did not.
        failed: That event.
    """

    title: str
    events: int
    categories: tuple[str, ...]
    moments: tuple[Moment, ...]
    bands: tuple[Band, ...]
    peak: Moment | None
    blocks: tuple[Event, ...]
    peak_reserved_bytes: int | None
    budget_bytes: int | None
    failed_index: int | None
    failed: Event | None

    @classmethod
    def of(
        cls,
        trace: Trace,
        replayed: ReplayResult | None = None,
        *,
        title: str,
        budget_bytes: int | None = None,
    ) -> Series:
        """Cut a run into parts, and keep of each the moment after which most was alive."""
        parts = _parts(trace)
        names = tuple(COLOURS)
        columns = [column for column in range(len(names)) if any(part[3][column] for part in parts)]
        reserved = (
            _reserved(replayed, len(trace), len(parts)) if replayed and replayed.timeline else {}
        )
        moments = tuple(
            Moment(
                start=start,
                end=end,
                index=index,
                event=trace[index],
                sizes_bytes=tuple(sizes[column] for column in columns),
                reserved_bytes=reserved.get(number),
            )
            for number, (start, end, index, sizes) in enumerate(parts)
        )
        at_peak = trace.requested_peak_index
        alive = trace.alive_after(at_peak) if at_peak >= 0 else []
        failed_index = None if replayed is None else replayed.failed_index
        return cls(
            title=title,
            events=len(trace),
            categories=tuple(names[column] for column in columns),
            moments=moments,
            bands=tuple(_bands(trace)),
            peak=next((moment for moment in moments if moment.index == at_peak), None),
            blocks=tuple(sorted(alive, key=lambda event: -event.size_bytes)),
            peak_reserved_bytes=replayed.peak_reserved_bytes if replayed and reserved else None,
            budget_bytes=budget_bytes,
            failed_index=failed_index,
            failed=None if failed_index is None else trace[failed_index],
        )

    @property
    def peak_bytes(self) -> int:
        """Most bytes requested and alive."""
        return self.peak.total_bytes if self.peak is not None else 0

    @property
    def highest_bytes(self) -> int:
        """The highest of what is drawn, without the budget; at least 1."""
        return max(self.peak_bytes, self.peak_reserved_bytes or 0, 1)

    @property
    def draws_budget(self) -> bool:
        """Whether the budget is a line of the plot."""
        budget = self.budget_bytes
        return budget is not None and budget <= _FARTHEST * self.highest_bytes

    @property
    def top_bytes(self) -> float:
        """Upper end of the scale."""
        budget = self.budget_bytes if self.draws_budget else None
        return 1.09 * max(self.highest_bytes, budget or 0)

    @property
    def budget_text(self) -> str:
        """The budget in words; empty where there is none."""
        if self.budget_bytes is None:
            return ""
        text = f"budget {format_bytes(self.budget_bytes)}"
        return text if self.draws_budget else f"\u2191 {text}, above this scale"

    @property
    def subtitle(self) -> str:
        """What the areas and the line are."""
        text = "Areas: bytes that were asked for and are alive."
        if self.peak_reserved_bytes is not None:
            text += " Line: what a simulated caching allocator holds for them."
        return text

    def sizes_at_peak(self) -> tuple[int, ...]:
        """By category, in stacking order; nothing for an empty trace."""
        return self.peak.sizes_bytes if self.peak is not None else ()


def category(tags: Tags) -> str:
    """The category that is drawn: names that are not known, and none, are `other`."""
    return tags.category if tags.category in COLOURS else OTHER


def _bands(trace: Trace) -> list[Band]:
    bands: list[Band] = []
    for phase, start, end in trace.phases():
        if bands and phase in ("", bands[-1].phase):
            bands[-1] = Band(bands[-1].phase, bands[-1].start, end)
        else:
            bands.append(Band(phase, start, end))
    return bands


def _parts(trace: Trace) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """(first event, event behind the last, fullest event, sizes of all categories then)."""
    count = len(trace)
    parts = min(count, PARTS)
    number = {name: column for column, name in enumerate(COLOURS)}
    other = number[OTHER]
    now = [0] * len(COLOURS)
    columns: dict[int, int] = {}
    total, most = 0, -1
    fullest, sizes = 0, tuple(now)
    found = []
    start, end = 0, count // parts if parts else 0
    for index, event in enumerate(trace):
        if event.action == "alloc":
            column = columns[event.block] = number.get(event.tags.category, other)
            now[column] += event.size_bytes
            total += event.size_bytes
        else:
            now[columns.pop(event.block)] -= event.size_bytes
            total -= event.size_bytes
        if total > most:
            most, fullest, sizes = total, index, tuple(now)
        if index + 1 == end:
            found.append((start, end, fullest, sizes))
            start, end, most = end, (len(found) + 1) * count // parts, -1
    return found


def _reserved(replayed: ReplayResult, events: int, parts: int) -> dict[int, int]:
    """The most that was reserved, by part; parts behind a failure, and before all, have nothing."""
    points = [(point.index, point.reserved_bytes) for point in replayed.timeline]
    # Thinning keeps the peak of what is allocated, which may be at another event.
    points.append((replayed.peak_reserved_index, replayed.peak_reserved_bytes))
    most: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, size in sorted(points):
        part = ((index + 1) * parts - 1) // events
        most[part] = max(size, most.get(part, 0))
        last[part] = size
    failed = replayed.failed_index
    end = parts if failed is None else ((failed + 1) * parts - 1) // events + 1
    held: int | None = None
    reserved: dict[int, int] = {}
    for part in range(end):
        highest = most.get(part, held)
        if highest is not None:
            reserved[part] = highest
        held = last.get(part, held)
    return reserved


def ticks(top_bytes: float) -> list[Tick]:
    """About five round amounts from 0 to the top, in the unit that suits the top."""
    units = (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1), ("B", 0))
    unit, factor = next((n, 1024**p) for n, p in units if top_bytes >= 1024**p or not p)
    rough = top_bytes / factor / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    count = int(top_bytes / factor / step)
    return [Tick(n * step * factor, f"{n * step:g} {unit}") for n in range(count + 1)]
