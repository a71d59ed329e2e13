"""The table by version is strict, and no library bug is without a regression."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from ftcheck.pipeline.library_bugs import LIBRARY_BUGS
from tests.regression.outcomes import ELSEWHERE, by_version, expected_outcome, said_by

ROOT = Path(__file__).parents[2]
HERE = {"pytest": ">=8"}
NOT_HERE = {"pytest": ">=8", "transformers": "<1"}


def test_what_came_and_what_went_away_fail() -> None:
    by_version((HERE, "bad"), (ELSEWHERE, "good"))(lambda: "bad")()
    by_version((NOT_HERE, "bad"), (ELSEWHERE, "good"))(lambda: "good")()
    for gone in (
        by_version((HERE, "bad"), (ELSEWHERE, "good"))(lambda: "good"),
        by_version((NOT_HERE, "bad"), (ELSEWHERE, "good"))(lambda: "bad"),
        by_version((HERE, "bad"), (ELSEWHERE, "good"))(lambda: "something else"),
        by_version((HERE, re.compile("^bad$")), (ELSEWHERE, "good"))(lambda: "not bad"),
    ):
        with pytest.raises(AssertionError, match=r"saw '.*', expected '"):
            gone()


def test_versions_that_no_row_has_are_said() -> None:
    with pytest.raises(LookupError, match="end with one for ELSEWHERE"):
        expected_outcome(((NOT_HERE, "bad"),))


def test_each_set_of_versions_has_an_environment() -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    label = tox["tox"]["labels"].partition("matrix =")[2].splitlines()[0]
    sets = {file.stem for file in (ROOT / "tests/regression/constraints").glob("*.txt")}
    assert sets == {name.strip() for name in label.split(",")}
    assert len(sets) >= 8


def test_what_a_call_raises() -> None:
    assert said_by(lambda: int("x")).startswith("ValueError: invalid literal")
    assert said_by(lambda: int("1")) == "nothing"


def test_each_library_bug_has_a_regression() -> None:
    """With the versions of the table, so that every environment holds the table against it."""
    text = "".join(
        file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py")
    )
    assert not [bug.slug for bug in LIBRARY_BUGS if f'versions_of("{bug.slug}")' not in text]
