"""Memory over a run as one page: what it shows, and that it needs and lets in nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.trace import TraceRecorder
from ftcheck.report.timeline.page import timeline_page
from ftcheck.report.timeline.series import Series
from tests.report.test_timeline import MIB, NASTY, NASTY_PHASE, SAVED, run, series


class Page(HTMLParser):
    """Elements of a page with their attributes and texts, and its tables by caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, [])
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag in ("td", "th"):
            list(self.tables.values())[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        if not self._open or not data.strip():
            return
        self.texts[self._open].append(data)
        if self._open == "caption":
            self.tables[data] = []
        elif self._open in ("td", "th", "i", "code") and self.tables:
            list(self.tables.values())[-1][-1][-1] += data


def test_the_page_needs_nothing_else() -> None:
    text = timeline_page(series(run(), 300))
    page = Page(text)
    assert {"svg", "table", "style"} <= {tag for tag, _ in page.found}
    outside = {"src", "href", "action", "data", "srcset", "xlink:href"}
    assert not [(tag, attrs) for tag, attrs in page.found if outside & set(attrs)]
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in page.found}
    assert not [name for _, attributes in page.found for name in attributes if name[:2] == "on"]
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in text
    policy = next(a for t, a in page.found if t == "meta" and "http-equiv" in a)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_a_trace_says_is_no_markup() -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, 100, NASTY)
    drawn = Series.of(recorder.finish(), title="<img src=x>\x1b[2J")
    text = timeline_page(drawn)
    page = Page(text)
    assert NASTY.module in page.texts["code"]
    assert "a<b&c\\x00" in page.texts["code"]
    tags = [tag for tag, _ in page.found]
    assert not {"script", "img", "b"} & set(tags)
    assert tags.count("i") == 2  # the colour of the category, in two tables
    assert page.texts["h1"] == ["<img src=x>\\x1b[2J"]
    assert NASTY_PHASE in page.texts["text"]
    assert [row[0] for row in page.tables["Peaks by phase"]] == ["phase", NASTY_PHASE]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_peaks_by_phase() -> None:
    page = Page(timeline_page(series(run())))
    assert page.tables["Peaks by phase"] == [
        ["phase", "allocated", "reserved"],
        ["load", "100.00 MiB", "100.00 MiB"],
        ["step 1", "200.00 MiB", "200.00 MiB"],
        [NASTY_PHASE, "170.00 MiB", "200.00 MiB"],
        ["start", "130.00 MiB", "200.00 MiB"],
    ]


def test_categories_at_the_peak() -> None:
    page = Page(timeline_page(series(run())))
    assert page.tables["Requested at the peak, by category"] == [
        ["category", "size", "share"],
        ["other", "0 B", "0.0%"],
        ["saved activations", "100.00 MiB", "50.0%"],
        ["base weights", "100.00 MiB", "50.0%"],
    ]


def test_the_largest_blocks_are_listed() -> None:
    recorder = TraceRecorder()
    for number in range(14):
        recorder.allocate(number, (number + 1) * MIB, SAVED)
    rows = Page(timeline_page(series(recorder.finish()))).tables[
        "Largest of the 14 blocks at the peak"
    ]
    assert rows[0] == ["category", "size", "share", "phase", "operation", "module"]
    assert [row[1] for row in rows[1:]] == [f"{size}.00 MiB" for size in range(14, 4, -1)]
    assert rows[1][2] == f"{14 / 105:.1%}"
    assert rows[1][3:] == ["step 1", "aten::gelu", "h.0.mlp.act"]


def test_settings_and_the_card() -> None:
    rows = dict(Page(timeline_page(series(run(), 300))).tables["Settings"][1:])
    assert rows == {
        "PYTORCH_ALLOC_CONF": "the defaults",
        "GPU": "a card with 1.00 GiB",
        "memory": "320.00 MiB",
        "outside of the allocator": "20.00 MiB",
        "budget of the allocator": "300.00 MiB",
    }
    growing = Series.of(run(), title="x", settings=AllocatorSettings(expandable_segments=True))
    rows = dict(Page(timeline_page(growing)).tables["Settings"][1:])
    assert rows == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


@pytest.mark.parametrize(
    ("mib", "says"),
    [
        (250, "Peak: 200.00 MiB requested in step 1, 200.00 MiB reserved. 50.00 MiB below the "),
        (200, "Peak: 200.00 MiB requested in step 1, 200.00 MiB reserved. 0 B below the budget."),
        (
            170,
            "Out of memory on a request of 40.00 MiB in step 1, event 3 of 7, with 160.00 MiB "
            "reserved. Peak: 200.00 MiB requested in step 1.",
        ),
        (None, "Peak: 200.00 MiB requested in step 1, 200.00 MiB reserved."),
    ],
)
def test_the_page_gives_a_verdict(mib: int | None, says: str) -> None:
    page = Page(timeline_page(series(run(), mib)))
    assert page.texts["desc"][0].startswith(says)


def test_the_page_names_the_viewer_of_single_allocations() -> None:
    text = timeline_page(series(run()))
    assert "<code>--timeline FILE.pickle</code> and open it at <code>pytorch.org/memory_viz" in text
