"""An entry of a baseline, for tests of what is done with it."""

from __future__ import annotations

from typing import Any

from ftcheck.gate.baseline import Baseline, Entry, Match

VERSIONS = {"torch": "2.13.0", "transformers": "5.2.3", "peft": "0.19.1"}


def entry(**changes: Any) -> Entry:
    """An entry with some fields of its own."""
    fields: dict[str, Any] = {
        "test": "test_a.py::test_step",
        "kind": "predicted",
        "card": "l4-24gb",
        "versions": VERSIONS,
        "allocated_bytes": 1000,
        "reserved_bytes": 2000,
    }
    return Entry(**{**fields, **changes})


def nearest(baseline: Baseline, versions: dict[str, str] = VERSIONS) -> Match:
    """What is nearest to that entry with some versions."""
    match = baseline.nearest(
        test="test_a.py::test_step", kind="predicted", card="l4-24gb", versions=versions
    )
    assert match is not None
    return match
