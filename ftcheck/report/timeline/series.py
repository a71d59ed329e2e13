"""Memory over a run, thinned to what can be drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ftcheck.allocator.caching import Allocator, AllocatorSettings, OutOfMemory
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
from ftcheck.allocator.replay import ReplayResult, replay, replay_events
from ftcheck.allocator.trace import Event, Tags, Trace
from ftcheck.cards import Card
from ftcheck.units import format_bytes, printable

__all__ = ["CATEGORIES", "PARTS", "Phase", "Series", "category", "short"]

CATEGORIES: Final = (
    WEIGHTS,
    QUANTIZATION,
    ADAPTERS,
    OPTIMIZER,
    GRADIENTS,
    INPUTS,
    ACTIVATIONS,
    LOGITS,
    WORKSPACES,
    OTHER,
)
"""From the bottom of the stack to its top: what stays, then what comes and goes."""
PARTS: Final = 600
"""Parts into which a run is cut. More would be narrower than a pixel, and would hide a peak of a
few events, which is where memory runs out."""
_LONGEST_NAME: Final = 30


@dataclass(frozen=True, slots=True)
class Phase:
    """A run of events of one phase."""

    name: str
    start: int
    """Index of the first event."""
    end: int
    """Index after the last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What is drawn and listed. Make one with `Series.of`."""

    title: str
    """What was run."""
    card: Card | None
    """The budget; `None` where there is none."""
    settings: AllocatorSettings
    events: int
    """Length of the horizontal axis."""
    edges: tuple[int, ...]
    """Index of the first event of each part, and of the event after the last part."""
    sizes: dict[str, tuple[int, ...]]
    """Category, in stacking order, to requested bytes when most was requested in each part.

    Only categories that hold something at some moment.
    """
    reserved: tuple[int, ...]
    """Most reserved bytes of each part, up to the one in which memory ran out."""
    phases: tuple[Phase, ...]
    """In order, without gaps; events without a phase belong to the one before."""
    peak_index: int
    """Event that first reached the peak of requested memory; -1 for an empty trace."""
    peak_event: Event | None
    """That event; `None` for an empty trace."""
    blocks: tuple[Event, ...]
    """Allocations that are alive at the peak, largest first."""
    replayed: ReplayResult
    """The run on the card, or without a limit."""
    failed: Event | None
    """The request for which memory ran out; `None` if it did not."""

    @classmethod
    def of(
        cls,
        trace: Trace,
        *,
        title: str,
        card: Card | None = None,
        settings: AllocatorSettings | None = None,
    ) -> Series:
        """Replay a trace, cut it into parts, and keep the fullest moment of each."""
        settings = settings or AllocatorSettings()
        capacity, total = (
            (None, None) if card is None else (card.allocator_bytes, card.capacity_bytes)
        )
        replayed = replay(trace, capacity, settings, device_total_bytes=total)
        allocator = Allocator(settings, capacity, device_total_bytes=total)
        parts = min(len(trace), PARTS)
        edges = tuple(part * len(trace) // parts for part in range(parts + 1)) if parts else (0,)
        peak_index, failed_index = trace.requested_peak_index, replayed.failed_index
        alive = trace.alive_after(peak_index) if peak_index >= 0 else []
        return cls(
            title=title,
            card=card,
            settings=settings,
            events=len(trace),
            edges=edges,
            sizes=_fullest_moments(trace, edges),
            reserved=_most_reserved(trace, allocator, edges),
            phases=_phases(trace),
            peak_index=peak_index,
            peak_event=trace[peak_index] if peak_index >= 0 else None,
            blocks=tuple(sorted(alive, key=lambda event: -event.size_bytes)),
            replayed=replayed,
            failed=None if failed_index is None else trace[failed_index],
        )

    @property
    def peak_bytes(self) -> int:
        """Most bytes requested and alive."""
        return sum(event.size_bytes for event in self.blocks)

    @property
    def peak_sizes(self) -> dict[str, int]:
        """Bytes of each category at the peak, in stacking order."""
        return {
            name: sum(block.size_bytes for block in self.blocks if category(block.tags) == name)
            for name in self.sizes
        }

    def describe(self) -> list[str]:
        """Sentences on the peak, on what was reserved, and on whether it fits."""
        replayed, peak = self.replayed, self.peak_event
        if peak is None:
            return ["Nothing was allocated."]
        requested = f"Peak: {format_bytes(self.peak_bytes)} requested{_in_phase(peak)}"
        reserved = f"{format_bytes(replayed.peak_reserved_bytes)} reserved"
        if self.failed is not None and replayed.failed_index is not None:
            size = format_bytes(self.failed.size_bytes)
            number = f"event {replayed.failed_index + 1:,} of {self.events:,}"
            return [
                f"Out of memory on a request of {size}{_in_phase(self.failed)}, {number}, with "
                f"{reserved}.",
                f"{requested}.",
            ]
        if self.card is None:
            return [f"{requested}, {reserved}."]
        spare = self.card.allocator_bytes - replayed.peak_reserved_bytes
        return [f"{requested}, {reserved}.", f"{format_bytes(spare)} below the budget."]


def short(name: str) -> str:
    """The name of a phase, printable and at most 30 letters long."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _in_phase(event: Event) -> str:
    return f" in {short(event.tags.phase)}" if event.tags.phase else ""


def category(tags: Tags) -> str:
    """The category that is drawn: unknown names, and none, are `other`."""
    return tags.category if tags.category in CATEGORIES else OTHER


def _fullest_moments(trace: Trace, edges: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Bytes of each category when most was alive in each part."""
    now = dict.fromkeys(CATEGORIES, 0)
    names: dict[int, str] = {}
    moments: list[tuple[int, ...]] = []
    total, most = 0, -1
    for index, event in enumerate(trace):
        if index == edges[len(moments)]:
            moments.append(())
            most = -1
        if event.action == "alloc":
            name, size = category(event.tags), event.size_bytes
            names[event.block] = name
        else:
            name, size = names.pop(event.block), -event.size_bytes
        now[name] += size
        total += size
        if total > most:
            most, moments[-1] = total, tuple(now.values())
    columns = dict(zip(CATEGORIES, zip(*moments, strict=True), strict=True)) if moments else {}
    return {name: column for name, column in columns.items() if any(column)}


def _most_reserved(trace: Trace, allocator: Allocator, edges: Sequence[int]) -> tuple[int, ...]:
    """Most reserved bytes of each part, up to the one in which memory ran out."""
    most: list[int] = []
    with contextlib.suppress(OutOfMemory):  # `replay` says where
        for index in replay_events(trace, allocator):
            if index == edges[len(most)]:
                most.append(0)
            most[-1] = max(most[-1], allocator.reserved.current)
    return tuple(most)


def _phases(trace: Trace) -> tuple[Phase, ...]:
    phases: list[Phase] = []
    for name, start, end in trace.phases():
        if phases and name in ("", phases[-1].name):
            phases[-1] = Phase(phases[-1].name, phases[-1].start, end)
        else:
            phases.append(Phase(name, start, end))
    return tuple(phases)
