"""Memory over a run as one page: the drawing and tables, with no script and no other file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from ftcheck.allocator.conf import format_conf
from ftcheck.report.timeline.drawing import COLOURS, timeline_svg
from ftcheck.report.timeline.series import Series, category
from ftcheck.units import format_bytes, format_count, printable

__all__ = ["timeline_page"]

_LARGEST: Final = 10
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser itself refuses scripts and whatever would be loaded."""
_MORE: Final = (
    "To look at single allocations, write <code>--timeline FILE.pickle</code> and open it at "
    "<code>pytorch.org/memory_viz</code>."
)
_STYLE: Final = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1f2328;--muted:#59636e;--line:#d5dbe1}
@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--ink:#f0f3f6;--muted:#9aa4af;
--line:#30363d}}
body{margin:0 auto;padding:12px 20px 40px;max-width:1000px;background:var(--ground);
color:var(--ink);font:15px/1.5 system-ui,-apple-system,Roboto,Helvetica,"DejaVu Sans",sans-serif}
h1{position:absolute;clip-path:inset(50%)}
svg{display:block;width:100%;max-width:720px;height:auto;margin:0 auto}
table{border-collapse:collapse;width:100%;margin:26px 0}
caption{text-align:left;font-weight:600;padding-bottom:6px}
th,td{padding:5px 18px 5px 0;text-align:left;border-bottom:1px solid var(--line)}
thead th{font-weight:500;color:var(--muted);font-size:13px;white-space:nowrap}
tbody th{font-weight:400;min-width:10em}td{overflow-wrap:anywhere}
.amount{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:9px}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.tables{overflow-x:auto}p{color:var(--muted)}
"""

Row = Sequence[str]


def timeline_page(series: Series) -> str:
    """The page; what a trace says is text in it, never markup."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{_text(series.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        f"<h1>{_text(series.title)}</h1>",
        timeline_svg(series),
        f'<p>{_MORE}</p>\n<div class="tables">',
        *_tables(series),
        "</div>\n</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _text(text: str) -> str:
    return escape(printable(text))


def _tables(series: Series) -> Iterator[str]:
    """Phases, categories and largest blocks at the peak, and settings."""
    yield _table(
        "Peaks by phase",
        ("phase", "#allocated", "#reserved"),
        (
            (
                _text(phase.phase or "start"),
                format_bytes(phase.allocated_bytes),
                format_bytes(phase.reserved_bytes),
            )
            for phase in series.replayed.phases
        ),
    )
    total = max(series.peak_bytes, 1)
    yield _table(
        "Requested at the peak, by category",
        ("category", "#size", "#share"),
        (
            (_chip(name), format_bytes(size), f"{size / total:.1%}")
            for name, size in reversed(series.peak_sizes.items())
        ),
    )
    count = format_count(len(series.blocks))
    yield _table(
        f"Largest of the {count} blocks at the peak",
        ("category", "#size", "#share", "phase", "operation", "module"),
        (
            (
                _chip(category(block.tags)),
                format_bytes(block.size_bytes),
                f"{block.size_bytes / total:.1%}",
                _text(block.tags.phase or "start"),
                f"<code>{_text(block.tags.op)}</code>",
                f"<code>{_text(block.tags.module)}</code>",
            )
            for block in series.blocks[:_LARGEST]
        ),
    )
    yield _table("Settings", ("setting", "#value"), _settings(series))


def _settings(series: Series) -> Iterator[Row]:
    conf = format_conf(series.settings) or "the defaults"
    yield "PYTORCH_ALLOC_CONF", f"<code>{escape(conf)}</code>"
    if series.card is not None:
        yield "GPU", _text(series.card.title)
        yield "memory", format_bytes(series.card.capacity_bytes)
        yield "outside of the allocator", format_bytes(series.card.context_overhead_bytes)
        yield "budget of the allocator", format_bytes(series.card.allocator_bytes)


def _table(caption: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table; columns that begin with # hold amounts, and the first cell names its row."""
    amounts = [' class="amount"' if name.startswith("#") else "" for name in columns]
    head = "".join(
        f'<th scope="col"{kind}>{name.removeprefix("#")}</th>'
        for name, kind in zip(columns, amounts, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], amounts[1:], strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f"<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody>\n</table>"
    )


def _chip(name: str) -> str:
    return f'<i style="background:{COLOURS[name]}"></i>{escape(name)}'
