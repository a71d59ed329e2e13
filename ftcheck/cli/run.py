"""`ftcheck run`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftcheck.cli.options import emit, form_options, set_option
from ftcheck.errors import InputError

if TYPE_CHECKING:
    from ftcheck.pipeline import RunFolder, RunResult
    from ftcheck.pipeline.progress import Progress
    from ftcheck.recipe import Recipe

__all__ = ["run"]

_INTERRUPTED = 130


@click.command()
@click.argument("recipe", default="quickstart")
@set_option
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
@form_options("summary", "text", "json")
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

    loaded = load_recipe(recipe, overrides=overrides)
    if num_processes > 1:
        return _launch(num_processes)
    with _progress() as progress:
        progress.stage("Importing the libraries")
        if not verbose:
            from ftcheck.cli.console import quiet_libraries

            quiet_libraries()
        folder = _folder(recipe, loaded, output_dir, resume=resume)
        if resume and folder.recipe.is_file():
            # The run folder's own recipe decides, in which every default is written out.
            loaded = load_recipe(folder.recipe, overrides=overrides)
        result = _fine_tuned(loaded, folder, progress, resume=resume, inexact_resume=inexact_resume)
    if result is None:
        return _INTERRUPTED
    from ftcheck.pipeline.processes import is_main_process

    if is_main_process():
        _print(result, style, output)
    return 0


def _progress() -> AbstractContextManager[Progress]:
    """Bars or lines on rank 0, silence elsewhere."""
    from ftcheck.cli.console import ConsoleProgress
    from ftcheck.pipeline.processes import is_main_process
    from ftcheck.pipeline.progress import Silent

    return ConsoleProgress() if is_main_process() else nullcontext(Silent())


def _fine_tuned(
    recipe: Recipe,
    folder: RunFolder,
    progress: Progress,
    *,
    resume: bool,
    inexact_resume: bool,
) -> RunResult | None:
    """The result; `None` where Ctrl-C stopped the run, and how to go on was said."""
    from ftcheck.pipeline import Interrupted, processes
    from ftcheck.pipeline import run as run_recipe

    try:
        return run_recipe(
            recipe, folder, resume=resume, inexact_resume=inexact_resume, progress=progress
        )
    except InputError:
        if not resume and processes.is_main_process():
            folder.discard()  # nothing was trained: nothing is left half written
        raise
    except Interrupted as stop:
        saved = stop.checkpoint.folder if stop.checkpoint else "nothing"
        progress.note(
            f"Interrupted; saved {saved}.\nGo on with: ftcheck run --resume {stop.folder}"
        )
        return None


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

    from ftcheck.report.run_summary import run_summary

    emit(json.dumps(result.to_dict(), indent=2) if style == "json" else run_summary(result), output)
