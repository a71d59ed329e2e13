"""From a file to the report of its checks, in a process of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from ftcheck.checks.finding import CheckReport, Level
from ftcheck.pytest_plugin.child import call_apart
from ftcheck.pytest_plugin.settings import Settings

__all__ = ["recipe_report", "script_report", "stand_ins"]


def recipe_report(
    folder: Path, recipe: Path, codes: Sequence[str], levels: Sequence[Level]
) -> CheckReport:
    """Check a recipe file."""
    report: CheckReport = call_apart(folder, _recipe, str(recipe), tuple(codes), tuple(levels))
    return report


def _recipe(file: str, codes: Sequence[str], levels: Sequence[Level]) -> CheckReport:
    from ftcheck.audit.check import check_recipe
    from ftcheck.recipe import load_recipe

    return check_recipe(load_recipe(file), select=codes, levels=levels)


def script_report(
    folder: Path,
    script: Path,
    codes: Sequence[str],
    levels: Sequence[Level],
    settings: Settings,
) -> CheckReport:
    """Check a script; from the level `roundtrip` on, with five steps of its training."""
    report: CheckReport = call_apart(
        folder,
        _script,
        str(script),
        shlex.split(settings["arguments"] or ""),
        tuple(codes),
        tuple(levels),
        stand_ins(settings),
    )
    return report


def _script(
    file: str,
    arguments: Sequence[str],
    codes: Sequence[str],
    levels: Sequence[Level],
    names: dict[str, str],
) -> CheckReport:
    from ftcheck.audit.script import check_script

    through = Level.ROUNDTRIP in levels or Level.MEMORY in levels
    return check_script(
        file, arguments, select=codes, levels=levels, through=through, stand_ins=names
    )


def stand_ins(settings: Settings) -> dict[str, str]:
    """Names on the hub to folders, as `--ftcheck-stand-in` has them.

    Raises:
        pytest.UsageError: A part without an equals sign.
    """
    pairs = {}
    for pair in filter(None, (settings["stand-in"] or "").split(",")):
        name, equals, folder = pair.partition("=")
        if not equals:
            raise pytest.UsageError(f"--ftcheck-stand-in: got {pair!r}, expected NAME=DIR")
        pairs[name.strip()] = folder.strip()
    return pairs
