"""Recipe → TOML → recipe, for the built-in ones and for any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcheck.errors import RecipeError
from ftcheck.pipeline.defaults import with_defaults
from ftcheck.pipeline.training import build_arguments
from ftcheck.recipe import Recipe, builtin_names, dump_recipe, load_recipe, parse_recipe
from ftcheck.recipe.template import commented_recipe

BUILTIN = builtin_names()
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)
SOME = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=20)


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin(name: str) -> None:
    recipe = load_recipe(name)
    assert parse_recipe(dump_recipe(recipe), name=name) == recipe
    assert recipe.description
    assert recipe.notices == () or name == "gpt2-wikitext2-checkpointing"


@pytest.mark.parametrize("name", BUILTIN)
def test_init_writes_the_same_recipe_with_comments(name: str) -> None:
    text = commented_recipe(name)
    assert parse_recipe(text, name=name) == load_recipe(name)
    assert text.count("\n#") > 20
    assert "# Type of the weights that are not quantized" in text


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_filled_in_recipe_decides_the_same(name: str) -> None:
    recipe = load_recipe(name, overrides=["training.use_cpu=true"])
    filled = parse_recipe(dump_recipe(with_defaults(recipe)), name=name)
    assert len(filled.training) > 50
    assert set(recipe.training) <= set(filled.training)
    assert arguments(filled) == arguments(recipe)


def arguments(recipe: Recipe) -> dict[str, Any]:
    made: dict[str, Any] = build_arguments(recipe, Path("out")).to_dict()
    return {name: value for name, value in made.items() if name != "logging_dir"}


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    return {
        "model": {
            "name_or_path": draw(SOME),
            "dtype": draw(st.sampled_from(["float32", "float16", "bfloat16", "auto"])),
        },
        "data": {"path": draw(SOME), "rows": draw(st.integers(1, 2**40))},
        "tokenization": {"max_length": draw(st.integers(2, 4096)), "packing": draw(st.booleans())},
        "lora": {"r": draw(st.integers(1, 512)), "target_modules": draw(st.lists(TEXT))},
        "training": {
            "learning_rate": draw(st.floats(0, 1)),
            "optim": draw(st.sampled_from(["adamw_torch", "sgd", "adafactor"])),
            "lr_scheduler_kwargs": draw(st.dictionaries(SOME, st.integers(-9, 9), max_size=2)),
        },
        "generation": {
            "prompts": draw(st.lists(TEXT, max_size=3)),
            "do_sample": draw(st.booleans()),
        },
        "checks": {"accept": draw(st.dictionaries(SOME, SOME.filter(str.strip), max_size=2))},
    }


@given(recipes())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_recipe(document: dict[str, dict[str, Any]]) -> None:
    import tomlkit

    recipe = parse_recipe(tomlkit.dumps(document))
    assert parse_recipe(dump_recipe(recipe)) == recipe
    assert recipe.training["learning_rate"] == document["training"]["learning_rate"]


@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("utf-8", "replace"))))
@settings(deadline=None, max_examples=300)
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    try:
        assert isinstance(parse_recipe(text), Recipe)
    except RecipeError as error:
        assert error.problems
        assert str(error).startswith("<text>")


PIECES = st.sampled_from(
    [
        "[model]\n",
        "[data]\n",
        "[training]\n",
        "[lora]\n",
        "[[lora]]\n",
        "[quantization]\n",
        "[generation]\n",
        "[checks.accept]\n",
        "model = 1\n",
        'name_or_path = "x"\n',
        'path = "x"\n',
        "path = [1, [2]]\n",
        "r = nan\n",
        "r = inf\n",
        "r = 1979-05-27\n",
        "learning_rate = -0.0\n",
        "learning_rate = 1e999\n",
        "optim = {}\n",
        "prompts = [[]]\n",
        "warmup_ratio = 'a'\n",
        "save_safetensors = 3\n",
        "torch_dtype = []\n",
        "seed = 999999999999999999999\n",
        "target_modules = {a.b = 1}\n",
        "max_steps = true\n",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@settings(deadline=None, max_examples=300)
def test_any_pieces_are_a_recipe_or_a_recipe_error(text: str) -> None:
    try:
        parse_recipe(text)
    except RecipeError as error:
        assert all(str(problem).startswith("<text>") for problem in error.problems)
