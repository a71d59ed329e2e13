"""Memory over a run in a file that a person opens: a drawing, a page, a snapshot or the trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.snapshot import save_torch_snapshot
from ftcheck.allocator.trace import Trace
from ftcheck.cards import Card
from ftcheck.errors import InputError
from ftcheck.files import written_beside
from ftcheck.report.timeline.drawing import timeline_png, timeline_svg
from ftcheck.report.timeline.page import timeline_page
from ftcheck.report.timeline.series import Series

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
    card: Card | None = None,
    settings: AllocatorSettings | None = None,
) -> None:
    """Write a trace in the form that the suffix of the file names; written beside and renamed.

    Pictures and pages stack the requested bytes by category over the events of the run, and show
    the phases, the peak, what is reserved, the budget, and where memory runs out.

    Args:
        path: File to write; its folder must exist.
        trace: What was requested.
        title: What was run, such as `gpt2-lora on an RTX 4070`.
        card: Its budget limits the allocator; `None`: no limit.
        settings: Of the allocator; `None`: the defaults.

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
            limits = (None, None) if card is None else (card.allocator_bytes, card.capacity_bytes)
            save_torch_snapshot(trace, partial, settings, limits[0], device_total_bytes=limits[1])
        else:
            series = Series.of(trace, title=title, card=card, settings=settings)
            partial.write_bytes(_DRAWINGS[suffix](series))


def check_suffix(file: Path) -> None:
    """Refuse a file whose suffix is none that `write_timeline` writes.

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
