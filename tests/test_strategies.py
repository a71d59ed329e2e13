"""The public strategies give what they promise, and cost nothing until they are asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, find, given, settings

import ftcheck
from ftcheck import strategies
from ftcheck.errors import FtcheckError
from ftcheck.recipe import Recipe, dump_recipe, parse_recipe

MANY = settings(max_examples=5_000, database=None, suppress_health_check=list(HealthCheck))


def lone(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda text: text == "",
        lambda text: text and text.isspace(),
        lambda text: "<|endoftext|>" in text and text != "<|endoftext|>",
        lambda text: "\r\n" in text,
        lambda text: "\0" in text,
        lambda text: any(character > "\uffff" for character in text),
        lambda text: len(text) > 1_500,
        lambda text: text.isascii() and len(text.split()) > 1,
    ],
    ids=["empty", "blank", "special", "crlf", "nul", "astral", "long", "words"],
)
def test_texts_are_of_each_kind(wanted: Callable[[str], bool]) -> None:
    assert wanted(find(strategies.texts(), wanted, settings=MANY))


@given(strategies.texts(longest=300, special_tokens=["<mine>"]))
@settings(deadline=None)
def test_a_text_can_be_written(text: str) -> None:
    assert text.encode().decode() == text
    assert "<s>" not in text or len(text) < 60  # none but those that were given, save by chance


@given(strategies.texts(lone_surrogates=True), strategies.batches(lone_surrogates=True))
@settings(deadline=None)
def test_a_lone_surrogate_is_in_each_where_it_is_asked_for(text: str, batch: list[str]) -> None:
    assert lone(text)
    assert any(map(lone, batch))
    assert len(batch) <= 4


@given(strategies.batches(max_size=3))
@settings(deadline=None)
def test_a_batch_has_a_text(batch: list[str]) -> None:
    assert 1 <= len(batch) <= 3
    assert not any(map(lone, batch))


@given(strategies.recipes())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_recipes_survive_being_written(recipe: Recipe) -> None:
    assert parse_recipe(dump_recipe(recipe)) == recipe
    assert recipe.model.name_or_path == "ftcheck:tiny-gpt2"


CHECKED = """
from hypothesis import HealthCheck, given, settings
from ftcheck import strategies
from ftcheck.subjects.check import check_recipe
from ftcheck.checks.finding import Level

@given(strategies.recipes())
@settings(deadline=None, max_examples=8, database=None, suppress_health_check=list(HealthCheck))
def look(recipe):
    report = check_recipe(recipe, levels=[Level.STATIC, Level.DATA])
    assert len(report.outcomes) > 30
    failing = [found.sentence for found in report.findings if found.fails]
    assert not failing, (recipe, failing)

look()
"""


@pytest.mark.slow
def test_no_check_holds_anything_against_a_recipe() -> None:
    command = [sys.executable, "-W", "ignore", "-c", CHECKED]
    answer = subprocess.run(command, capture_output=True, check=False, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]


@pytest.mark.parametrize(
    "wanted",
    [
        lambda recipe: recipe.tokenization.packing,
        lambda recipe: recipe.tokenization.padding == "longest",
        lambda recipe: recipe.tokenization.pad_token == "<|pad|>",
        lambda recipe: recipe.tokenization.append_eos,
        lambda recipe: len(recipe.lora["target_modules"]) > 1,
    ],
)
def test_recipes_vary(wanted: Callable[[Recipe], bool]) -> None:
    assert wanted(find(strategies.recipes(), wanted, settings=settings(MANY, max_examples=300)))


@pytest.mark.parametrize("name", ["texts", "batches", "recipes"])
def test_without_hypothesis_it_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(FtcheckError, match=r"pip install \"pytest-ftcheck\[properties\]\""):
        getattr(ftcheck.strategies, name)()


def test_importing_them_does_not_import_hypothesis() -> None:
    code = "import sys, ftcheck; ftcheck.strategies.texts; print('hypothesis' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert answer.stdout.split() == ["False"]
