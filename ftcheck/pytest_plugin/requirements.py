"""What the markers of GPU tests say: `gpu`, `ftcheck_gpu` and `vram_budget`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, get_args

import pytest

__all__ = [
    "SUITES_OWN",
    "Budget",
    "Needs",
    "WrongMarker",
    "budget_of",
    "budgets_of",
    "gpu_markers",
    "is_gpu_test",
    "needs_of",
    "validate",
]

Of = Literal["reserved", "allocated", "card"]

FIXTURE: Final = "ftcheck_gpu"
"""Every fixture of ours that gives a card rests on it."""
SUITES_OWN: Final = pytest.StashKey[bool]()
"""Whether `gpu` is a marker of the suite, with a meaning of its own."""


class WrongMarker(ValueError):
    """A marker has an argument that it does not take."""


class Needs(NamedTuple):
    """What a test needs of its card."""

    min_vram_bytes: int = 0
    """Memory of the card."""
    min_capability: tuple[int, int] = (0, 0)
    """Compute capability."""
    cards: int = 1
    """How many."""


class Budget(NamedTuple):
    """A limit, which itself is allowed."""

    limit_bytes: int
    of: Of
    """`reserved` by the allocator, `allocated` in it, or taken from the `card`, with the CUDA
    context."""
    text: str
    """The limit as it was written."""


def gpu_markers(config: pytest.Config) -> tuple[str, ...]:
    """Names of the markers that say a test needs a card."""
    return ("ftcheck_gpu",) if config.stash.get(SUITES_OWN, False) else ("gpu", "ftcheck_gpu")


def is_gpu_test(item: pytest.Item) -> bool:
    """Whether it is marked as one, has a budget, or asks for a card."""
    if FIXTURE in getattr(item, "fixturenames", ()):
        return True
    names = (*gpu_markers(item.config), "vram_budget")
    return any(marker.name in names for marker in item.iter_markers())


def needs_of(item: pytest.Item) -> Needs:
    """What its nearest marker says.

    Raises:
        WrongMarker: With the name of the marker, what was found and what was expected.
    """
    names = gpu_markers(item.config)
    for marker in item.iter_markers():
        if marker.name in names and (marker.args or marker.kwargs):
            return _needs(marker)
    return Needs()


def budgets_of(item: pytest.Item) -> tuple[Budget, ...]:
    """One for each thing that is limited, from the nearest marker.

    Raises:
        WrongMarker: With the name of the marker, what was found and what was expected.
    """
    found: dict[str, Budget] = {}
    for marker in item.iter_markers("vram_budget"):
        if len(marker.args) != 1 or marker.kwargs.keys() - {"of"}:
            raise WrongMarker(f'{_said(marker)}, expected vram_budget("8 GiB", of="reserved")')
        budget = budget_of(marker.args[0], marker.kwargs.get("of", "reserved"))
        found.setdefault(budget.of, budget)
    return tuple(found.values())


def budget_of(limit: str | int, of: Any = "reserved") -> Budget:
    """A limit as it is written in a test.

    Args:
        limit: Such as `"8 GiB"`, or bytes.
        of: What is limited.

    Raises:
        WrongMarker: One of them cannot be used.
    """
    if of not in get_args(Of):
        raise WrongMarker(f"vram budget: of: got {of!r}, expected one of {', '.join(get_args(Of))}")
    from ftcheck.units import format_bytes

    limit_bytes = _bytes("vram budget", limit)
    text = limit if isinstance(limit, str) else format_bytes(limit_bytes)
    return Budget(limit_bytes=limit_bytes, of=of, text=text)


def validate(item: pytest.Item) -> None:
    """Read the markers of a test.

    Raises:
        WrongMarker: With the name of the marker, what was found and what was expected.
    """
    for marker in item.iter_markers():
        if marker.name in gpu_markers(item.config):
            _needs(marker)
    budgets_of(item)


def _needs(marker: pytest.Mark) -> Needs:
    expected = f'{marker.name}(min_vram="8GiB", min_capability=(8, 0), count=1)'
    unknown = marker.kwargs.keys() - {"min_vram", "min_capability", "count"}
    if marker.args or unknown:
        raise WrongMarker(f"{_said(marker)}, expected {expected}")
    capability = marker.kwargs.get("min_capability", (0, 0))
    if not _is_capability(capability):
        raise WrongMarker(
            f"{marker.name}: min_capability: got {capability!r}, expected a pair such as (8, 0)"
        )
    count = marker.kwargs.get("count", 1)
    if type(count) is not int or count < 1:
        raise WrongMarker(f"{marker.name}: count: got {count!r}, expected 1 or more")
    vram = marker.kwargs.get("min_vram", 0)
    return Needs(
        min_vram_bytes=_bytes(f"{marker.name}: min_vram", vram) if vram else 0,
        min_capability=(capability[0], capability[1]),
        cards=count,
    )


def _is_capability(value: Any) -> bool:
    return isinstance(value, tuple) and [type(part) for part in value] == [int, int]


def _bytes(where: str, amount: Any) -> int:
    if type(amount) is int and amount > 0:
        return amount
    if isinstance(amount, str):
        from ftcheck.units import parse_bytes

        try:
            return parse_bytes(amount)
        except ValueError as error:
            raise WrongMarker(f"{where}: {error}") from error
    raise WrongMarker(f"{where}: got {amount!r}, expected memory such as '8 GiB'")


def _said(marker: pytest.Mark) -> str:
    def words() -> Iterator[str]:
        yield from (repr(value) for value in marker.args)
        yield from (f"{name}={value!r}" for name, value in marker.kwargs.items())

    return f"got {marker.name}({', '.join(words())})"
