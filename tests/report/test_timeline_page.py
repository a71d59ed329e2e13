"""Memory over a run as one page: what it shows, and that it needs and lets in nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from ftcheck.allocator.trace import TraceRecorder
from ftcheck.report.timeline.page import timeline_page
from ftcheck.report.timeline.series import Series
from tests.report.test_timeline import MIB, NASTY, SAVED, run, series


class Page(HTMLParser):
    """Elements of a page with their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, [])

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.texts[self._open].append(data)

    def data(self) -> Any:
        return json.loads(self.texts["script"][0])


def test_the_page_needs_nothing_else() -> None:
    text = timeline_page(series(run(), 300 * MIB))
    page = Page(text)
    assert {"svg", "table", "script", "style"} <= {tag for tag, _ in page.found}
    outside = {"src", "href", "action", "data", "srcset", "xlink:href"}
    assert not [(tag, attrs) for tag, attrs in page.found if outside & set(attrs)]
    assert not {"link", "iframe", "object", "img"} & {tag for tag, _ in page.found}
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in text
    policy = next(a for t, a in page.found if t == "meta" and "http-equiv" in a)
    assert str(policy["content"]).startswith("default-src 'none'")


def test_what_a_trace_says_is_no_markup() -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, 100, NASTY)
    drawn = Series.of(recorder.finish(), title="<img src=x>")
    page = Page(timeline_page(drawn))
    assert NASTY.module in page.texts["code"]
    tags = [tag for tag, _ in page.found]
    assert tags.count("script") == 2
    assert not {"img", "i"} & set(tags)
    assert tags.count("b") == 1  # the figure of the peak
    assert "<img src=x>" in page.texts["h1"][0]
    assert 'x"></script><i>' in page.data()["names"]


def test_the_data_behind_the_plot() -> None:
    data = Page(timeline_page(series(run(), 170 * MIB, 170 * MIB))).data()
    assert data["events"] == 7
    assert data["sizes"][0] == [100 * MIB] * 7
    assert data["sizes"][1] == [MIB * size for size in (0, 60, 100, 40, 40, 0, 0)]
    assert data["held"] == [100 * MIB, 160 * MIB, 160 * MIB, None, None, None, None]
    assert data["peak"] == 2
    assert [data["names"][number] for number in data["what"][1]] == [
        "step 1",
        "aten::gelu",
        "h.0.mlp.act",
        "60.00 MiB allocated",
    ]


def test_the_largest_blocks_are_listed() -> None:
    recorder = TraceRecorder()
    for number in range(14):
        recorder.allocate(number, (number + 1) * MIB, SAVED)
    text = timeline_page(series(recorder.finish()))
    table = text[text.index('<table class="blocks">') :]
    assert "The 10 largest of 14 blocks alive at the peak" in text
    sizes = re.findall(r'<td class="amount">([\d.]+ MiB)</td>', table)
    assert sizes == [f"{size}.00 MiB" for size in range(14, 4, -1)]
    assert f"{14 / 105:.1%}" in table
    assert table.count("<code>aten::gelu</code>") == 10


@pytest.mark.parametrize(
    ("budget", "capacity", "says"),
    [
        (250, None, 'class="good"><b>50.00 MiB</b><span>below the budget'),
        (200, None, 'class="good"><b>0 B</b><span>below the budget'),
        (190, None, 'class="alarm"><b>10.00 MiB</b><span>above the budget'),
        (170, 170, 'class="alarm"><b>out of memory</b><span>at event 3, in step 1, by aten::gelu'),
    ],
)
def test_the_page_gives_a_verdict(budget: int, capacity: int | None, says: str) -> None:
    limit = None if capacity is None else capacity * MIB
    assert says in timeline_page(series(run(), budget * MIB, limit))
