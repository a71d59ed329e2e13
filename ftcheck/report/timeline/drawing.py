"""Memory over a run, drawn once with matplotlib, as SVG or PNG."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ftcheck.report.timeline.series import CATEGORIES, Phase, Series, short
from ftcheck.units import format_bytes, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "label_phases", "ticks", "timeline_png", "timeline_svg"]

COLOURS: Final = dict(
    zip(
        CATEGORIES,
        (
            *("#2557c7", "#2db0f3", "#964186", "#409152", "#78deaf"),
            *("#973a12", "#fec708", "#e56c1b", "#eac3e9", "#8f8f8f"),
        ),
        strict=True,
    )
)
"""Colour of each category; no two look alike with any kind of colour blindness."""
_GROUND, _BAND, _GRID, _MUTED, _INK = "#ffffff", "#f3f5f7", "#d5dbe1", "#59636e", "#1f2328"
_ALARM: Final = "#c5221f"
_DARK: Final = {
    _GROUND: "#0d1117",
    _BAND: "#171c23",
    _GRID: "#30363d",
    _MUTED: "#9aa4af",
    _INK: "#f0f3f6",
    _ALARM: "#ff8a80",
}
"""What the colours around the areas become where a browser prefers dark pages."""
_FONT: Final = "system-ui,-apple-system,Roboto,Helvetica,'DejaVu Sans',sans-serif"
_DASHES: Final[Any] = (0, (3.5, 1.5))

# Lengths are points. Text of 11 is still legible where the picture is shrunk to 400 pixels.
_WIDTH, _PLOT_HEIGHT, _LEFT, _MARGIN = 540.0, 250.0, 66.0, 16.0
_PLOT_WIDTH: Final = _WIDTH - _LEFT - _MARGIN
_TEXT, _TITLE, _ROW = 11.0, 14.0, 18.0
_LETTER: Final = 6.6
"""Width of an average letter."""
_FARTHEST: Final = 2.0
"""A limit above so many times the highest curve is named and not drawn: it would flatten all."""


class _Limit(NamedTuple):
    """A line across the plot, lowest first."""

    name: str
    size_bytes: int
    colour: str
    line: Any

    @property
    def label(self) -> str:
        """Name and amount."""
        return f"{self.name} {format_bytes(self.size_bytes)}"


class _Entry(NamedTuple):
    """A row of the legend."""

    name: str
    size_bytes: int
    colour: str
    line: Any = ""
    """Style of a line; empty for an area."""


def timeline_svg(series: Series) -> str:
    """The drawing as an SVG element with its own background, for light and for dark pages.

    It refers to nothing, not even to parts of itself.
    """
    text = _render(series, "svg").decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg ") :], flags=re.DOTALL)
    text = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "", 1)
    head = (
        f'<title id="timeline-title">{escape(printable(series.title))}</title>\n'
        f'<desc id="timeline-desc">{escape(" ".join(series.describe()))}</desc>\n'
        f"<style>{_css()}</style>\n"
    )
    label = 'role="img" aria-labelledby="timeline-title timeline-desc"'
    end = text.index(">") + 1
    return f"<svg {label} {text[5:end]}\n{head}{text[end:].lstrip()}"


def timeline_png(series: Series) -> bytes:
    """The drawing as PNG, on white."""
    return _render(series, "png")


def _css() -> str:
    """A font of the system, outlines of marks as in the PNG, and colours for dark pages."""
    dark = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in _DARK.items()
        for part in ("fill", "stroke")
    )
    return (
        f"text{{font-family:{_FONT}!important}}"
        f'[id^="mark"] text{{paint-order:stroke;stroke:{_GROUND};stroke-width:3px}}'
        f"@media (prefers-color-scheme:dark){{{dark}"
        f'[id^="mark"] text{{stroke:{_DARK[_GROUND]}}}}}'
    )


def _render(series: Series, form: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    style: dict[Any, Any] = {
        "font.size": _TEXT,
        "svg.fonttype": "none",
        "svg.hashsalt": "ftcheck",
        "text.parse_math": False,
    }
    metadata = dict.fromkeys(("Date", "Creator") if form == "svg" else ("Software",))
    # In an SVG this would turn text into paths; there the style sheet does the same.
    outline = [withStroke(linewidth=3, foreground=_GROUND)] if form == "png" else None
    content = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # whatever style the user has
        matplotlib.rcParams.update(style)
        # Browsers have fonts for letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(facecolor=_GROUND)
        _draw(figure, series, {"path_effects": outline})
        figure.savefig(content, format=form, dpi=150, metadata=metadata)
    return content.getvalue()


def _draw(figure: Figure, series: Series, outline: dict[str, Any]) -> None:
    """Title, verdict, names of the phases, plot and legend, from top to bottom."""
    title = textwrap.wrap(printable(series.title), 54, max_lines=2, placeholder=" …")
    verdict = [line for text in series.describe() for line in _wrap(text)]
    names = label_phases(series.phases, series.events)
    legend = list(_legend(series))
    strip = _ROW * (1 + max((row for _, _, row in names), default=0))
    top = 26 + 20 * len(title) + 16 * len(verdict) + strip
    height = top + _PLOT_HEIGHT + 54 + _ROW * math.ceil(len(legend) / 2)
    figure.set_size_inches(_WIDTH / 72, height / 72)
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
    page.set_axis_off()
    for number, line in enumerate(title):
        page.text(_MARGIN, 28 + 20 * number, line, size=_TITLE, weight="bold", color=_INK)
    for number, line in enumerate(verdict):
        page.text(_MARGIN, 26 + 20 * len(title) + 16 * number, line, color=_MUTED)
    bottom = 1 - (top + _PLOT_HEIGHT) / height
    box = (_LEFT / _WIDTH, bottom, _PLOT_WIDTH / _WIDTH, _PLOT_HEIGHT / height)
    plot = figure.add_axes(box, facecolor="none")
    _draw_axes(plot, series)
    _draw_phases(plot, series.phases, names, strip)
    _draw_curves(plot, series)
    _draw_limits(plot, series, outline)
    _draw_marks(plot, series, outline)
    _draw_legend(page, legend, top + _PLOT_HEIGHT + 48)


def _wrap(text: str) -> list[str]:
    """Lines of the width of the picture; amounts stay with their units."""
    whole = re.sub(r"(?<=\d) (?=[KMGT]?i?B\b)", "\u00a0", text)
    return textwrap.wrap(whole, 76, max_lines=2, placeholder=" …")


def _limits(series: Series) -> list[_Limit]:
    """What the allocator may take and the memory of the card, where there is one."""
    if series.card is None:
        return []
    return [
        _Limit("budget", series.card.allocator_bytes, _ALARM, _DASHES),
        _Limit("GPU", series.card.capacity_bytes, _MUTED, "-"),
    ]


def _highest(series: Series) -> int:
    """The highest point of the curves; at least 1."""
    return max(series.peak_bytes, series.replayed.peak_reserved_bytes, 1)


def _is_drawn(limit: _Limit, series: Series) -> bool:
    return limit.size_bytes <= _FARTHEST * _highest(series)


def ticks(top_bytes: float) -> list[tuple[float, str]]:
    """About five round amounts from 0 to the top, with labels in the unit that suits the top."""
    units = (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1), ("B", 0))
    unit, factor = next((n, 1024**p) for n, p in units if top_bytes >= 1024**p or not p)
    rough = top_bytes / factor / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    count = int(top_bytes / factor / step)
    return [(number * step * factor, f"{number * step:g} {unit}") for number in range(count + 1)]


def _draw_axes(plot: Axes, series: Series) -> None:
    limits = [limit.size_bytes for limit in _limits(series) if _is_drawn(limit, series)]
    top = 1.09 * max(_highest(series), *limits, 0)
    end = max(series.events, 1)
    plot.set(xlim=(0, end), ylim=(0, top), axisbelow=True)
    plot.set_yticks(*zip(*ticks(top), strict=True))
    plot.set_xticks([0, end], ["0", f"{series.events:,}"])
    first, last = plot.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    plot.set_xlabel("allocations and frees, in order", color=_MUTED, labelpad=-11)
    plot.tick_params(left=False, bottom=False, pad=6, labelcolor=_MUTED)
    plot.grid(axis="y", color=_GRID, lw=0.8, clip_on=False)
    for side in ("top", "right", "left"):
        plot.spines[side].set_visible(False)
    plot.spines["bottom"].set_color(_MUTED)


def label_phases(phases: Sequence[Phase], events: int) -> list[tuple[str, float, int]]:
    """Names of phases, the event in the middle of each name, and its row from below, up to 2.

    The longest phases come first; those whose name has no room in any row go without.
    """
    point = events / _PLOT_WIDTH
    rows: tuple[list[tuple[float, float]], ...] = ([], [], [])
    placed = []
    for phase in sorted(phases, key=lambda phase: phase.start - phase.end):
        name = short(phase.name or "start")
        half = (len(name) * _LETTER / 2 + 4) * point
        middle = min(max((phase.start + phase.end) / 2, half), events - half)
        for row, taken in enumerate(rows):
            if all(middle + half <= low or middle - half >= high for low, high in taken):
                taken.append((middle - half, middle + half))
                placed.append((name, middle, row))
                break
    return placed


def _draw_phases(
    plot: Axes, phases: Sequence[Phase], names: Sequence[tuple[str, float, int]], strip: float
) -> None:
    """Bands behind every second phase, and the names above the plot."""
    top = 1 + strip / _PLOT_HEIGHT
    for number, phase in enumerate(phases):
        if (phase.end - phase.start) * _PLOT_WIDTH < phases[-1].end:
            continue  # narrower than a point, and there may be thousands
        if number % 2 == 0:
            place = (phase.start, phase.end)
            plot.axvspan(*place, ymax=top, color=_BAND, lw=0, zorder=0, clip_on=False)
        if number:
            plot.axvline(phase.start, ymax=top, color=_GRID, lw=0.8, zorder=0, clip_on=False)
    for name, middle, row in names:
        y = 1 + (5 + _ROW * row) / _PLOT_HEIGHT
        transform = plot.get_xaxis_transform()
        plot.text(middle, y, name, transform=transform, ha="center", color=_INK)


def _draw_curves(plot: Axes, series: Series) -> None:
    """Categories from the top of the stack to its bottom, each down to the axis; then reserved."""
    sums = accumulate(series.sizes.values(), lambda below, sizes: tuple(map(add, below, sizes)))
    for name, heights in reversed(list(zip(series.sizes, sums, strict=True))):
        values, edges = _steps(heights, series.edges)
        gid = f"area-{name.replace(' ', '-')}"
        plot.stairs(
            values, edges, fill=True, color=COLOURS[name], lw=0, zorder=2, clip_on=False, gid=gid
        )
    if series.reserved:
        end = series.replayed.failed_index or series.edges[len(series.reserved)]
        values, edges = _steps(series.reserved, (*series.edges[: len(series.reserved)], end))
        plot.stairs(
            values,
            edges,
            baseline=None,
            color=_INK,
            lw=1.4,
            zorder=3,
            clip_on=False,
            gid="reserved",
        )


def _steps(values: Sequence[int], edges: Sequence[int]) -> tuple[list[int], list[int]]:
    """The same steps, with equal neighbours as one."""
    starts = [n for n in range(len(values)) if n == 0 or values[n] != values[n - 1]]
    return [values[n] for n in starts], [*(edges[n] for n in starts), edges[-1]]


def _draw_limits(plot: Axes, series: Series, outline: dict[str, Any]) -> None:
    """Lines, with labels above them at the end where the peak is not."""
    limits = _limits(series)
    drawn = [limit for limit in limits if _is_drawn(limit, series)]
    top = plot.get_ylim()[1]
    is_left = series.peak_index > series.events / 2
    end, shift, side = (0, 6, "left") if is_left else (series.events, -6, "right")
    for limit in drawn:
        style: dict[str, Any] = {"color": limit.colour, "lw": 1.4, "ls": limit.line, "zorder": 4}
        plot.axhline(limit.size_bytes, clip_on=False, **style)
        # The lower one has its label below where there is no room between the two.
        above = (drawn[-1].size_bytes - limit.size_bytes) * _PLOT_HEIGHT / top
        rise, va = (-4, "top") if 0 < above < 24 else (3, "bottom")
        place = (end, limit.size_bytes)
        _label(
            plot, limit.label, place, (shift, rise), ha=side, va=va, color=limit.colour, **outline
        )
    if limits and not drawn:
        text = f"{limits[0].label}, above this scale ↑"
        style = {"ha": side, "va": "top", "color": limits[0].colour, **outline}
        _label(plot, text, (end, top), (shift, -4), **style)


def _draw_marks(plot: Axes, series: Series, outline: dict[str, Any]) -> None:
    """The peak, and where memory ran out."""
    from matplotlib.patches import Ellipse

    style: dict[str, Any] = {"weight": "bold", **outline}
    events, top = plot.get_xlim()[1], plot.get_ylim()[1]
    if series.peak_event is not None:
        part = bisect_right(series.edges, series.peak_index)
        place = sum(series.edges[part - 1 : part + 1]) / 2, series.peak_bytes
        size = 7 * events / _PLOT_WIDTH, 7 * top / _PLOT_HEIGHT
        dot: dict[str, Any] = {"fc": _GROUND, "ec": _INK, "lw": 1.6, "zorder": 6, "clip_on": False}
        plot.add_patch(Ellipse(place, *size, **dot))
        reserved = series.reserved[part - 1] if part <= len(series.reserved) else 0
        # A line of what is reserved would cross text beside the dot.
        is_close = 0 <= (reserved - series.peak_bytes) * _PLOT_HEIGHT < 8 * top
        text = f"peak {format_bytes(series.peak_bytes)}"
        _mark(plot, text, place, 6 if is_close else -4, color=_INK, **style)
    if (failed := series.replayed.failed_index) is not None:
        plot.axvline(failed, color=_ALARM, lw=1.4, ls=_DASHES, zorder=4, clip_on=False)
        _mark(plot, "out of memory", (failed, 0), 8, color=_ALARM, **style)


def _mark(plot: Axes, text: str, place: tuple[float, float], rise: float, **style: Any) -> None:
    """Text beside a point, on the side with more room."""
    is_left = place[0] > 0.7 * plot.get_xlim()[1]
    shift, side = (-8, "right") if is_left else (8, "left")
    _label(plot, text, place, (shift, rise), ha=side, **style)


def _label(
    plot: Axes, text: str, place: tuple[float, float], shift: tuple[float, float], **style: Any
) -> None:
    """Text at a distance from a point, which is outlined above curves."""
    where: dict[str, Any] = {"xytext": shift, "textcoords": "offset points", "zorder": 7}
    plot.annotate(text, place, gid=f"mark-{text.split(maxsplit=1)[0]}", **where, **style)


def _legend(series: Series) -> Iterator[_Entry]:
    yield _Entry("requested at the peak", series.peak_bytes, "")
    for name, size in reversed(series.peak_sizes.items()):
        yield _Entry(name, size, COLOURS[name])
    if series.reserved:
        yield _Entry("reserved, at most", series.replayed.peak_reserved_bytes, _INK, "-")
    for limit in _limits(series):
        yield _Entry(limit.name, limit.size_bytes, limit.colour, limit.line)


def _draw_legend(page: Axes, entries: Sequence[_Entry], y: float) -> None:
    """Two columns: categories with their bytes at the peak, then the lines."""
    rows = math.ceil(len(entries) / 2)
    width = (_WIDTH - 2 * _MARGIN - 24) / 2
    for number, entry in enumerate(entries):
        column, row = divmod(number, rows)
        x, middle = _MARGIN + column * (width + 24), y + row * _ROW
        if entry.line:
            page.plot(
                [x, x + 18], [middle] * 2, color=entry.colour, ls=entry.line, lw=1.4, clip_on=False
            )
        elif entry.colour:
            square = ([x + 4, x + 14, x + 14, x + 4], [middle - 5] * 2 + [middle + 5] * 2)
            page.fill(*square, color=entry.colour, lw=0, clip_on=False)
        name_x = x + 26 if entry.colour else x
        page.text(name_x, middle, entry.name, color=_INK, va="center_baseline")
        amount = format_bytes(entry.size_bytes)
        page.text(x + width, middle, amount, color=_INK, va="center_baseline", ha="right")
