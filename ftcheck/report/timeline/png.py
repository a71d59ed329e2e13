"""Memory over a run as a PNG, drawn by matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ftcheck.report.timeline.series import COLOURS, Series, ticks
from ftcheck.report.timeline.svg import Frame, labelled
from ftcheck.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["timeline_png"]

_INK, _MUTED, _GRID, _ALARM, _BAND = "#1f2328", "#656d76", "#d8dee4", "#cf222e", "#f2f3f5"
_DPI = 150
_ROW = 0.043
"""Height of a row of names, as a share of the plot."""


def timeline_png(series: Series) -> bytes:
    """1800 by 855 pixels, on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.7), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.062, 0.105, 0.695, 0.7))
    axes.set_xlim(0, max(series.events, 1))
    axes.set_ylim(0, series.top_bytes)
    _furniture(axes, series)
    _bands(axes, series)
    _curves(axes, series)
    _marks(axes, series)
    _legend(axes, series)
    left = 0.062
    figure.text(left, 0.945, series.title, fontsize=13, fontweight="bold", color=_INK)
    figure.text(left, 0.905, series.subtitle, fontsize=9, color=_MUTED)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    return png.getvalue()


def _furniture(axes: Axes, series: Series) -> None:
    scale = ticks(series.top_bytes)
    axes.set_yticks([tick.size_bytes for tick in scale], [tick.label for tick in scale])
    axes.set_xticks([0, max(series.events, 1)], ["0", f"{series.events:,}"])
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("allocations and frees, in order", color=_MUTED, fontsize=9, labelpad=-7)
    axes.tick_params(length=0, labelsize=9, labelcolor=_MUTED)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#8c959f")


def _bands(axes: Axes, series: Series) -> None:
    # Names are laid out as in the SVG; letters are wider here.
    frame = Frame(left=0, top=0, width=740, height=1, events=series.events, top_bytes=1)
    names = labelled(series.bands, frame)
    strip = 1.056 + _ROW * max((row for _, _, row in names), default=0)
    for number, band in enumerate(series.bands):
        if (band.end - band.start) * frame.width < series.events:
            continue  # narrower than a pixel
        if number % 2 == 0:
            axes.axvspan(
                band.start, band.end, ymax=strip, color=_BAND, linewidth=0, zorder=0, clip_on=False
            )
        if number:
            axes.axvline(
                band.start,
                ymax=strip,
                color="#8c959f",
                linewidth=0.8,
                linestyle=(0, (2, 3)),
                zorder=1,
                clip_on=False,
            )
    for name, middle, row in names:
        axes.text(
            middle / frame.width,
            1.014 + _ROW * row,
            name,
            transform=axes.transAxes,
            ha="center",
            va="bottom",
            fontsize=9,
            fontweight="bold",
            color=_INK,
        )


def _curves(axes: Axes, series: Series) -> None:
    xs = [*(moment.start for moment in series.moments), series.events]
    if series.categories:
        columns = list(zip(*(moment.sizes_bytes for moment in series.moments), strict=True))
        axes.stackplot(
            xs,
            [[*column, column[-1]] for column in columns],
            colors=[COLOURS[name] for name in series.categories],
            step="post",
            linewidth=0,
            zorder=2,
        )
    known = [moment for moment in series.moments if moment.reserved_bytes is not None]
    if known:
        sizes = [moment.reserved_bytes or 0 for moment in known]
        axes.plot(
            [known[0].start, *(moment.start for moment in known), known[-1].end],
            [0, *sizes, sizes[-1]],
            drawstyle="steps-post",
            color=_INK,
            linewidth=1.2,
            zorder=3,
        )


def _marks(axes: Axes, series: Series) -> None:
    from matplotlib.patheffects import withStroke

    halo: dict[str, Any] = {
        "path_effects": [withStroke(linewidth=3, foreground="white")],
        "fontsize": 9,
        "fontweight": "bold",
        "zorder": 6,
    }
    dashes: Any = (0, (5, 3))
    if series.budget_bytes is not None:
        y, shift = series.top_bytes, -14
        if series.draws_budget:
            y, shift = series.budget_bytes, 4
            axes.axhline(y, color=_ALARM, linewidth=1.4, linestyle=dashes, zorder=4)
        axes.annotate(
            series.budget_text,
            (max(series.events, 1), y),
            xytext=(-6, shift),
            textcoords="offset points",
            ha="right",
            color=_ALARM,
            **halo,
        )
    if series.failed_index is not None:
        axes.axvline(series.failed_index, color=_ALARM, linewidth=1.4, linestyle=dashes, zorder=4)
        near_end = series.failed_index > 0.87 * series.events
        axes.annotate(
            "out of memory",
            (series.failed_index, 0),
            xytext=(-5 if near_end else 5, 7),
            textcoords="offset points",
            ha="right" if near_end else "left",
            color=_ALARM,
            **halo,
        )
    if series.peak is not None:
        x, y = series.peak.middle, series.peak.total_bytes
        axes.plot(
            x,
            y,
            "o",
            color="white",
            markeredgecolor=_INK,
            markersize=5.5,
            markeredgewidth=1.5,
            zorder=5,
        )
        near_end = x > 0.87 * series.events
        axes.annotate(
            f"peak {format_bytes(y)}",
            (x, y),
            xytext=(-7 if near_end else 7, -3),
            textcoords="offset points",
            ha="right" if near_end else "left",
            color=_INK,
            **halo,
        )


def _legend(axes: Axes, series: Series) -> None:
    left, right, y, row = 1.035, 1.328, 0.985, 0.057

    def write(x: float, text: str, **more: Any) -> None:
        axes.text(x, y, text, transform=axes.transAxes, va="center", fontsize=9.5, **more)

    write(right, "at the peak", ha="right", color=_MUTED)
    sizes = series.sizes_at_peak()
    for name, size in reversed(list(zip(series.categories, sizes, strict=True))):
        y -= row
        axes.plot(
            left + 0.008,
            y,
            "s",
            markersize=8,
            color=COLOURS[name],
            transform=axes.transAxes,
            clip_on=False,
        )
        write(left + 0.03, name, color=_INK)
        write(right, format_bytes(size), ha="right", color=_INK)
    y -= row * 0.62
    axes.plot(
        [left, right], [y, y], color=_GRID, linewidth=0.8, transform=axes.transAxes, clip_on=False
    )
    y += row * 0.38 - row * 0.2
    rows: list[tuple[str, int, str, Any]] = [("requested", series.peak_bytes, "", "-")]
    if series.peak_reserved_bytes is not None:
        rows.append(("reserved, most", series.peak_reserved_bytes, _INK, "-"))
    if series.budget_bytes is not None:
        rows.append(("budget", series.budget_bytes, _ALARM, (0, (3, 1.5))))
    for name, size, colour, style in rows:
        y -= row
        if colour:
            axes.plot(
                [left, left + 0.018],
                [y, y],
                color=colour,
                linestyle=style,
                linewidth=1.4,
                transform=axes.transAxes,
                clip_on=False,
            )
        write(left + 0.03, name, color=_INK, fontweight="normal" if colour else "bold")
        write(right, format_bytes(size), ha="right", color=_INK)
