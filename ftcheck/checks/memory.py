"""FT7xx: memory."""

from __future__ import annotations

from collections.abc import Iterator

from ftcheck.checks.facts import Failure
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen
from ftcheck.units import format_bytes

__all__: list[str] = []


@check("FT701", "does-not-fit", Level.MEMORY, Severity.ERROR)
def does_not_fit(self: Check, seen: Seen) -> Iterator[Finding]:
    """The recipe runs out of memory on the card of its budget.

    Predicted by running it on the virtual GPU (`ftcheck vram`), at every phase.

    Bad: all parameters of a 7B model on a card of 8 GB.

    Good: 4 bits, checkpointing, shorter rows: `ftcheck vram --what-if` says what each saves.
    """
    memory = seen.need("memory")
    if isinstance(memory, Failure):
        if "same device" in memory.text:
            raise NotApplicable("it fails before, on devices")
        raise NotMeasured(memory.text.splitlines()[0])
    if memory.fits is None:
        raise NotApplicable("the recipe names no budget")
    if not memory.fits and memory.card is not None:
        where = memory.failure
        needed = (
            ""
            if memory.needed_bytes is None
            else (f"; the smallest card that works has {format_bytes(memory.needed_bytes)}")
        )
        yield self.finding(
            f"out of memory on {memory.card.title}"
            + (f" in {where.phase}" if where is not None else "")
            + needed,
            evidence=[]
            if where is None
            else [where.message.splitlines()[0], f"{where.op} in {where.module or 'the trainer'}"],
            key="budget",
            fix="ftcheck vram --what-if says which changes help.",
        )


@check("FT702", "fits-barely", Level.MEMORY, Severity.NOTE)
def barely(self: Check, seen: Seen) -> Iterator[Finding]:
    """The recipe fits with less than 3 % of the card to spare.

    A prediction is off by some percent, and a desktop takes memory of its own.

    Bad: a batch that was raised until it just fitted.

    Good: some hundred MiB of room.
    """
    memory = seen.need("memory")
    if isinstance(memory, Failure) or not memory.fits or memory.card is None:
        raise NotApplicable("it does not fit, or there is no budget")
    spare = memory.headroom_bytes
    if spare is not None and spare < 0.03 * memory.card.capacity_bytes:
        yield self.finding(
            f"{format_bytes(spare)} of {memory.card.title} are left",
            key="budget",
            fix="Leave some hundred MiB.",
        )
