"""The card that a recipe is held against, and where it was named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ftcheck.cards import Card, card, from_vram
from ftcheck.errors import InputError
from ftcheck.recipe import Recipe
from ftcheck.units import format_bytes, parse_bytes

__all__ = ["budget_of", "named_budget"]


def named_budget(
    name: str | None, vram: str | None, extra: Mapping[str, Card] | None = None
) -> Card | None:
    """The card of a name, of an amount of memory, or of both: that card with that memory.

    Args:
        name: Such as `rtx4070-laptop-8gb`.
        vram: Total memory with its unit, such as `8 GiB`.
        extra: Cards that people described themselves.

    Raises:
        InputError: There is no such card, or the amount cannot be read.
    """
    if name is None and vram is None:
        return None
    if vram is None:
        return card(str(name), extra)
    try:
        vram_bytes = parse_bytes(vram)
    except ValueError as error:
        raise InputError(f"vram: {error}", next_step="Write it as 8GiB or 7806MiB.") from error
    if name is None:
        return from_vram(vram_bytes)
    known = card(name, extra)
    if vram_bytes <= known.context_overhead_bytes:
        raise InputError(
            f"vram: got {format_bytes(vram_bytes)}, expected more than the "
            f"{format_bytes(known.context_overhead_bytes)} that the CUDA context takes on {name}",
            next_step="Write it as 8GiB or 7806MiB.",
        )
    return dataclasses.replace(
        known,
        capacity_bytes=vram_bytes,
        title=f"{known.title} with {format_bytes(vram_bytes)}",
        sources=dataclasses.replace(known.sources, capacity="as given"),
    )


def budget_of(recipe: Recipe, extra: Mapping[str, Card] | None = None) -> Card | None:
    """What `[budget]` of a recipe says; `None` where it says nothing.

    Raises:
        InputError: With file, line and key.
    """
    budget = recipe.budget
    try:
        return named_budget(budget.card, budget.vram, extra)
    except InputError as error:
        key = "budget.vram" if error.message.startswith("vram") else "budget.card"
        raise InputError(
            f"{recipe.place(key)}: {key}: {error.message.partition(': ')[2]}",
            next_step=error.next_step,
        ) from error
