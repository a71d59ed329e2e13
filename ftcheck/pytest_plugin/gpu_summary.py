"""What is said at the end about GPU tests: on what they ran, what was assumed, what was left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["left_behind", "on_the_virtual_gpu"]


def on_the_virtual_gpu(told: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """The cards that the virtual GPU stood in for, and what tests that passed rest on.

    Args:
        told: Test to what it told.
    """
    virtual = [facts for facts in told.values() if facts.get("gpu") == "virtual"]
    cards = Counter((facts["card"], facts["assumed"]) for facts in virtual)
    for (card, assumed), count in cards.items():
        tests = f"{count} test{'s' if count > 1 else ''}"
        yield f"{tests} on {card}" + (f", {assumed}" if assumed else "")
    rests = Counter(text for facts in virtual for text in facts.get("assumptions", ()))
    for text, count in rests.most_common():
        yield f"{count} of those that passed: {text}"


def left_behind(told: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Tests after which memory of a real card was still in use.

    Args:
        told: Test to what it told.
    """
    from ftcheck.units import format_bytes

    for test, facts in told.items():
        if "left_bytes" in facts:
            yield f"{test}: {format_bytes(facts['left_bytes'])}"
