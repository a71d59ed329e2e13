"""Which changes are tried, and the search for the largest batch."""

from __future__ import annotations

import pytest

from ftcheck.cards import from_vram
from ftcheck.recipe import load_recipe
from ftcheck.vram.max_batch import largest_batch
from ftcheck.vram.prediction import predict
from ftcheck.vram.what_if import changes, try_changes
from tests.helpers.recipes import small_recipe

MIB = 1024**2


def slugs(*overrides: str, base: str = "gpt2-wikitext2") -> set[str]:
    return {change.slug for change in changes(load_recipe(base, overrides=overrides))}


def test_what_a_recipe_has_already_is_not_tried() -> None:
    everything = slugs("training.per_device_train_batch_size=8")
    assert everything == {
        "checkpointing",
        "half-batch",
        "8-bit-optimizer",
        "4-bits",
        "half-precision-base",
        "shorter-rows",
        "packing",
        "loss-in-chunks",
    }
    assert "half-batch" not in slugs()
    assert "4-bits" not in slugs(base="gpt2-wikitext2-nf4")
    assert "8-bits" in slugs(base="quickstart")
    assert "packing" not in slugs("tokenization.packing=true")
    assert "shorter-rows" not in slugs("tokenization.max_length=48")
    assert "checkpointing" not in slugs("training.gradient_checkpointing=true")
    assert "8-bit-optimizer" not in slugs('training.optim="adamw_bnb_8bit"')


def test_half_the_batch_keeps_the_rows_of_a_step() -> None:
    recipe = load_recipe("gpt2-wikitext2", overrides=("training.per_device_train_batch_size=8",))
    half = next(change for change in changes(recipe) if change.slug == "half-batch").recipe
    assert half.training["per_device_train_batch_size"] == 4
    assert half.training["gradient_accumulation_steps"] == 8
    edit = next(change for change in changes(recipe) if change.slug == "checkpointing").edit
    assert edit == "training.gradient_checkpointing = true"


@pytest.mark.slow
def test_changes_are_run_and_sorted_by_what_they_save() -> None:
    recipe = load_recipe(
        "gpt2-wikitext2",
        overrides=("training.per_device_train_batch_size=8", "tokenization.max_length=512"),
    )
    report = predict(recipe)
    tried = try_changes(recipe, report)
    saved = [one.saved_bytes for one in tried]
    assert all(one.problem == "" for one in tried)
    assert saved == sorted([value for value in saved if value is not None], reverse=True)
    by_slug = {one.slug: one for one in tried}
    assert (by_slug["checkpointing"].saved_bytes or 0) > 2000 * MIB
    assert (by_slug["loss-in-chunks"].saved_bytes or 0) > 1000 * MIB
    assert (by_slug["half-batch"].saved_bytes or 0) > 2000 * MIB


@pytest.mark.slow
def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    recipe = small_recipe("data.rows=256")
    card = from_vram(700 * MIB)
    found = largest_batch(recipe, card, predict(recipe, card=card))
    points = {point.batch: point for point in found.by_batch}
    assert points[found.batch].fits
    assert not points[found.batch + 1].fits
    assert len({point.length for point in found.by_length}) == 3
