"""Limits of growth: read exactly, inclusive, and failing where nothing can be compared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ftcheck.errors import InputError
from ftcheck.memory.baseline import Baseline
from ftcheck.memory.growth import change, parse_limits, problems_of
from tests.memory.entries import VERSIONS, entry, nearest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got '', expected allocated or reserved"),
        ("allocated", "got 'allocated', expected allocated or reserved"),
        ("alocated:2%", "got 'alocated:2%'.*Did you mean allocated?"),
        ("card:2%", "got 'card:2%', expected"),
        ("allocated:2%,", "got '', expected"),
        ("allocated:2%,allocated:64MiB", "got allocated twice"),
        ("allocated:-2%", "got '-2%' for allocated, expected a growth of 0 or more"),
        ("allocated:nan%", "got 'nan%' for allocated"),
        ("allocated:inf%", "got 'inf%' for allocated"),
        ("reserved:2", "got '2' for reserved"),
        ("reserved:-64MiB", "got '-64MiB' for reserved"),
        ("reserved:64 MiBs", "got '64 MiBs' for reserved"),
        ("reserved:1e3%", "got '1e3%' for reserved"),
        ("reserved:٣%", "got '٣%' for reserved"),
    ],
)
def test_limits_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_limits(text)


@pytest.mark.parametrize(
    ("text", "before_bytes", "most_bytes"),
    [
        ("allocated:2%", 1000, 1020),
        ("allocated: 0.1 %", 10**15, 10**15 + 10**12),
        ("allocated:2%", 1049, 1069),  # 1069.98
        ("allocated:0%", 1000, 1000),
        ("allocated:64MiB", 1000, 1000 + 64 * 2**20),
        ("allocated:0 B", 1000, 1000),
        ("reserved:5%, allocated:100%", 1000, 2000),
    ],
)
def test_a_growth_at_the_limit_passes(text: str, before_bytes: int, most_bytes: int) -> None:
    limits = parse_limits(text)
    baseline = Baseline.of([entry(allocated_bytes=before_bytes)])
    for now_bytes, passes in [(1, True), (most_bytes, True), (most_bytes + 1, False)]:
        now = entry(allocated_bytes=now_bytes)
        problems = problems_of(now, nearest(baseline), baseline, limits)
        assert (problems == ()) is passes, problems


def _match(baseline: Baseline) -> Any:
    return nearest(baseline, VERSIONS)


def test_a_growth_is_said_with_both_figures_and_the_versions() -> None:
    baseline = Baseline.of([entry(versions={**VERSIONS, "torch": "2.12.0"})])
    limits = parse_limits("allocated:2%,reserved:64MiB")
    (said,) = problems_of(entry(allocated_bytes=1021), nearest(baseline), baseline, limits)
    assert said == (
        "test_a.py::test_step: allocated grew by 21 B (+2.1 %), from 1,000 to 1,021 bytes; 2% is "
        "allowed. Versions differ: torch 2.12.0 → 2.13.0."
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"test": "t"}, "test_a.py::test_step: the baseline has nothing of it."),
        ({"card": "h100"}, r"\(predicted for h100\) cannot be compared"),
        ({"kind": "measured"}, r"\(measured for l4-24gb\) cannot be compared with what was pred"),
    ],
)
def test_what_cannot_be_compared_does_not_pass(other: dict[str, Any], words: str) -> None:
    baseline = Baseline.of([entry(**other)])
    (said,) = problems_of(entry(), None, baseline, parse_limits("reserved:99%"))
    assert re.search(words, said)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [(1000, 1000, "="), (1000, 1023, "+2.3 %"), (1000, 500, "-50.0 %"), (10**6, 10**6 + 9, "+9 B")],
)
def test_a_change_in_words(before: int, now: int, said: str) -> None:
    assert change(before, now) == said
