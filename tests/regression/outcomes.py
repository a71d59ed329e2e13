"""What a regression shows, by version: strict both ways."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

from ftcheck.pipeline.library_bugs import in_range, versions_of

__all__ = ["ELSEWHERE", "Outcome", "by_version", "expected_outcome", "said_by", "versions_of"]

P = ParamSpec("P")
Outcome = tuple[Mapping[str, str], object]
"""Distribution to the versions that it needs, all of which must be met; and what is seen there."""

ELSEWHERE: Mapping[str, str] = {}
"""The versions of a last row: all that no row above has."""


def by_version(*outcomes: Outcome) -> Callable[[Callable[P, object]], Callable[P, None]]:
    """Make a test of a function that returns what it sees.

    The test fails where that is not what the first row of the installed versions says: a bug that
    went away fails as one that came does.

    Args:
        outcomes: A pattern is searched for in the text of what was seen; anything else must equal
            it.
    """

    def decorate(see: Callable[P, object]) -> Callable[P, None]:
        @functools.wraps(see)
        def test(*args: P.args, **kwargs: P.kwargs) -> None:
            compare(see(*args, **kwargs), expected_outcome(outcomes))

        return test

    return decorate


def expected_outcome(outcomes: tuple[Outcome, ...]) -> object:
    """What the first row says whose versions are installed.

    Raises:
        LookupError: No row has them.
    """
    for versions, expected in outcomes:
        if in_range(versions):
            return expected
    raise LookupError("no row has the installed versions; end with one for ELSEWHERE")


def compare(seen: object, expected: object) -> None:
    """Assert that what was seen is what was expected."""
    __tracebackhide__ = True
    if isinstance(expected, re.Pattern):
        assert expected.search(str(seen)), f"saw {seen!r}, expected {expected.pattern!r}"
    else:
        assert seen == expected, f"saw {seen!r}, expected {expected!r}"


def said_by(function: Callable[[], Any]) -> str:
    """Class and first line of what a call raises; "nothing" where it returns."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 # what it says is what is looked at
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "nothing"
