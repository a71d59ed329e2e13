"""Limits of growth: read exactly, inclusive, and failing where nothing can be compared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ftcheck.errors import InputError
from ftcheck.gate.baseline import Baseline
from ftcheck.gate.growth import change, parse_limits, problems_of
from tests.allocator.entries import VERSIONS, entry, nearest


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
        ("reserved:1:2", "got '1:2' for reserved"),
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


def test_versions_are_said_where_they_differ() -> None:
    baseline = Baseline.of([entry()])
    (said,) = problems_of(
        entry(reserved_bytes=2**31), nearest(baseline), baseline, parse_limits("reserved: 64MiB")
    )
    assert said == (
        "test_a.py::test_step: reserved grew by 2.00 GiB (+107374082.4 %), from 2,000 to "
        "2,147,483,648 bytes; 64MiB is allowed."
    )
    baseline = Baseline.of([entry(versions={**VERSIONS, "torch": "2.12.0", "peft": "0.18.0"})])
    (said,) = problems_of(
        entry(allocated_bytes=2000), nearest(baseline), baseline, parse_limits("allocated:2%")
    )
    assert said.endswith("Versions differ: torch 2.12.0 → 2.13.0, peft 0.18.0 → 0.19.1.")


def test_a_name_that_is_near_none_has_no_hint() -> None:
    with pytest.raises(InputError) as raised:
        parse_limits("card:2%")
    assert raised.value.message == (
        "got 'card:2%', expected allocated or reserved with a growth, such as "
        "'allocated:2%,reserved:64MiB'."
    )


def test_all_that_there_is_of_a_test_is_said() -> None:
    baseline = Baseline.of([entry(card="h100"), entry(kind="measured"), entry(test="t")])
    (said,) = problems_of(entry(), None, baseline, parse_limits("reserved:99%"))
    assert said == (
        "test_a.py::test_step: what the baseline has of it (measured for l4-24gb, predicted for "
        "h100) cannot be compared with what was predicted for l4-24gb."
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
    [
        (1000, 1000, "="),
        (1000, 1023, "+2.3 %"),
        (1000, 500, "-50.0 %"),
        (10**6, 10**6 + 9, "+9 B"),
        (1000, 1001, "+0.1 %"),
        (10**7, 10**7 + 9999, "+9,999 B"),
    ],
)
def test_a_change_in_words(before: int, now: int, said: str) -> None:
    assert change(before, now) == said
