"""From a file to the report of its checks, outside of the process of the tests."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ftcheck.checks.finding import CheckReport, Level
from ftcheck.pytest_plugin.child import call_apart
from ftcheck.pytest_plugin.settings import Settings

__all__ = ["recipe_report", "script_report"]


def recipe_report(
    folder: Path, recipe: Path, codes: Sequence[str], levels: Sequence[Level]
) -> CheckReport:
    """Check a recipe file."""
    report: CheckReport = call_apart(folder, _recipe, str(recipe), tuple(codes), tuple(levels))
    return report


def _recipe(file: str, codes: Sequence[str], levels: Sequence[Level]) -> CheckReport:
    from ftcheck.recipe import load_recipe
    from ftcheck.subjects.check import check_recipe

    return check_recipe(load_recipe(file), select=codes, levels=levels)


def script_report(
    script: Path, codes: Sequence[str], levels: Sequence[Level], settings: Settings
) -> CheckReport:
    """Check a script, which gets a process of its own; from the level `roundtrip` on, with five
    steps of its training."""
    from ftcheck.subjects.script import check_script, named_places

    given = filter(None, (settings["stand-in"] or "").split(","))
    return check_script(
        script,
        shlex.split(settings["arguments"] or ""),
        select=codes,
        levels=levels,
        through=Level.ROUNDTRIP in levels or Level.MEMORY in levels,
        stand_ins=named_places(given, "--ftcheck-stand-in"),
    )
