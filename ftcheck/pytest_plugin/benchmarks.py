"""Peaks of memory that a test reports, on their way to the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from ftcheck.pytest_plugin.state import tell

if TYPE_CHECKING:
    from ftcheck.gate.baseline import Kind
    from ftcheck.gate.recording import Repeats

__all__ = ["Benchmark", "benchmark_of", "keyed_versions", "tell_asked", "tell_benchmark"]

_FACT: Final = "vram_benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What a test that asked for a benchmark came to.

    Attributes:
        repeats: Its peaks; `None` where it measured nothing.
        seconds: Of one call; `None` where time means nothing or was not taken.
        budget: What its marker allows, in words; empty where there is none.
    """

    repeats: Repeats | None
    seconds: float | None = None
    budget: str = ""


def tell_asked(item: pytest.Item) -> None:
    """Say that a test is a benchmark, before anything was measured."""
    tell(item, {_FACT: None})


def tell_benchmark(
    item: pytest.Item,
    *,
    kind: Kind,
    card: str,
    allocated_bytes: Sequence[float],
    reserved_bytes: Sequence[float],
    seconds: float | None = None,
    budget: str = "",
) -> dict[str, Any]:
    """Send the peaks of a test to the controller.

    Args:
        item: The test.
        kind: Measured on the card, or predicted for it.
        card: Its name.
        allocated_bytes: Peak of each of some equal calls.
        reserved_bytes: The same.
        seconds: Of one call.
        budget: What its marker allows, in words.

    Returns:
        What was sent.
    """
    assert item.parent is not None
    facts = {
        "test": f"{item.parent.nodeid}::{item.name}",  # xdist adds groups to that of the item
        "kind": kind,
        "card": card,
        "versions": keyed_versions(kind),
        "allocated_bytes": list(allocated_bytes),
        "reserved_bytes": list(reserved_bytes),
        "seconds": seconds,
        "budget": budget,
    }
    tell(item, {_FACT: facts})
    return facts


def keyed_versions(kind: Kind) -> dict[str, str]:
    """Versions that peaks depend on; predicted ones also on that of the predictor."""
    from ftcheck.environment import installed_version
    from ftcheck.gate.baseline import KEYED_BY

    names = KEYED_BY if kind == "measured" else (*KEYED_BY, "pytest-ftcheck")
    found = {name: installed_version(name) for name in names}
    return {name: version for name, version in found.items() if version}


def benchmark_of(facts: Mapping[str, Any]) -> Benchmark | None:
    """What a test told; `None` where it is no benchmark."""
    if _FACT not in facts:
        return None
    told = facts[_FACT]
    if told is None:
        return Benchmark(repeats=None)
    from ftcheck.gate.recording import Repeats

    repeats = Repeats(
        test=told["test"],
        kind=told["kind"],
        card=told["card"],
        versions=told["versions"],
        allocated_bytes=tuple(told["allocated_bytes"]),
        reserved_bytes=tuple(told["reserved_bytes"]),
    )
    return Benchmark(repeats=repeats, seconds=told["seconds"], budget=told["budget"])
