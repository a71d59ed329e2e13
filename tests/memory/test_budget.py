"""Which card a recipe is held against."""

from __future__ import annotations

import pytest

from ftcheck.errors import InputError
from ftcheck.memory.budget import budget_of, named_budget
from ftcheck.recipe import load_recipe
from ftcheck.units import parse_bytes


def test_a_name_an_amount_or_both() -> None:
    card = named_budget("rtx4070-laptop-8gb", None)
    assert card is not None
    assert card.compute_capability == (8, 9)
    plain = named_budget(None, "8GiB")
    assert plain is not None
    assert plain.capacity_bytes == parse_bytes("8 GiB")
    both = named_budget("rtx4070-laptop-8gb", "6 GiB")
    assert both is not None
    assert (both.capacity_bytes, both.compute_capability) == (parse_bytes("6 GiB"), (8, 9))
    assert both.context_overhead_bytes == card.context_overhead_bytes
    assert named_budget(None, None) is None


def test_the_recipe_says_it() -> None:
    card = budget_of(load_recipe("gpt2-wikitext2"))
    assert card is not None
    assert card.name == "rtx4070-laptop-8gb"
    assert budget_of(load_recipe("quickstart")) is None


@pytest.mark.parametrize(
    ("name", "vram", "words"),
    [
        ("rtx4070-laptop", None, "Did you mean rtx4070-laptop-8gb"),
        (None, "8", "expected a number with a unit"),
        (None, "8 gigs", "expected a number with a unit"),
        ("rtx4070-laptop-8gb", "100 MiB", "CUDA context takes"),
    ],
)
def test_what_cannot_be_read_is_said(name: str | None, vram: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        named_budget(name, vram)


def test_a_bad_budget_of_a_recipe_has_its_place() -> None:
    recipe = load_recipe("gpt2-wikitext2", overrides=('budget.card="rtx4070-lap"',))
    with pytest.raises(InputError, match=r"gpt2-wikitext2.*: budget\.card: got 'rtx4070-lap'"):
        budget_of(recipe)
