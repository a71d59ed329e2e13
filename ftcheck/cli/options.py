"""Options that several commands have, declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["emit", "form_options", "set_option"]

Command = TypeVar("Command", bound=Callable[..., Any])

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe, as in --set training.learning_rate=1e-4; may be given again.",
)
"""`--set KEY=VALUE`, as `overrides`."""


def form_options(what: str, *forms: str) -> Callable[[Command], Command]:
    """`--format`, as `style`, and `--output`.

    Args:
        what: What is printed, such as `summary`.
        forms: Its forms; the first is the default.
    """
    style = click.option(
        "--format",
        "style",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help=f"Form of the {what}.",
    )
    output = click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File for the {what}. [default: standard output]",
    )
    return lambda command: style(output(command))


def emit(text: str, output: Path | None) -> None:
    """Print, or write to the file of `--output`."""
    from ftcheck.files import write_text

    if output is None:
        click.echo(text)
    else:
        write_text(output, text + "\n")
