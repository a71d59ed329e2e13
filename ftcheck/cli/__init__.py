"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from ftcheck import __version__
from ftcheck.cli.check import check, explain
from ftcheck.cli.describe import doctor, init, recipes
from ftcheck.cli.generate import generate
from ftcheck.cli.run import run
from ftcheck.cli.vram import vram
from ftcheck.errors import FtcheckError

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_OWN_FAILURE = 4


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all passed, 1 findings, 2 the input is wrong, 3 something could not be "
    "measured, 4 ftcheck itself failed, 130 interrupted.",
)
@click.version_option(__version__, prog_name="ftcheck")
def group() -> None:
    """Is a Hugging Face fine-tuning recipe right, does it fit your card, what did a change do?"""


for command in (run, check, vram, explain, generate, init, recipes, doctor):
    group.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ftcheck`; ends the process with one of the exit codes."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = group.main(arguments, prog_name="ftcheck", standalone_mode=False)
    except FtcheckError as error:
        if os.environ.get("RANK", "0") == "0":  # several processes: said once
            click.echo(f"ftcheck: error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("ftcheck: interrupted", err=True)
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence says so and says why
        traceback.print_exc()
        click.echo(
            f"ftcheck: failed itself: {type(error).__name__}: {error}\n"
            "The traceback above belongs into a bug report.",
            err=True,
        )
        return _OWN_FAILURE
    return status if isinstance(status, int) else 0
