"""Which tests show that a check catches something, and which that it leaves a near miss alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["CATCHES", "LEAVES_ALONE", "catches", "leaves_alone"]

Test = TypeVar("Test", bound=Callable[..., Any])

CATCHES: dict[str, list[str]] = defaultdict(list)
LEAVES_ALONE: dict[str, list[str]] = defaultdict(list)


def catches(*codes: str) -> Callable[[Test], Test]:
    """Mark a test in which checks find something that is wrong."""
    return _marking(CATCHES, codes)


def leaves_alone(*codes: str) -> Callable[[Test], Test]:
    """Mark a test in which checks find nothing in what is nearly wrong."""
    return _marking(LEAVES_ALONE, codes)


def _marking(where: dict[str, list[str]], codes: tuple[str, ...]) -> Callable[[Test], Test]:
    def mark(test: Test) -> Test:
        for code in codes:
            where[code].append(test.__name__)
        return test

    return mark
