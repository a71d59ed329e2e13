"""Commands that print what there is: `init`, `recipes`, `doctor`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["doctor", "init", "recipes"]


@click.command()
def recipes() -> int:
    """List the built-in recipes."""
    from ftcheck.recipe import builtin_names, load_recipe

    names = builtin_names()
    width = max(len(name) for name in names)
    for name in names:
        click.echo(f"{name:<{width}}  {load_recipe(name).description}")
    return 0


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="my.recipe.toml")
@click.option(
    "--from",
    "builtin",
    default="text-file",
    show_default=True,
    help="Built-in recipe to start from.",
)
@click.option("--force", is_flag=True, help="Replace FILE; the old one is kept beside as .bak.")
def init(file: Path, builtin: str, force: bool) -> int:
    """Write a commented recipe to FILE. [default: my.recipe.toml]"""
    import os

    from ftcheck.errors import InputError
    from ftcheck.files import write_text
    from ftcheck.recipe import builtin_names
    from ftcheck.recipe.template import commented_recipe
    from ftcheck.recipe.values import did_you_mean

    if builtin not in builtin_names():
        raise InputError(
            f"--from {builtin}: not a built-in recipe. {did_you_mean(builtin, builtin_names())}",
            next_step="List them with: ftcheck recipes",
        )
    if file.exists():
        if not force:
            raise InputError(
                f"{file} exists, and is not overwritten.",
                next_step="Name another file, or give --force to keep the old one as .bak.",
            )
        os.replace(file, file.with_name(file.name + ".bak"))
    write_text(file, commented_recipe(builtin))
    click.echo(f"Wrote {file}. Run it with: ftcheck run {file}")
    return 0


@click.command()
def doctor() -> int:
    """Print the installed versions and the library bugs that they have."""
    from ftcheck.environment import current
    from ftcheck.pipeline.library_bugs import LIBRARY_BUGS

    here = current()
    click.echo(f"Python {here.python} on {here.platform}")
    for name, version in here.versions.items():
        click.echo(f"  {name} {version}")
    installed = [bug for bug in LIBRARY_BUGS if bug.installed()]
    click.echo(f"\n{len(installed)} known library bugs in these versions:")
    for bug in installed:
        click.echo(f"  {bug.slug}: {bug.effect}.")
        click.echo(f"    ftcheck: {bug.handled}. Source: {bug.source}")
    return 0
