"""Cards: the built-in table, names, and tables that people bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcheck.cards import Card, card, cards, from_vram, load_cards
from ftcheck.errors import InputError

MIB, GIB = 1024**2, 1024**3

MINE = """
[my-card]
title = "A card of mine"
capacity = "10 GiB"
compute_capability = "9.0"
context_overhead = "200 MiB"
[my-card.sources]
capacity = "torch.cuda.mem_get_info()"
"""


def test_the_reference_card() -> None:
    found = card("rtx4070-laptop-8gb")
    assert found.capacity_bytes == 7806 * MIB
    assert found.compute_capability == (8, 9)
    assert found.allocator_bytes == 7806 * MIB - 140 * MIB
    assert card("RTX4070 Laptop_8GB") == found


def test_the_table_is_large_and_every_figure_has_a_source() -> None:
    table = cards()
    assert len(table) >= 30
    for entry in table:
        for text in (
            entry.sources.capacity,
            entry.sources.compute_capability,
            entry.sources.context_overhead,
        ):
            assert len(text) > 20, entry.name
            assert text != "not stated"


@pytest.mark.parametrize("entry", cards(), ids=lambda entry: entry.name)
def test_figures_are_plausible(entry: Card) -> None:
    printed_gib = int(entry.name.rpartition("-")[2].removesuffix("gb"))
    # What is usable is less than what is printed, and not by more than a tenth. H200 and B200
    # print powers of ten.
    printed_bytes = printed_gib * (10**9 if printed_gib > 100 else GIB)
    assert 0.9 * printed_bytes < entry.capacity_bytes < 1.09 * printed_bytes
    assert entry.compute_capability in {
        (7, 0),
        (7, 5),
        (8, 0),
        (8, 6),
        (8, 9),
        (9, 0),
        (10, 0),
        (12, 0),
    }
    assert 50 * MIB <= entry.context_overhead_bytes <= 800 * MIB
    generation = {"rtx2": (7, 5), "rtx3": (8, 6), "rtx4": (8, 9), "rtx5": (12, 0)}
    assert generation.get(entry.name[:4], entry.compute_capability) == entry.compute_capability


@pytest.mark.parametrize(
    "family",
    ["rtx20", "rtx30", "rtx40", "rtx50", "t4-", "l4-", "a10g", "a100", "h100", "h200", "b200"],
)
def test_the_families_are_there(family: str) -> None:
    assert [entry for entry in cards() if entry.name.startswith(family)]


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(InputError, match=r"card: got 'rtx4070-laptop', .* rtx4070-laptop-8gb"):
        card("rtx4070-laptop")
    with pytest.raises(InputError, match=r"card: got '', expected one of \d+ known cards\.") as bad:
        card("")
    assert "--vram 8GiB" in bad.value.next_step


def test_memory_alone() -> None:
    made = from_vram(8 * GIB)
    assert (made.name, made.capacity_bytes) == ("vram-8192mib", 8 * GIB)
    assert made.sources.context_overhead.startswith("estimate")
    with pytest.raises(InputError, match=r"vram: got 300.00 MiB, expected more than the 300.00"):
        from_vram(300 * MIB)


def test_cards_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "cards.toml"
    file.write_text(MINE, encoding="utf-8")
    mine = load_cards(file)
    assert mine["my-card"].capacity_bytes == 10 * GIB
    assert mine["my-card"].compute_capability == (9, 0)
    assert mine["my-card"].sources.capacity == "torch.cuda.mem_get_info()"
    assert mine["my-card"].sources.context_overhead == "not stated"
    assert card("my-card", mine).title == "A card of mine"
    assert card("t4-16gb", mine).name == "t4-16gb"


def test_all_errors_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cards.toml"
    file.write_text(
        """
flat = 3
[one]
capacity = "10 GB of memory"
compute_capability = 8.9
context_overhead = 200
colour = "green"
[two]
titel = "x"
title = 3
sources = "mine"
[three]
capacity = "100 MiB"
compute_capability = "8.9"
context_overhead = "100 MiB"
[three.sources]
price = "x"
[four]
capacity = "100 MiB"
compute_capability = "8.9"
context_overhead = "100 MiB"
[Five]
capacity = "8 GiB"
compute_capability = "89"
context_overhead = "1 MiB"
sources.capacity = 3
""",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        load_cards(file)
    assert caught.value.message.splitlines() == [
        f"{file}: {problem}"
        for problem in [
            "flat: got 3, expected a table of figures",
            "one: colour: unknown key, expected one of title, capacity, compute_capability, "
            "context_overhead, sources.",
            "one: capacity: got '10 GB of memory', expected a number with a unit, such as '8 GiB' "
            "(1024-based) or '8 GB' (1000-based)",
            "one: context_overhead: got 200, expected text such as '8 GiB'",
            "one: compute_capability: got 8.9, expected text such as '8.9'",
            "two: titel: unknown key, expected one of title, capacity, compute_capability, "
            "context_overhead, sources. Did you mean title?",
            "two: title: got 3, expected text",
            "two: capacity: missing, expected memory with a unit, such as '8 GiB'",
            "two: context_overhead: missing, expected memory with a unit, such as '8 GiB'",
            "two: compute_capability: missing, expected text such as '8.9'",
            "two: sources: got 'mine', expected a table",
            "three: sources.price: unknown key, expected one of capacity, compute_capability, "
            "context_overhead",
            "four: context_overhead: got 100.00 MiB, expected 0 or more and less than the "
            "100.00 MiB of the card",
            "Five: expected a name of a-z, 0-9, dots and dashes",
            "Five: compute_capability: got '89', expected text such as '8.9'",
            "Five: sources.capacity: got 3, expected text",
        ]
    ]


@pytest.mark.parametrize("text", ["[one", "\x00"])
def test_a_file_that_is_not_toml(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cards.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"cards\.toml: cannot be read as a table of cards"):
        load_cards(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        load_cards(tmp_path / "none.toml")
