"""Memory over a run in a file that a person opens: a picture, a page, a snapshot or the trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.replay import ReplayResult
from ftcheck.allocator.snapshot import save_torch_snapshot
from ftcheck.allocator.trace import Trace
from ftcheck.errors import InputError
from ftcheck.files import written_beside
from ftcheck.report.timeline.page import timeline_page
from ftcheck.report.timeline.png import timeline_png
from ftcheck.report.timeline.series import Series
from ftcheck.report.timeline.svg import timeline_svg

__all__ = ["TIMELINE_SUFFIXES", "check_suffix", "write_timeline"]

TIMELINE_SUFFIXES: Final = {
    ".html": "a page",
    ".svg": "a picture",
    ".png": "a picture",
    ".pickle": "a snapshot for https://pytorch.org/memory_viz",
    ".json": "the trace",
    ".jsonl": "the trace",
}
"""What `write_timeline` writes, by the suffix of the file."""

_DRAWINGS: Final[Mapping[str, Callable[[Series], bytes]]] = {
    ".html": lambda series: timeline_page(series).encode("utf-8"),
    ".svg": lambda series: timeline_svg(series).encode("utf-8"),
    ".png": timeline_png,
}
_NEXT_STEP: Final = "Choose a place that exists, has space and that you may write to."


def write_timeline(
    path: str | os.PathLike[str],
    trace: Trace,
    *,
    title: str,
    budget_bytes: int | None = None,
    replayed: ReplayResult | None = None,
    settings: AllocatorSettings | None = None,
) -> None:
    """Write a trace as what the suffix of the file names; written beside and renamed.

    Pictures and pages stack the requested bytes by category over the events of the run, name the
    phases, mark the peak, and draw the budget and what the allocator holds.

    Args:
        path: File to write; its folder must exist.
        trace: What was asked for.
        title: What was run, such as `gpt2-lora on an RTX 4070`.
        budget_bytes: What the allocator may take: the card less its context. A snapshot is taken
            under this limit. `None`: no budget.
        replayed: Of this trace, by `replay(trace, ..., points=2000)`: where its timeline is, what
            is reserved is drawn, and so is the event at which memory ran out.
        settings: Of the allocator, for a snapshot; `None`: the defaults.

    Raises:
        InputError: The suffix is none of `TIMELINE_SUFFIXES`.
        DiskError: The operating system refused to write.
    """
    file = Path(path)
    check_suffix(file)
    suffix = file.suffix.lower()
    with written_beside(file, _NEXT_STEP) as partial:
        if suffix in (".json", ".jsonl"):
            trace.save(partial)
        elif suffix == ".pickle":
            save_torch_snapshot(trace, partial, settings, budget_bytes)
        else:
            series = Series.of(trace, replayed, title=title, budget_bytes=budget_bytes)
            partial.write_bytes(_DRAWINGS[suffix](series))


def check_suffix(file: Path) -> None:
    """Refuse a file whose suffix says nothing that `write_timeline` writes.

    Raises:
        InputError: The suffix is none of `TIMELINE_SUFFIXES`.
    """
    suffix = file.suffix.lower()
    if suffix in TIMELINE_SUFFIXES:
        return
    known = ", ".join(f"{name} ({what})" for name, what in TIMELINE_SUFFIXES.items())
    raise InputError(
        f"{file}: got {f'the suffix {suffix}' if suffix else 'no suffix'}, expected one of {known}",
        next_step=f"Name a file such as {file.with_suffix('.html')}",
    )
