"""The rows that stand for a recipe's data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ftcheck.pipeline import load_tokenizer
from ftcheck.pipeline.training import build_arguments
from ftcheck.recipe import Recipe, load_recipe
from ftcheck.vram.representative import Batches, Shape, largest_batches, representative_rows
from tests.helpers.recipes import small_recipe


def ignored(text: str) -> None:
    """What is assumed is another test's matter."""


def found(
    recipe: Recipe,
    sizes: tuple[int, int],
    assume: Callable[[str], None] = ignored,
    *,
    read: bool = True,
) -> tuple[Shape, Shape | None]:
    """The largest batches of a recipe with other sizes of batches."""
    training = recipe.training.replace(
        per_device_train_batch_size=sizes[0], per_device_eval_batch_size=sizes[1]
    )
    arguments = build_arguments(dataclasses.replace(recipe, training=training), Path("unused"))
    tokenizer = load_tokenizer(recipe) if read else None
    batches = largest_batches(recipe, tokenizer, arguments, assume)
    return batches.train, batches.evaluation


def test_rows_of_one_length_are_not_read() -> None:
    notes: list[str] = []
    recipe = load_recipe("gpt2-wikitext2")  # its data is on the hub
    train, evaluation = found(recipe, (4, 8), notes.append, read=False)
    assert train == Shape(batch=4, length=128, padded=True)
    assert evaluation is None
    assert len(notes) == 1


def test_the_longest_row_decides_where_batches_are_padded() -> None:
    recipe = small_recipe()
    notes: list[str] = []
    train, evaluation = found(recipe, (4, 2), notes.append)
    assert train.batch == 4
    assert train.padded
    assert 2 <= train.length <= recipe.tokenization.max_length
    assert evaluation is not None
    assert evaluation.batch == 2
    assert not notes


def test_fewer_rows_than_a_batch_make_a_smaller_one() -> None:
    recipe = small_recipe("data.rows=3", "data.eval_rows=2")
    train, evaluation = found(recipe, (8, 8))
    assert train.batch == 3
    assert evaluation is not None
    assert evaluation.batch == 2


def test_one_row_a_batch_has_no_pads() -> None:
    recipe = small_recipe()
    train, _ = found(recipe, (1, 1))
    assert not train.padded


def test_packed_rows_have_no_pads() -> None:
    recipe = load_recipe("gpt2-wikitext2", overrides=("tokenization.packing=true",))
    train, _ = found(recipe, (4, 4), read=False)
    assert train == Shape(batch=4, length=128, padded=False)


def test_rows_are_as_said() -> None:
    masked = small_recipe("tokenization.labels=pads_masked")
    tokenizer = load_tokenizer(masked)
    padded = Batches(train=Shape(batch=2, length=6, padded=True), evaluation=None)
    made = representative_rows(masked, padded, 3, tokenizer)
    assert made.evaluation is None
    assert len(made.train) == 6
    assert made.train[0]["input_ids"][-1] == tokenizer.pad_token_id
    assert made.train[0]["attention_mask"] == [1, 1, 1, 1, 1, 0]
    assert made.train[0]["labels"][-1] == -100
    plain = small_recipe("tokenization.labels=input_ids")
    whole = Shape(batch=1, length=4, padded=False)
    both = representative_rows(plain, Batches(train=whole, evaluation=whole), 1, tokenizer)
    assert both.train[0]["attention_mask"] == [1] * 4
    assert both.evaluation is not None
    assert len(both.evaluation) == 2
    labelled = representative_rows(plain, padded, 1, tokenizer)
    assert labelled.train[0]["labels"][-1] == tokenizer.pad_token_id
