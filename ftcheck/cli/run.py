"""`ftcheck run`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ftcheck.pipeline import RunFolder, RunResult
    from ftcheck.recipe import Recipe

__all__ = ["run"]

_INTERRUPTED = 130


@click.command()
@click.argument("recipe", default="quickstart")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe, as in --set training.learning_rate=1e-4; may be given again.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="The run folder; must not exist. [default: runs/RECIPE-N]",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of an unfinished run.")
@click.option(
    "--inexact-resume",
    is_flag=True,
    help="Resume even where the installed versions would give another result.",
)
@click.option(
    "--num-processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes to train with, started by accelerate launch.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the summary.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the summary. [default: standard output]",
)
@click.option("-v", "--verbose", is_flag=True, help="Let the libraries' warnings through.")
def run(
    recipe: str,
    overrides: tuple[str, ...],
    output_dir: Path | None,
    *,
    resume: bool,
    inexact_resume: bool,
    num_processes: int,
    style: str,
    output: Path | None,
    verbose: bool,
) -> int:
    """Fine-tune by RECIPE, save, load again, generate.

    RECIPE is a TOML file, the name of a built-in recipe (see: ftcheck recipes), or a run folder
    with --resume. Without it, the built-in quickstart runs: no network, no GPU, under a minute.
    """
    from ftcheck.recipe import load_recipe

    if num_processes > 1:
        load_recipe(recipe, overrides=overrides)  # an error is said once, not by every process
        return _launch(num_processes)
    return _run(
        recipe,
        overrides,
        output_dir,
        resume=resume,
        inexact_resume=inexact_resume,
        style=style,
        output=output,
        verbose=verbose,
    )


def _launch(num_processes: int) -> int:
    """Start the same command again, in several processes."""
    import torch

    arguments = _without_option(sys.argv[1:], "--num-processes")
    # On a CPU too: `accelerate launch --cpu` starts one process, unless there is MPI.
    environment = {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "true"}
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_processes", str(num_processes), "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--quiet"),
        *("-m", "ftcheck", *arguments),
    ]
    return subprocess.run(command, check=False, env={**os.environ, **environment}).returncode


def _without_option(arguments: list[str], name: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == name:
            skip = True
        elif not argument.startswith(f"{name}="):
            kept.append(argument)
    return kept


def _run(
    recipe: str,
    overrides: tuple[str, ...],
    output_dir: Path | None,
    *,
    resume: bool,
    inexact_resume: bool,
    style: str,
    output: Path | None,
    verbose: bool,
) -> int:
    from ftcheck.cli.console import ConsoleProgress, quiet_libraries
    from ftcheck.errors import InputError
    from ftcheck.pipeline import processes
    from ftcheck.pipeline.progress import Silent
    from ftcheck.recipe import load_recipe

    loaded = load_recipe(recipe, overrides=overrides)
    if not verbose or not processes.is_main_process():
        quiet_libraries()
    from ftcheck.pipeline import Interrupted
    from ftcheck.pipeline import run as run_recipe

    folder = _folder(recipe, loaded, output_dir, resume=resume)
    if resume and folder.recipe.is_file():
        # The run folder's own recipe decides, in which every default is written out.
        loaded = load_recipe(folder.recipe, overrides=overrides)
    try:
        if processes.is_main_process():
            with ConsoleProgress() as progress:
                result = run_recipe(
                    loaded,
                    folder,
                    resume=resume,
                    inexact_resume=inexact_resume,
                    progress=progress,
                )
            _print(result, style, output)
        else:
            run_recipe(
                loaded, folder, resume=resume, inexact_resume=inexact_resume, progress=Silent()
            )
    except InputError:
        if not resume and processes.is_main_process():
            folder.discard()  # nothing was trained: nothing is left half written
        raise
    except Interrupted as stop:
        if processes.is_main_process():
            saved = stop.checkpoint.folder if stop.checkpoint else "nothing"
            click.echo(f"Interrupted; saved {saved}.", err=True)
            click.echo(f"Go on with: ftcheck run --resume {stop.folder}", err=True)
        return _INTERRUPTED
    return 0


def _folder(given: str, recipe: Recipe, output_dir: Path | None, *, resume: bool) -> RunFolder:
    """The run folder, the same on every process; `training.output_dir` holds those of a recipe."""
    from ftcheck.pipeline import RunFolder, processes

    made: RunFolder | None = None
    if processes.is_main_process():
        parent = Path(recipe.training.get("output_dir", "runs"))
        named = output_dir or (Path(given) if Path(given).is_dir() else None)
        if resume:
            made = RunFolder.existing(named) if named else RunFolder.unfinished(parent, recipe.name)
        elif output_dir:
            made = RunFolder.at(output_dir)
        else:
            made = RunFolder.new(parent, recipe.name)
    shared = processes.same_on_all(made)
    assert shared is not None
    return shared


def _print(result: RunResult, style: str, output: Path | None) -> None:
    import json

    from ftcheck.pipeline.folder import write_text
    from ftcheck.report.run_summary import run_summary

    text = json.dumps(result.to_dict(), indent=2) if style == "json" else run_summary(result)
    if output is None:
        click.echo(text)
    else:
        write_text(output, text + "\n")
