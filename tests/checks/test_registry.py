"""Every check is tested from both sides, documented, and can be selected."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from ftcheck.checks.registry import all_checks, find, selected
from ftcheck.errors import InputError
from tests.checks.coverage import CATCHES, LEAVES_ALONE

CODES = [one.code for one in all_checks()]


@pytest.fixture(scope="module", autouse=True)
def _all_tests_imported() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.checks.{file.stem}")


@pytest.mark.parametrize("code", CODES)
def test_each_check_catches_something_and_leaves_a_near_miss_alone(code: str) -> None:
    assert CATCHES[code], f"no test shows that {code} catches anything"
    assert LEAVES_ALONE[code], f"no test shows what {code} leaves alone"


@pytest.mark.parametrize("one", all_checks(), ids=CODES)
def test_each_check_has_a_page(one: object) -> None:
    page = getattr(one, "page", "")
    assert len(page.splitlines()) > 4
    assert "\nBad" in page
    assert "\nGood" in page


def test_checks_are_selected_by_code_prefix_and_slug() -> None:
    names = [one.code for one in selected(["FT2"], ["labels-shifted"])]
    assert "FT203" in names
    assert "FT204" not in names
    assert all(name.startswith("FT2") for name in names)
    assert [one.code for one in selected(["FT204"], ["FT2"])] == ["FT204"]
    assert len(selected()) == len(CODES)
    assert find("ft204").slug == "labels-shifted"


def test_an_unknown_check_is_said_with_the_nearest() -> None:
    with pytest.raises(InputError) as raised:
        selected(["labels-shifed"])
    assert 'no check "labels-shifed"' in raised.value.message
    assert "labels-shifted" in raised.value.next_step
