"""`ftcheck check --fix`: what would mend a recipe, shown as a diff, asked, and written."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftcheck.errors import InputError
from ftcheck.files import write_text
from ftcheck.recipe.load import builtin_names
from ftcheck.recipe.renames import RENAMES

if TYPE_CHECKING:
    from ftcheck.checks.finding import CheckReport

__all__ = ["mend", "recipe_file"]


def recipe_file(subject: str) -> Path:
    """The file of a recipe that is to be changed.

    Raises:
        InputError: The recipe is built in.
    """
    file = Path(subject)
    if subject in builtin_names():
        raise InputError(
            f"--fix: {subject} is built in, and cannot be changed.",
            next_step=f"Copy it first: ftcheck init my.toml --from {subject}",
        )
    return file / "recipe.toml" if file.is_dir() else file


def mend(subject: str, report: CheckReport, *, yes: bool) -> None:
    """Change a recipe file by the fixes of its errors and warnings.

    Comments and order stay. The old file is kept beside as `.bak`.
    """
    file = recipe_file(subject)
    changes: dict[str, Any] = {}
    for found in report.findings:
        if found.fails:
            changes |= found.fix.change
    if not changes:
        click.echo("No error or warning has a fix that can be written into the recipe.")
        return
    old = file.read_text(encoding="utf-8")
    new = changed(old, changes)
    if new == old:
        click.echo("The recipe has these fixes already.")
        return
    diff = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), subject, f"{subject}, mended"
    )
    click.echo("".join(diff).rstrip("\n"))
    if not yes and not click.confirm(f"Write this to {subject}?", err=True):
        return
    write_text(file.with_name(file.name + ".bak"), old)
    write_text(file, new)
    click.echo(f"Wrote {subject}; the old one is {file.name}.bak. Check it again.")


def changed(text: str, changes: Mapping[str, Any]) -> str:
    """TOML with some keys set; the value `None` takes a key out."""
    import tomlkit

    document = tomlkit.parse(text)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if value is None:
            table = document.get(section, {})
            if name in table:
                del table[name]
            continue
        if section not in document:
            document[section] = tomlkit.table()
        table = document[section]
        assert isinstance(table, dict)
        for rename in RENAMES:  # another version's name for the same
            if rename.section == section and name in rename.new and rename.old in table:
                del table[rename.old]
        table[name] = value
    return tomlkit.dumps(document)
