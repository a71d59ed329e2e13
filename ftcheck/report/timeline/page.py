"""Memory over a run as one page that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

from ftcheck.allocator.trace import Tags
from ftcheck.report.timeline.series import COLOURS, Series, category
from ftcheck.report.timeline.svg import Frame, plot_svg
from ftcheck.units import format_bytes

__all__ = ["timeline_page"]

_LARGEST: Final = 10
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser itself refuses what would leave the page."""

_STYLE: Final = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1f2328;--muted:#656d76;--line:#d8dee4;
--raised:#f6f8fa;--alarm:#cf222e;--good:#1a7f37}
@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--ink:#e6edf3;--muted:#8d96a0;
--line:#2a313a;--raised:#161b22;--alarm:#ff7b72;--good:#3fb950}}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 32px 48px;max-width:1380px;background:var(--ground);
color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
sans-serif}
h1{font-size:21px;margin:0}h2{font-size:15px;margin:32px 0 8px}p{margin:2px 0;color:var(--muted)}
.figures{display:flex;flex-wrap:wrap;gap:10px 40px;margin:18px 0 20px}
.figures div{display:flex;flex-direction:column}
.figures b{font-size:20px;font-weight:600;font-variant-numeric:tabular-nums}
.figures span{color:var(--muted);font-size:12.5px}
.alarm b{color:var(--alarm)}.good b{color:var(--good)}
main{display:grid;grid-template-columns:minmax(0,1fr) 304px;gap:28px;align-items:start}
#plot{width:100%;height:auto;display:block;cursor:crosshair;border-radius:6px}
#plot:focus-visible{outline:2px solid #4269d0;outline-offset:4px}
aside{background:var(--raised);border:1px solid var(--line);border-radius:8px;padding:14px 16px}
#when{font-weight:600}#what{font-size:12.5px;height:7.7em;overflow:hidden;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}td,th{padding:4px 0;text-align:left}
th{font-weight:500;color:var(--muted);font-size:12.5px}
.amount{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.chip{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:9px}
.stroke{display:inline-block;width:14px;border-top:2px solid;margin:0 7px 4px 0}
.dashed{border-top-style:dashed;color:var(--alarm)}
aside .sum td{border-top:1px solid var(--line);font-weight:600}
.wide{overflow-x:auto}.blocks td,.blocks th{padding:6px 18px 6px 0;
border-bottom:1px solid var(--line);white-space:nowrap}.blocks .amount{padding-right:24px}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:980px){main{grid-template-columns:minmax(0,1fr)}
#what{height:auto;min-height:3.2em}}
footer{margin-top:26px;font-size:12.5px;color:var(--muted)}
"""

_SCRIPT: Final = """
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const plot = document.getElementById('plot'), cursor = document.getElementById('cursor');
const show = (id, text) => { document.getElementById(id).textContent = text; };
const count = (number) => number.toLocaleString('en');
const bytes = (amount) => {
  for (const [unit, factor] of [['TiB', 2 ** 40], ['GiB', 2 ** 30], ['MiB', 2 ** 20],
    ['KiB', 2 ** 10]])
    if (amount >= factor) return (amount / factor).toFixed(2) + ' ' + unit;
  return amount + ' B';
};
const at = (index) => {
  let low = 0, high = data.start.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (data.start[middle] <= index) low = middle; else high = middle - 1;
  }
  return low;
};
let chosen = data.peak;
const put = (moment, hovering) => {
  chosen = moment;
  let total = 0;
  data.sizes.forEach((sizes, column) => {
    total += sizes[moment];
    show('size-' + column, bytes(sizes[moment]));
  });
  show('total', bytes(total));
  if (data.held) {
    const held = data.held[moment];
    show('held', held === null ? 'ran out before' : bytes(held));
  }
  const [phase, op, module, size] = data.what[moment].map((entry) => data.names[entry]);
  show('when', hovering ? phase || 'start' : 'At the peak');
  show('what', (hovering ? '' : (phase || 'start') + '. ') + 'After event ' +
    count(data.index[moment] + 1) + ' of ' + count(data.events) + ': ' + size +
    (op ? ' by ' + op : '') + (module ? ' in ' + module : ''));
  const x = data.left + data.width * data.middle[moment] / data.events;
  cursor.setAttribute('x1', x);
  cursor.setAttribute('x2', x);
  cursor.setAttribute('visibility', hovering ? 'visible' : 'hidden');
};
if (data.index.length) {
  plot.addEventListener('pointermove', (event) => {
    const box = plot.getBoundingClientRect();
    const x = (event.clientX - box.left) * 960 / box.width;
    put(at((x - data.left) / data.width * data.events), true);
  });
  plot.addEventListener('pointerleave', () => put(data.peak, false));
  plot.addEventListener('blur', () => put(data.peak, false));
  plot.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -50, PageDown: 50 }[event.key];
    if (!step) return;
    event.preventDefault();
    put(Math.min(Math.max(chosen + step, 0), data.index.length - 1), true);
  });
  put(data.peak, false);
}
"""


def timeline_page(series: Series) -> str:
    """The page; what a trace says is text in it, never markup."""
    svg, frame = plot_svg(series)
    # "<" inside of a script element could end it.
    data = json.dumps(_data(series, frame), separators=(",", ":")).replace("<", "\\u003c")
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(series.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(series.title)}</h1>\n<p>{escape(series.subtitle)}</p>",
        '<div class="figures">',
        *_figures(series),
        "</div>\n<main>\n<div>",
        svg,
        "</div>\n<aside>",
        *_panel(series),
        "</aside>\n</main>",
        *_blocks(series),
        "<footer>Point at the plot, or focus it and use the arrow keys, to see what was held at "
        "that moment. Of every part of the run the fullest moment is shown.</footer>",
        f'<script type="application/json" id="data">{data}</script>',
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _figures(series: Series) -> Iterator[str]:
    peak, reserved, budget = series.peak, series.peak_reserved_bytes, series.budget_bytes
    if peak is not None:
        tags = peak.event.tags
        where = f"requested at the peak, in {tags.phase}" if tags.phase else "requested at the peak"
        yield _figure(format_bytes(peak.total_bytes), where)
    if reserved is not None:
        until = "reserved until it ran out" if series.failed_index is not None else "reserved"
        yield _figure(format_bytes(reserved), f"{until}, at most")
    if budget is None:
        return
    yield _figure(format_bytes(budget), "budget")
    if series.failed_index is not None:
        yield _figure("out of memory", _where(series), "alarm")
    else:
        most = reserved if reserved is not None else series.highest_bytes
        spare = budget - most
        what = "below the budget" if spare >= 0 else "above the budget"
        yield _figure(format_bytes(abs(spare)), what, "good" if spare >= 0 else "alarm")


def _where(series: Series) -> str:
    """Where memory ran out."""
    assert series.failed is not None
    assert series.failed_index is not None
    tags = series.failed.tags
    phase = f", in {tags.phase}" if tags.phase else ""
    return f"at event {series.failed_index + 1:,}{phase}{f', by {tags.op}' if tags.op else ''}"


def _figure(value: str, label: str, kind: str = "") -> str:
    return f'<div class="{kind}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _panel(series: Series) -> Iterator[str]:
    yield '<div id="when">At the peak</div><p id="what"></p>\n<table>'
    sizes = series.sizes_at_peak()
    for column in reversed(range(len(series.categories))):
        name = series.categories[column]
        yield (
            f"<tr><td>{_chip(name)}{escape(name)}</td>"
            f'<td class="amount" id="size-{column}">{format_bytes(sizes[column])}</td></tr>'
        )
    yield (
        '<tr class="sum"><td>requested</td>'
        f'<td class="amount" id="total">{format_bytes(series.peak_bytes)}</td></tr>'
    )
    if series.peak_reserved_bytes is not None:
        held = series.peak.reserved_bytes if series.peak is not None else None
        text = "ran out before" if held is None else format_bytes(held)
        yield (
            '<tr><td><span class="stroke"></span>reserved</td>'
            f'<td class="amount" id="held">{text}</td></tr>'
        )
    if series.budget_bytes is not None:
        yield (
            '<tr><td><span class="stroke dashed"></span>budget</td>'
            f'<td class="amount">{format_bytes(series.budget_bytes)}</td></tr>'
        )
    yield "</table>"


def _blocks(series: Series) -> Iterator[str]:
    if series.peak is None or not series.blocks:
        return
    total = series.peak_bytes
    shown = series.blocks[:_LARGEST]
    yield (
        f"<h2>The {len(shown)} largest of {len(series.blocks):,} blocks alive at the peak</h2>"
        '\n<div class="wide"><table class="blocks">\n<tr><th class="amount">size</th>'
        '<th class="amount">of the peak</th><th>category</th><th>phase</th>'
        "<th>operation</th><th>module</th></tr>"
    )
    for event in shown:
        name = category(event.tags)
        share = event.size_bytes / total if total else 0.0
        yield (
            f'<tr><td class="amount">{format_bytes(event.size_bytes)}</td>'
            f'<td class="amount">{share:.1%}</td><td>{_chip(name)}{escape(name)}</td>'
            f"{_cells(event.tags)}</tr>"
        )
    yield "</table></div>"


def _cells(tags: Tags) -> str:
    return (
        f"<td>{escape(tags.phase or 'start')}</td><td><code>{escape(tags.op)}</code></td>"
        f"<td><code>{escape(tags.module)}</code></td>"
    )


def _chip(name: str) -> str:
    return f'<span class="chip" style="background:{COLOURS[name]}"></span>'


def _data(series: Series, frame: Frame) -> dict[str, Any]:
    """What the script shows; texts are stored once."""
    numbers: dict[str, int] = {}
    what = []
    held = [moment.reserved_bytes for moment in series.moments]
    for moment in series.moments:
        event = moment.event
        verb = "allocated" if event.action == "alloc" else "freed"
        texts = (
            event.tags.phase,
            event.tags.op,
            event.tags.module,
            f"{format_bytes(event.size_bytes)} {verb}",
        )
        what.append([numbers.setdefault(text, len(numbers)) for text in texts])
    return {
        "events": series.events,
        "left": frame.left,
        "width": frame.width,
        "index": [moment.index for moment in series.moments],
        "start": [moment.start for moment in series.moments],
        "middle": [moment.middle for moment in series.moments],
        "sizes": [
            [moment.sizes_bytes[column] for moment in series.moments]
            for column in range(len(series.categories))
        ],
        "held": None if series.peak_reserved_bytes is None else held,
        "what": what,
        "names": list(numbers),
        "peak": series.moments.index(series.peak) if series.peak is not None else 0,
    }
