"""What the plugin keeps in `config.stash`, and how results come from workers to the controller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

from ftcheck.pytest_plugin.settings import Settings

if TYPE_CHECKING:
    from ftcheck.recipe import Recipe

__all__ = [
    "RECIPE_IN_TURN",
    "RESULTS",
    "SETTINGS",
    "Results",
    "is_worker",
    "tell",
    "told",
    "unmeasured",
]

_PROPERTY: Final = "ftcheck"


class Results:
    """What tests told, on the controller.

    Attributes:
        told: Test to what it told, in the order in which tests ended.
    """

    def __init__(self) -> None:
        self.told: dict[str, dict[str, Any]] = {}

    def take(self, report: pytest.TestReport) -> None:
        """Keep what a test told."""
        facts = told(report)
        if facts:
            self.told.setdefault(report.nodeid, {}).update(facts)


SETTINGS: Final = pytest.StashKey[Settings]()
RESULTS: Final = pytest.StashKey[Results]()
RECIPE_IN_TURN: Final[pytest.StashKey[Recipe | None]] = pytest.StashKey()
"""The recipe of the file that the running item was collected from."""


def tell(item: pytest.Item, facts: Mapping[str, Any]) -> None:
    """Send facts of a test to the controller: plain data, as JSON in its properties."""
    item.user_properties.append((_PROPERTY, json.dumps(facts, ensure_ascii=False)))


def told(report: pytest.TestReport) -> dict[str, Any]:
    """What a test told so far."""
    facts: dict[str, Any] = {}
    for name, text in report.user_properties:
        if name == _PROPERTY:
            facts.update(json.loads(str(text)))
    return facts


def unmeasured(item: pytest.Item, reason: str) -> NoReturn:
    """End a test that applies and cannot be measured here. It did not pass."""
    tell(item, {"status": "unmeasured", "reason": reason})
    pytest.skip(f"unmeasured: {reason}")


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of xdist."""
    return hasattr(config, "workerinput")
