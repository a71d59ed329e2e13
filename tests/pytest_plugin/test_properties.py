"""Properties are items of each recipe, in turn, and fail in words."""

from __future__ import annotations

from unittest import mock

import pytest

import ftcheck
from ftcheck.pipeline import load_tokenizer
from ftcheck.properties import PropertyFailed
from ftcheck.recipe import load_recipe
from tests.pytest_plugin.test_recipe_items import PLAIN, SOUND

pytest_plugins = ["pytester"]

OWN_PAD = SOUND.replace('pad_token = "eos_token"', 'pad_token = "<|pad|>"\nmax_length = 40')
CUT_IN_FRONT = """
import pytest
from ftcheck.pipeline import load_tokenizer

@pytest.fixture(scope="session")
def ft_tokenizer(ft_recipe):
    tokenizer = load_tokenizer(ft_recipe)
    tokenizer.truncation_side = "left"
    return tokenizer
"""
OWN_TEST = """
def test_own(ft_recipe, ft_tokenizer):
    assert ft_recipe.name == "quickstart"
    assert ft_tokenizer.pad_token == "<|endoftext|>"
"""


@pytest.fixture
def recipes(pytester: pytest.Pytester) -> None:
    """Two sound recipes whose tokenizers differ."""
    for name, text in {"a": SOUND, "b": OWN_PAD}.items():
        (pytester.path / f"{name}.recipe.toml").write_text(text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("recipes")
def test_a_property_is_an_item(pytester: pytest.Pytester) -> None:
    found = pytester.runpytest_subprocess(*PLAIN, "--collect-only", "-q", "--ftcheck-level=data")
    found.stdout.fnmatch_lines(
        [
            "a.recipe.toml::properties::length-is-max-length",
            "b.recipe.toml::properties::recipe-survives-writing",
        ]
    )
    static = pytester.runpytest_subprocess(*PLAIN, "--collect-only", "-q", "--ftcheck-level=static")
    static.stdout.no_fnmatch_line("*properties*")


@pytest.mark.slow
@pytest.mark.usefixtures("recipes")
def test_sound_recipes_have_all_and_own_tests_keep_their_recipe(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_one=OWN_TEST, test_two=OWN_TEST)
    order = ("test_one.py", "b.recipe.toml", "a.recipe.toml", "test_two.py")
    found = pytester.runpytest_subprocess(*PLAIN, "-W", "error", "-k", "properties or own", *order)
    found.assert_outcomes(passed=30)


@pytest.mark.slow
@pytest.mark.usefixtures("recipes")
def test_workers_take_recipes_in_turn(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_one=OWN_TEST, test_two=OWN_TEST)
    found = pytester.runpytest_subprocess(*PLAIN, "-n", "2", "-k", "pad-is or length or own")
    found.assert_outcomes(passed=6)


@pytest.mark.usefixtures("recipes")
def test_what_does_not_hold_fails_in_words(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CUT_IN_FRONT)
    wanted = "b.recipe.toml::properties::truncation-keeps-the-prefix"
    found = pytester.runpytest_subprocess(
        *PLAIN, "--hypothesis-seed=1", "--ftcheck-report=out.md", wanted
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            "b.recipe.toml:12: truncation-keeps-the-prefix does not hold: A row holds the first *",
            "  the row without pads has * at position *, expected *",
            "  reproduce: ftcheck.properties.hold(?truncation-keeps-the-prefix?, ?'*?, "
            "?b.recipe.toml?, tokenizer=ft_tokenizer)",
        ]
    )
    tokenizer = load_tokenizer(load_recipe("b.recipe.toml"))
    tokenizer.truncation_side = "left"
    (call,) = {line for line in found.outlines if line.startswith("  reproduce: ")}
    with pytest.raises(PropertyFailed, match="the row without pads has"):
        eval(call.split(":", 1)[1], {"ftcheck": ftcheck, "ft_tokenizer": tokenizer})
    found.stdout.no_fnmatch_line("*Traceback*")
    found.stdout.no_fnmatch_line("*property_items.py*")
    report = (pytester.path / "out.md").read_text(encoding="utf-8")
    assert f"- `{wanted}`: b.recipe.toml:12: truncation-keeps-the-prefix does not hold" in report


@pytest.mark.usefixtures("recipes")
def test_what_does_not_apply_is_skipped_at_its_line(pytester: pytest.Pytester) -> None:
    text = SOUND.replace("append_eos = true", "append_eos = false")
    (pytester.path / "a.recipe.toml").write_text(text, encoding="utf-8")
    found = pytester.runpytest_subprocess(
        *PLAIN, "-rs", "a.recipe.toml::properties::texts-end-in-eos"
    )
    found.assert_outcomes(skipped=1)
    found.stdout.fnmatch_lines(["SKIPPED * a.recipe.toml:13: does not apply: append_eos and *"])


@pytest.mark.slow
def test_a_tokenizer_that_cannot_be_had_is_unmeasured(pytester: pytest.Pytester) -> None:
    text = SOUND.replace("ftcheck:tiny-gpt2", "nobody/nothing")
    (pytester.path / "far.recipe.toml").write_text(text, encoding="utf-8")
    found = pytester.runpytest_subprocess(*PLAIN, "-k", "two-runs or order or survives")
    assert found.parseoutcomes() == {"passed": 1, "unmeasured": 2, "deselected": mock.ANY}
    found.stdout.fnmatch_lines(["far.recipe.toml: 2 tests: far.recipe.toml:2: tokenizer of *"])


@pytest.mark.usefixtures("recipes")
def test_without_hypothesis_one_item_says_so(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('import sys\nsys.modules["hypothesis"] = None\n')
    found = pytester.runpytest_subprocess(
        *PLAIN, "-p", "no:hypothesispytest", "-rs", "-k", "properties", "a.recipe.toml"
    )
    assert found.parseoutcomes()["skipped"] == 1
    found.stdout.fnmatch_lines(["*hypothesis is not installed: pip install*"])
