"""Which card a recipe is held against."""

from __future__ import annotations

import dataclasses
import re

import pytest

from ftcheck.cards import card
from ftcheck.errors import InputError
from ftcheck.recipe import load_recipe
from ftcheck.units import parse_bytes
from ftcheck.vram.budget import budget_of, named_budget
from ftcheck.vram.workload import workload_of

NEXT_STEP = "Write it as 8GiB or 7806MiB."


def test_a_name_an_amount_or_both() -> None:
    alone = named_budget("rtx4070-laptop-8gb", None)
    assert alone is not None
    assert alone.compute_capability == (8, 9)
    plain = named_budget(None, "8GiB")
    assert plain is not None
    assert plain.capacity_bytes == parse_bytes("8 GiB")
    both = named_budget("rtx4070-laptop-8gb", "6 GiB")
    assert both is not None
    assert (both.capacity_bytes, both.compute_capability) == (parse_bytes("6 GiB"), (8, 9))
    assert both.context_overhead_bytes == alone.context_overhead_bytes
    assert named_budget(None, None) is None


def test_the_recipe_says_it() -> None:
    found = budget_of(load_recipe("gpt2-wikitext2"))
    assert found is not None
    assert found.name == "rtx4070-laptop-8gb"
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


def test_a_card_with_other_memory_says_so() -> None:
    known = card("rtx4070-laptop-8gb")
    given = named_budget("rtx4070-laptop-8gb", "6 GiB")
    assert given is not None
    assert given.title == f"{known.title} with 6.00 GiB"
    assert given.sources == dataclasses.replace(known.sources, capacity="as given")


def test_a_card_of_ones_own_is_found_with_and_without_memory() -> None:
    mine = dataclasses.replace(card("rtx4070-laptop-8gb"), name="mine", title="Mine")
    recipe = load_recipe("gpt2-wikitext2", overrides=('budget.card="mine"',))
    assert named_budget("mine", None, {"mine": mine}) is mine
    assert budget_of(recipe, {"mine": mine}) is mine
    both = named_budget("mine", "7 GiB", {"mine": mine})
    assert both is not None
    assert both.title == "Mine with 7.00 GiB"


def test_memory_must_be_more_than_the_context_takes() -> None:
    taken = card("rtx4070-laptop-8gb").context_overhead_bytes
    with pytest.raises(InputError, match="CUDA context takes") as raised:
        named_budget("rtx4070-laptop-8gb", f"{taken} B")
    assert raised.value.next_step == NEXT_STEP
    least = named_budget("rtx4070-laptop-8gb", f"{taken + 1} B")
    assert least is not None
    assert least.allocator_bytes == 1
    with pytest.raises(InputError, match=r"^vram: got '8', expected") as raised:
        named_budget(None, "8")
    assert raised.value.next_step == NEXT_STEP


def test_the_memory_that_a_recipe_names() -> None:
    recipe = load_recipe("quickstart", overrides=('budget.vram="7 GiB"',))
    found = budget_of(recipe)
    assert found is not None
    assert found.capacity_bytes == parse_bytes("7 GiB")
    too_little = load_recipe("quickstart", overrides=('budget.vram="1 MiB"',))
    with pytest.raises(InputError) as raised:
        budget_of(too_little)
    assert re.fullmatch(
        r"quickstart.*: budget\.vram: got 1\.00 MiB, expected more than the 300\.00 MiB that a "
        r"CUDA context is assumed to take",
        raised.value.message,
    )
    assert raised.value.next_step == "Give the memory of the card with its unit, such as 8GiB."
    # A sentence with a colon of its own is kept whole.
    odd = load_recipe("quickstart", overrides=('budget.card="a: b"',))
    with pytest.raises(InputError, match=r"budget\.card: got 'a: b', expected one of"):
        budget_of(odd)


def test_the_named_card_goes_before_that_of_the_subject() -> None:
    recipe = load_recipe("gpt2-wikitext2")
    other = card("t4-16gb")
    assert workload_of(recipe, "t4-16gb").card == other
    assert workload_of(recipe, other).card is other
    assert workload_of(recipe).card == card("rtx4070-laptop-8gb")
    assert workload_of(object).card is None
