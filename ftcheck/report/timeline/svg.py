"""Memory over a run as SVG: for a file of its own, and for the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from ftcheck.report.timeline.series import COLOURS, Band, Series, ticks
from ftcheck.units import format_bytes

__all__ = ["Frame", "labelled", "plot_svg", "timeline_svg"]

_LETTER = 6.6
"""Width of an average letter at 12 px."""
_ROW = 16
"""Height of a row of names."""
_STYLE = """
.vt{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
.vt-ground{fill:#fff}.vt-ink{fill:#1f2328}.vt-muted{fill:#656d76}
.vt-grid{stroke:#d8dee4;stroke-width:1}.vt-edge{stroke:#8c959f;stroke-width:1}
.vt-band{fill:#818b98;fill-opacity:.1}.vt-parting{stroke:#8c959f;stroke-dasharray:2 3}
.vt-budget{stroke:#cf222e;stroke-width:1.75;stroke-dasharray:7 4;fill:none}
.vt-alarm{fill:#cf222e}.vt-reserved{stroke:#1f2328;stroke-width:1.5;fill:none}
.vt-halo{paint-order:stroke;stroke:#fff;stroke-width:3.5px;stroke-linejoin:round}
.vt-dot{fill:#fff;stroke:#1f2328;stroke-width:2}.vt-cursor{stroke:#1f2328;stroke-width:1}
.vt-title{font-size:17px;font-weight:600}.vt-strong{font-weight:600}
.vt-figure{font-variant-numeric:tabular-nums}
@media (prefers-color-scheme:dark){
.vt-ground{fill:#0d1117}.vt-ink{fill:#e6edf3}.vt-muted{fill:#8d96a0}
.vt-grid{stroke:#2a313a}.vt-edge{stroke:#6e7681}.vt-band{fill:#b1bac4;fill-opacity:.08}
.vt-parting{stroke:#6e7681}.vt-budget{stroke:#ff7b72}.vt-alarm{fill:#ff7b72}
.vt-reserved{stroke:#f0f6fc}.vt-halo{stroke:#0d1117}
.vt-dot{fill:#0d1117;stroke:#f0f6fc}.vt-cursor{stroke:#f0f6fc}}
"""
_NAMESPACE = "http://www.w3.org/2000/svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the plot lies on its canvas; pixels."""

    left: float
    top: float
    width: float
    height: float
    events: int
    top_bytes: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, index: float) -> float:
        """Where an event begins."""
        return self.left + self.width * index / max(self.events, 1)

    def y(self, size_bytes: float) -> float:
        return self.bottom - self.height * size_bytes / self.top_bytes


def timeline_svg(series: Series) -> str:
    """A file of its own, with title and legend: 1180 by 552 pixels."""
    width, height = 1180, 552
    frame = _frame(series, left=72, top=106, width=826, height=398)
    parts = [
        f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" class="vt" role="img" aria-label="{escape(_spoken(series))}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="vt-ground" width="{width}" height="{height}"/>',
        _text(frame.left, 32, series.title, "vt-ink vt-title"),
        _text(frame.left, 53, series.subtitle, "vt-muted"),
        *_plot(series, frame),
        *_legend(series, frame.right + 28, frame.top + 4),
        "</svg>\n",
    ]
    return "\n".join(parts)


def plot_svg(series: Series) -> tuple[str, Frame]:
    """The plot alone, for a page that has a title and a legend, and where it lies."""
    width, height = 960, 480
    frame = _frame(series, left=66, top=46, width=878, height=394)
    parts = [
        f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {width} {height}" class="vt" id="plot" '
        f'role="img" tabindex="0" aria-label="{escape(_spoken(series))}">',
        f"<style>{_STYLE}</style>",
        *_plot(series, frame),
        f'<line id="cursor" class="vt-cursor" y1="{frame.top:g}" y2="{frame.bottom:g}" '
        'visibility="hidden"/>',
        "</svg>",
    ]
    return "\n".join(parts), frame


def _frame(series: Series, *, left: float, top: float, width: float, height: float) -> Frame:
    return Frame(
        left=left,
        top=top,
        width=width,
        height=height,
        events=series.events,
        top_bytes=series.top_bytes,
    )


def _spoken(series: Series) -> str:
    peak = series.peak
    if peak is None:
        return f"{series.title}: nothing was allocated"
    return (
        f"{series.title}: {format_bytes(peak.total_bytes)} requested at the peak"
        f"{f', in {peak.event.tags.phase}' if peak.event.tags.phase else ''}"
    )


def _plot(series: Series, frame: Frame) -> Iterator[str]:
    yield from _bands(series, frame)
    yield from _scale(series, frame)
    yield from _areas(series, frame)
    yield from _reserved(series, frame)
    yield (
        f'<line class="vt-edge" x1="{frame.left:g}" x2="{frame.right:g}" '
        f'y1="{frame.bottom:g}" y2="{frame.bottom:g}"/>'
    )
    yield from _budget(series, frame)
    yield from _failure(series, frame)
    yield from _peak(series, frame)
    yield _text(frame.left, frame.bottom + 22, "0", "vt-muted vt-figure", "middle")
    yield _text(frame.right, frame.bottom + 22, f"{series.events:,}", "vt-muted vt-figure", "end")
    middle = frame.left + frame.width / 2
    yield _text(middle, frame.bottom + 22, "allocations and frees, in order", "vt-muted", "middle")


def labelled(bands: tuple[Band, ...], frame: Frame) -> list[tuple[str, float, int]]:
    """Names of phases, the middle of each, and its row from below: 0 or 1.

    The widest phases come first; those whose name has no room in either row go without.
    """
    rows: tuple[list[tuple[float, float]], ...] = ([], [])
    placed = []
    for band in sorted(bands, key=lambda band: band.start - band.end):
        name = band.phase or "start"
        half = len(name) * _LETTER / 2 + 4
        middle = (frame.x(band.start) + frame.x(band.end)) / 2
        middle = min(max(middle, frame.left + half), frame.right - half)
        for row, taken in enumerate(rows):
            if all(middle + half <= low or middle - half >= high for low, high in taken):
                taken.append((middle - half, middle + half))
                placed.append((name, middle, row))
                break
    return placed


def _bands(series: Series, frame: Frame) -> Iterator[str]:
    names = labelled(series.bands, frame)
    strip = frame.top - 22 - _ROW * max((row for _, _, row in names), default=0)
    for number, band in enumerate(series.bands):
        left, right = frame.x(band.start), frame.x(band.end)
        if right - left < 1:
            continue  # not to be seen, and there may be thousands
        if number % 2 == 0:
            yield (
                f'<rect class="vt-band" x="{left:.1f}" y="{strip:g}" '
                f'width="{right - left:.1f}" height="{frame.bottom - strip:g}">'
                f"<title>{escape(band.phase or 'start')}</title></rect>"
            )
        if number:
            yield (
                f'<line class="vt-parting" x1="{left:.1f}" x2="{left:.1f}" '
                f'y1="{strip:g}" y2="{frame.bottom:g}"/>'
            )
    for name, middle, row in names:
        yield _text(middle, frame.top - 7 - _ROW * row, name, "vt-ink vt-strong", "middle")


def _scale(series: Series, frame: Frame) -> Iterator[str]:
    for tick in ticks(series.top_bytes):
        y = frame.y(tick.size_bytes)
        yield (
            f'<line class="vt-grid" x1="{frame.left:g}" x2="{frame.right:g}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        yield _text(frame.left - 8, y + 4, tick.label, "vt-muted vt-figure", "end")


def _areas(series: Series, frame: Frame) -> Iterator[str]:
    """Painted from the top of the stack downwards, each down to the ground."""
    xs = [frame.x(moment.start) for moment in series.moments]
    sums = [0] * len(xs)
    painted = []
    for column, name in enumerate(series.categories):
        sums = [
            below + moment.sizes_bytes[column]
            for below, moment in zip(sums, series.moments, strict=True)
        ]
        steps = _steps(xs, [frame.y(size) for size in sums], frame.right)
        path = f"M{frame.left:g} {frame.bottom:g}{steps}V{frame.bottom:g}Z"
        painted.append(
            f'<path fill="{COLOURS[name]}" d="{path}"><title>{escape(name)}</title></path>'
        )
    yield from reversed(painted)


def _steps(xs: list[float], ys: list[float], end: float) -> str:
    """Each height holds until the next; heights that do not change are left out."""
    parts = []
    last = ""
    for x, y in zip(xs, ys, strict=True):
        height = f"{y:.1f}"
        if height != last:
            parts.append(f"H{x:.1f}V{height}")
            last = height
    return "".join(parts) + f"H{end:.1f}"


def _reserved(series: Series, frame: Frame) -> Iterator[str]:
    known = [
        (moment, moment.reserved_bytes)
        for moment in series.moments
        if moment.reserved_bytes is not None
    ]
    if known:
        xs = [frame.x(moment.start) for moment, _ in known]
        steps = _steps(xs, [frame.y(size) for _, size in known], frame.x(known[-1][0].end))
        yield f'<path class="vt-reserved" d="M{xs[0]:.1f} {frame.bottom:g}{steps}"/>'


def _budget(series: Series, frame: Frame) -> Iterator[str]:
    if series.budget_bytes is None:
        return
    y = frame.top + 16
    if series.draws_budget:
        line = frame.y(series.budget_bytes)
        yield f'<path class="vt-budget" d="M{frame.left:g} {line:.1f}H{frame.right:g}"/>'
        y = line - 6
    yield _text(frame.right - 8, y, series.budget_text, "vt-alarm vt-strong vt-halo", "end")


def _failure(series: Series, frame: Frame) -> Iterator[str]:
    if series.failed_index is None:
        return
    x = frame.x(series.failed_index)
    yield f'<path class="vt-budget" d="M{x:.1f} {frame.top:g}V{frame.bottom:g}"/>'
    near_end = x > frame.right - 110
    yield _text(
        x - 6 if near_end else x + 6,
        frame.bottom - 10,
        "out of memory",
        "vt-alarm vt-strong vt-halo",
        "end" if near_end else "start",
    )


def _peak(series: Series, frame: Frame) -> Iterator[str]:
    peak = series.peak
    if peak is None:
        return
    x, y = frame.x(peak.middle), frame.y(peak.total_bytes)
    near_end = x > frame.right - 120
    side, shift = ("end", -10) if near_end else ("start", 10)
    text = f"peak {format_bytes(peak.total_bytes)}"
    yield f'<circle class="vt-dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    yield _text(x + shift, y + 5, text, "vt-ink vt-strong vt-halo", side)


def _legend(series: Series, left: float, top: float) -> Iterator[str]:
    right, y = left + 226, top
    yield _text(right, y, "at the peak", "vt-muted", "end")
    sizes = series.sizes_at_peak()
    for name, size in reversed(list(zip(series.categories, sizes, strict=True))):
        y += 23
        yield (
            f'<rect x="{left:g}" y="{y - 11:g}" width="13" height="13" rx="3" '
            f'fill="{COLOURS[name]}"/>'
        )
        yield _text(left + 21, y, name, "vt-ink")
        yield _text(right, y, format_bytes(size), "vt-ink vt-figure", "end")
    y += 14
    yield f'<line class="vt-grid" x1="{left:g}" x2="{right:g}" y1="{y:g}" y2="{y:g}"/>'
    rows = [("requested", series.peak_bytes, "")]
    if series.peak_reserved_bytes is not None:
        rows.append(("reserved, most", series.peak_reserved_bytes, "vt-reserved"))
    if series.budget_bytes is not None:
        rows.append(("budget", series.budget_bytes, "vt-budget"))
    for name, size, line in rows:
        y += 23
        if line:
            yield f'<path class="{line}" d="M{left:g} {y - 4:g}h14"/>'
        yield _text(left + 21, y, name, "vt-ink vt-strong" if not line else "vt-ink")
        yield _text(right, y, format_bytes(size), "vt-ink vt-figure", "end")


def _text(x: float, y: float, text: str, classes: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
