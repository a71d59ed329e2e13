"""All checks, by code and slug; which of them a user selects."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ftcheck.checks.finding import Finding, Fix, Level, Severity
from ftcheck.errors import InputError
from ftcheck.recipe.values import did_you_mean

if TYPE_CHECKING:
    from ftcheck.checks.seen import Seen

__all__ = [
    "FAILS",
    "Check",
    "all_checks",
    "check",
    "find",
    "selected",
    "within",
]


Body = Callable[["Seen"], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        code: `FT` and three digits; the first is the subject matter.
        slug: Its name, in words.
        level: What it needs to have been looked at.
        severity: Of its findings, where they do not say another.
        look: Judges what was seen.
    """

    code: str
    slug: str
    level: Level
    severity: Severity
    look: Body

    def finding(
        self,
        sentence: str,
        *,
        evidence: Iterable[str] = (),
        key: str = "",
        place: str = "",
        fix: str = "",
        change: Mapping[str, Any] | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this check; where it has no place, the runner fills in that of its key."""
        return Finding(
            code=self.code,
            slug=self.slug,
            severity=severity or self.severity,
            sentence=sentence,
            evidence=tuple(evidence),
            key=key,
            place=place,
            fix=Fix(text=fix, change=dict(change or {})),
        )

    @property
    def subject_matter(self) -> str:
        """What it is about, in one word: the first digit of its code."""
        return _SUBJECT_MATTERS[self.code[2]]

    @property
    def summary(self) -> str:
        """The first line of its page."""
        return self.page.partition("\n")[0]

    @property
    def page(self) -> str:
        """Its documentation, in Markdown: what it is about, a bad and a good example."""
        return inspect.cleandoc(self.look.__doc__ or "")


_CHECKS: dict[str, Check] = {}
_SUBJECT_MATTERS: Final = {
    "1": "data",
    "2": "labels",
    "3": "adapter",
    "4": "training",
    "5": "precision",
    "6": "devices",
    "7": "memory",
    "8": "saving",
    "9": "generation",
}
FAILS: Final = "FT426"
"""The check that says why a subject fails before any level, or while it trains."""
_MODULES: Final = (
    "data",
    "tokens",
    "held_out",
    "labels",
    "label_masks",
    "adapter",
    "training",
    "learning",
    "steps",
    "precision",
    "devices",
    "memory",
    "saving",
    "generation",
)


def check(
    code: str, slug: str, level: Level, severity: Severity
) -> Callable[[Callable[[Check, Seen], Iterator[Finding]]], Check]:
    """Register a check; the function gets the check itself and what was seen."""

    def register(look: Callable[[Check, Seen], Iterator[Finding]]) -> Check:
        def bound(seen: Seen) -> Iterator[Finding]:
            return look(made, seen)

        bound.__doc__ = look.__doc__
        made = Check(code=code, slug=slug, level=level, severity=severity, look=bound)
        if code in _CHECKS or any(slug == other.slug for other in _CHECKS.values()):
            raise ValueError(f"{code} {slug} is taken")
        _CHECKS[code] = made
        return made

    return register


def all_checks() -> tuple[Check, ...]:
    """Every check, in the order of codes."""
    import importlib

    for module in _MODULES:
        importlib.import_module(f"ftcheck.checks.{module}")
    return tuple(_CHECKS[code] for code in sorted(_CHECKS))


def find(name: str) -> Check:
    """A check by its code or slug.

    Raises:
        InputError: There is none; the nearest names are given.
    """
    for one in all_checks():
        if name.upper() == one.code or name == one.slug:
            return one
    raise _unknown(name)


def _unknown(name: str) -> InputError:
    names = [one.slug for one in all_checks()] + [one.code for one in all_checks()]
    return InputError(
        f'There is no check "{name}".',
        next_step=f"{did_you_mean(name, names)} All of them: ftcheck explain.".strip(),
    )


def selected(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Check, ...]:
    """The checks that a user wants.

    Args:
        select: Codes, prefixes of codes, or slugs; none selects all.
        ignore: The same, of those that are left out; the longer of two names that meet wins.

    Raises:
        InputError: A name that fits no check.
    """
    for name in (*select, *ignore):
        if not any(_fits(name, one) for one in all_checks()):
            raise _unknown(name)
    return tuple(one for one in all_checks() if _wanted(one, select, ignore))


def within(checks: Sequence[Check], levels: Collection[Level]) -> tuple[Check, ...]:
    """Those of some levels, and the one that says why a subject fails before any level."""
    return tuple(one for one in checks if one.level in levels or one.code == FAILS)


def _wanted(one: Check, select: Sequence[str], ignore: Sequence[str]) -> bool:
    chosen = max((len(name) for name in select if _fits(name, one)), default=-1 if select else 0)
    left_out = max((len(name) for name in ignore if _fits(name, one)), default=-1)
    return chosen > left_out


def _fits(name: str, one: Check) -> bool:
    if name == one.slug:
        return True
    return bool(re.fullmatch(r"FT?\d*", name.upper())) and one.code.startswith(name.upper())
