"""How much a peak of memory may grow against a baseline, and which ones grew by more."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from ftcheck.errors import InputError
from ftcheck.gate.baseline import FIGURES, Baseline, Entry, Match
from ftcheck.units import format_bytes, parse_bytes

__all__ = ["Limit", "change", "parse_limits", "problems_of"]

_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)
_EXAMPLE: Final = "allocated:2%,reserved:64MiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most that a figure may grow by.

    Attributes:
        figure: `allocated` or `reserved`.
        text: As it was given.
        percent: Of the baseline; `None` where it is an amount.
        amount_bytes: `None` where it is a share.
    """

    figure: str
    text: str
    percent: Fraction | None = None
    amount_bytes: int | None = None

    def allows(self, before_bytes: int, now_bytes: int) -> bool:
        """Whether a peak has grown by no more than this; exactly this much passes."""
        grown = now_bytes - before_bytes
        if self.percent is not None:
            return grown * 100 <= before_bytes * self.percent
        assert self.amount_bytes is not None
        return grown <= self.amount_bytes


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Read limits such as `allocated:2%,reserved:64MiB`.

    Raises:
        InputError: A name that is none, a name twice, or what is no growth of 0 or more.
    """
    limits: dict[str, Limit] = {}
    for part in text.split(","):
        figure, colon, size = (piece.strip() for piece in part.partition(":"))
        if not colon or figure not in FIGURES:
            nearest = difflib.get_close_matches(figure, FIGURES, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise InputError(
                f"got {part.strip()!r}, expected {' or '.join(FIGURES)} with a growth, such as "
                f"{_EXAMPLE!r}.{hint}"
            )
        if figure in limits:
            raise InputError(f"got {figure} twice in {text!r}, expected it once")
        limits[figure] = _limit(figure, size)
    return tuple(limits.values())


def _limit(figure: str, size: str) -> Limit:
    percent = _PERCENT.fullmatch(size)
    if percent:
        return Limit(figure=figure, text=size, percent=Fraction(percent[1]))
    try:
        return Limit(figure=figure, text=size, amount_bytes=parse_bytes(size))
    except ValueError as error:
        raise InputError(
            f"got {size!r} for {figure}, expected a growth of 0 or more with its unit, such as "
            f"{_EXAMPLE!r}"
        ) from error


def change(before_bytes: int, now_bytes: int) -> str:
    """A change for people, such as `+2.3 %`; `=` where there is none."""
    if before_bytes == now_bytes:
        return "="
    share = 100 * (now_bytes - before_bytes) / before_bytes
    return f"{share:+.1f} %" if abs(share) >= 0.1 else f"{now_bytes - before_bytes:+,} B"


def problems_of(
    entry: Entry, match: Match | None, baseline: Baseline, limits: tuple[Limit, ...]
) -> tuple[str, ...]:
    """Why a test does not pass the gate, each in a sentence; empty where it does.

    Args:
        entry: Its peaks of now.
        match: What it is compared with.
        baseline: All that was recorded.
        limits: The most that its peaks may grow by.
    """
    if match is None:
        return (_incomparable(entry, baseline),)
    return tuple(
        _grown(limit, match, entry)
        for limit in limits
        if not limit.allows(match.entry.bytes_of(limit.figure), entry.bytes_of(limit.figure))
    )


def _incomparable(entry: Entry, baseline: Baseline) -> str:
    others = baseline.of_test(entry.test)
    if not others:
        return f"{entry.test}: the baseline has nothing of it."
    there = ", ".join(sorted({f"{one.kind} for {one.card}" for one in others}))
    return (
        f"{entry.test}: what the baseline has of it ({there}) cannot be compared with what was "
        f"{entry.kind} for {entry.card}."
    )


def _grown(limit: Limit, match: Match, entry: Entry) -> str:
    before, now = match.entry.bytes_of(limit.figure), entry.bytes_of(limit.figure)
    versions = f" Versions differ: {', '.join(match.differences)}." if match.differences else ""
    return (
        f"{entry.test}: {limit.figure} grew by {format_bytes(now - before)} "
        f"({change(before, now)}), from {before:,} to {now:,} bytes; {limit.text} is allowed."
        f"{versions}"
    )
