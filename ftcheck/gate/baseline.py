"""Recorded peaks of memory: one JSON file for people to review, and the nearest match in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ftcheck.environment import LIBRARIES
from ftcheck.errors import InputError
from ftcheck.gate.baseline_schema import SCHEMA, problems_in
from ftcheck.units import format_bytes

__all__ = ["FIGURES", "KEYED_BY", "Baseline", "Entry", "Kind", "Match", "difference"]

Kind = Literal["measured", "predicted"]

FIGURES: Final = ("allocated", "reserved")
"""What a baseline holds of each test."""
KEYED_BY: Final = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")
"""Distributions whose version can change how much memory the same test takes."""
_NEXT_STEP: Final = (
    "Restore the file from version control, or mend it by hand; nothing was written."
)
_SAME, _SAME_MINOR, _SAME_MAJOR, _OTHER = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The peaks of a test on a card with some versions.

    Attributes:
        test: Node id, from the root of the tests on.
        kind: Measured on the card, or predicted for it.
        card: Name of the card.
        versions: Distribution to version.
        allocated_bytes: Peak of what tensors took.
        reserved_bytes: Peak of what the allocator took from the card.
    """

    test: str
    kind: Kind
    card: str
    versions: Mapping[str, str] = field(hash=False)
    allocated_bytes: int
    reserved_bytes: int

    @property
    def key(self) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
        """What it is of: there is one entry of each key."""
        return (self.test, self.card, self.kind, tuple(sorted(self.versions.items())))

    def bytes_of(self, figure: str) -> int:
        """Its `allocated` or `reserved`."""
        return int(getattr(self, f"{figure}_bytes"))

    def to_plain(self) -> dict[str, Any]:
        """As it stands in the file, under its test: each size also in words."""
        plain: dict[str, Any] = {
            "card": self.card,
            "kind": self.kind,
            "versions": dict(self.versions),
        }
        for name in FIGURES:
            plain[f"{name}_bytes"] = self.bytes_of(name)
            plain[name] = format_bytes(self.bytes_of(name))
        return plain

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {format_bytes(self.bytes_of(name))}" for name in FIGURES)
        return f"{self.test} ({self.kind}, {self.card}): {figures}"


@dataclass(frozen=True, slots=True)
class Match:
    """The entry to compare with, and how its versions differ from those of now."""

    entry: Entry
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Entries by key."""

    entries: Mapping[tuple[Any, ...], Entry]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Baseline:
        """Of some entries; of two with one key the later stays."""
        return cls({entry.key: entry for entry in entries})

    @classmethod
    def read(cls, file: Path) -> Baseline:
        """Read a file; one that does not exist is empty.

        Raises:
            InputError: It cannot be read, or anything in it is not as it is written: all of it.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls({})
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}", next_step=_NEXT_STEP) from error
        plain, problems = problems_in(text)
        if problems:
            lines = "\n".join(f"{file}{problem}" for problem in problems)
            raise InputError(lines, next_step=_NEXT_STEP)
        return cls.of(
            Entry(
                test=test,
                kind=one["kind"],
                card=one["card"],
                versions=one["versions"],
                allocated_bytes=one["allocated_bytes"],
                reserved_bytes=one["reserved_bytes"],
            )
            for test, some in plain["peaks"].items()
            for one in some
        )

    @property
    def tests(self) -> frozenset[str]:
        """Those that have an entry."""
        return frozenset(entry.test for entry in self.entries.values())

    def text(self) -> str:
        """As the file is: sorted, so that a change shows as the lines that it touches."""
        peaks: dict[str, list[dict[str, Any]]] = {}
        for key in sorted(self.entries):
            entry = self.entries[key]
            peaks.setdefault(entry.test, []).append(entry.to_plain())
        plain = {"schema": SCHEMA, "peaks": peaks}
        return json.dumps(plain, indent=2, sort_keys=True) + "\n"

    def merged(self, entries: Iterable[Entry]) -> Baseline:
        """With new entries in place of those of the same keys; all others stay."""
        return Baseline.of([*self.entries.values(), *entries])

    def of_test(self, test: str) -> tuple[Entry, ...]:
        """All entries of a test."""
        return tuple(entry for entry in self.entries.values() if entry.test == test)

    def nearest(
        self, *, test: str, kind: Kind, card: str | None, versions: Mapping[str, str]
    ) -> Match | None:
        """The entry of a test, kind and card (`None`: any) whose versions are nearest.

        Those with equal versions come first, then those with the same minor versions, then those
        with the same major ones, then the rest: the worst library decides, then the next worst. Of
        equally near ones the newest is taken.
        """
        some = [
            one
            for one in self.of_test(test)
            if one.kind == kind and (card is None or one.card == card)
        ]
        if not some:
            return None
        distance = {one.key: _distance(one.versions, versions) for one in some}
        least = min(distance.values())
        best = max((one for one in some if distance[one.key] == least), key=_age)
        return Match(best, difference(best.versions, versions))


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Libraries with another version, such as `torch 2.12.0 → 2.13.0`."""
    return tuple(
        f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}"
        for name in _names(before, now)
        if before.get(name) != now.get(name)
    )


def _distance(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[int, ...]:
    grades = [_grade(before.get(name), now.get(name)) for name in _names(before, now)]
    worst_first = sorted(grades, reverse=True)
    return tuple(grade for grade in worst_first if grade)


def _grade(before: str | None, now: str | None) -> int:
    if before == now:
        return _SAME
    if before is None or now is None:
        return _OTHER
    old, new = _numbers(before), _numbers(now)
    if not old or not new or old[0] != new[0]:
        return _OTHER
    return _SAME_MINOR if old[1:2] == new[1:2] else _SAME_MAJOR


def _age(entry: Entry) -> tuple[Any, ...]:
    """Sorts entries by their versions, the most important library first."""
    from packaging.version import InvalidVersion, Version

    ages = []
    for name in _names(entry.versions, dict.fromkeys(KEYED_BY)):
        try:
            ages.append(Version(entry.versions.get(name, "")))
        except InvalidVersion:
            ages.append(Version("0.dev0"))
    return (*ages, entry.key)


def _numbers(version: str) -> tuple[int, ...]:
    """Major, minor and micro; empty for what is no version."""
    from packaging.version import InvalidVersion, Version

    try:
        parsed = Version(version)
    except InvalidVersion:
        return ()
    return (parsed.major, parsed.minor, parsed.micro)


def _names(*versions: Mapping[str, Any]) -> list[str]:
    found = set().union(*versions)
    return [name for name in LIBRARIES if name in found] + sorted(found - set(LIBRARIES))
