"""Benchmarks as a table: peaks, what was predicted, the budget, the change against the baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ftcheck.errors import InputError
from ftcheck.gate.baseline import FIGURES, Baseline, Entry, Kind, Match
from ftcheck.gate.growth import change
from ftcheck.gate.recording import entry_of
from ftcheck.pytest_plugin.benchmarks import Benchmark
from ftcheck.units import format_bytes, format_seconds

__all__ = ["table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A test, what it is compared with, and what the baseline has of the other kind."""

    entry: Entry
    benchmark: Benchmark
    match: Match | None
    other: Entry | None

    @property
    def heading(self) -> str:
        return _place(self.entry)

    def cells(self) -> tuple[str, ...]:
        found = [self.entry.test]
        for figure in FIGURES:
            now = self.entry.bytes_of(figure)
            found.append(format_bytes(now))
            found.append(format_bytes(self.other.bytes_of(figure)) if self.other else "")
            found.append(change(self.match.entry.bytes_of(figure), now) if self.match else "")
        seconds = self.benchmark.seconds
        return (*found, self.benchmark.budget, "" if seconds is None else format_seconds(seconds))


def table(benchmarks: Iterable[Benchmark], baseline: Baseline | None) -> list[str]:
    """The lines of one table for each kind and card.

    Args:
        benchmarks: Those that measured nothing are left out.
        baseline: To compare with; `None` where none was named.
    """
    groups: dict[str, list[_Row]] = {}
    for row in _rows(benchmarks, baseline or Baseline({})):
        groups.setdefault(row.heading, []).append(row)
    lines: list[str] = []
    for heading in sorted(groups):
        rows = sorted(groups[heading], key=lambda row: row.entry.test)
        lines += [f"{heading}:", *_columns(rows), *_notes(rows)]
    return lines


def _rows(benchmarks: Iterable[Benchmark], baseline: Baseline) -> Iterator[_Row]:
    for benchmark in benchmarks:
        if benchmark.repeats is None:
            continue
        try:
            entry = entry_of(benchmark.repeats, repeatable=False)
        except InputError:
            continue  # the gate and the recording say so
        other = baseline.nearest(
            test=entry.test, kind=_other(entry), card=None, versions=entry.versions
        )
        yield _Row(
            entry=entry,
            benchmark=benchmark,
            match=baseline.nearest(
                test=entry.test, kind=entry.kind, card=entry.card, versions=entry.versions
            ),
            other=other.entry if other else None,
        )


def _columns(rows: Sequence[_Row]) -> Iterator[str]:
    """Aligned, the first to the left and the others to the right; empty ones are left out."""
    other = _other(rows[0].entry)
    titles = (
        "",
        *(word for figure in FIGURES for word in (figure, other, "change")),
        "budget",
        "time",
    )
    columns = [
        column
        for column in zip(titles, *(row.cells() for row in rows), strict=True)
        if any(column[1:])
    ]
    widths = [max(map(len, column)) for column in columns]
    for first, *others in zip(*columns, strict=True):
        cells = [first.ljust(widths[0])]
        cells += [
            (cell or "-").rjust(width) for cell, width in zip(others, widths[1:], strict=True)
        ]
        yield "  " + "  ".join(cells)


def _notes(rows: Sequence[_Row]) -> Iterator[str]:
    others = sorted({_place(row.other) for row in rows if row.other})
    if others:
        yield f"  {_other(rows[0].entry)}, as the baseline has it: {'; '.join(others)}"
    counted = Counter(
        ", ".join(row.match.differences) for row in rows if row.match and row.match.differences
    )
    for said, tests in counted.items():
        yield f"  {tests} of {len(rows)} compared across versions: {said}"


def _place(entry: Entry) -> str:
    return f"{entry.kind} {'on' if entry.kind == 'measured' else 'for'} {entry.card}"


def _other(entry: Entry) -> Kind:
    return "predicted" if entry.kind == "measured" else "measured"
