"""The rows that stand for a recipe's data."""

from __future__ import annotations

from ftcheck.pipeline import load_tokenizer
from ftcheck.recipe import load_recipe
from ftcheck.vram.representative import Shape, longest_rows, rows
from tests.helpers.recipes import small_recipe


def ignored(text: str) -> None:
    """What is assumed is another test's matter."""


def test_rows_of_one_length_are_not_read() -> None:
    notes: list[str] = []
    recipe = load_recipe("gpt2-wikitext2")  # its data is on the hub
    train, evaluation = longest_rows(recipe, None, (4, 8), notes.append)
    assert train == Shape(batch=4, length=128, padded=True)
    assert evaluation is None
    assert len(notes) == 1


def test_the_longest_row_decides_where_batches_are_padded() -> None:
    recipe = small_recipe()
    tokenizer = load_tokenizer(recipe)
    notes: list[str] = []
    train, evaluation = longest_rows(recipe, tokenizer, (4, 2), notes.append)
    assert train.batch == 4
    assert train.padded
    assert 2 <= train.length <= recipe.tokenization.max_length
    assert evaluation is not None
    assert evaluation.batch == 2
    assert not notes


def test_fewer_rows_than_a_batch_make_a_smaller_one() -> None:
    recipe = small_recipe("data.rows=3", "data.eval_rows=2")
    train, evaluation = longest_rows(recipe, load_tokenizer(recipe), (8, 8), ignored)
    assert train.batch == 3
    assert evaluation is not None
    assert evaluation.batch == 2


def test_one_row_a_batch_has_no_pads() -> None:
    recipe = small_recipe()
    train, _ = longest_rows(recipe, load_tokenizer(recipe), (1, 1), ignored)
    assert not train.padded


def test_packed_rows_have_no_pads() -> None:
    recipe = load_recipe("gpt2-wikitext2", overrides=("tokenization.packing=true",))
    train, _ = longest_rows(recipe, None, (4, 4), ignored)
    assert train == Shape(batch=4, length=128, padded=False)


def test_rows_are_as_said() -> None:
    made = rows(Shape(batch=2, length=6, padded=True), 3, pad=9, masked=True)
    assert len(made) == 6
    assert made[0]["input_ids"][-1] == 9
    assert made[0]["attention_mask"] == [1, 1, 1, 1, 1, 0]
    assert made[0]["labels"][-1] == -100
    whole = rows(Shape(batch=1, length=4, padded=False), 1, pad=9, masked=False)
    assert whole[0]["attention_mask"] == [1] * 4
