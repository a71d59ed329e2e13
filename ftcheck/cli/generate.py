"""`ftcheck generate`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["generate"]


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("prompts", nargs=-1, required=True)
@click.option("-v", "--verbose", is_flag=True, help="Let the libraries' warnings through.")
def generate(run_folder: Path, prompts: tuple[str, ...], verbose: bool) -> int:
    """Continue PROMPTS with the model that a run left in RUN_FOLDER."""
    from ftcheck.cli.console import quiet_libraries
    from ftcheck.errors import InputError
    from ftcheck.recipe import load_recipe

    recipe_file, adapter = run_folder / "recipe.toml", run_folder / "adapter"
    if not (recipe_file.is_file() and adapter.is_dir()):
        raise InputError(
            f"{run_folder} has no recipe.toml and adapter, expected a finished run folder.",
            next_step="Make one with: ftcheck run",
        )
    recipe = load_recipe(recipe_file)
    if not verbose:
        quiet_libraries()
    from ftcheck import pipeline

    model, tokenizer = pipeline.reload(recipe, adapter)
    for text in pipeline.generate(model, tokenizer, recipe, prompts):
        click.echo(text)
    return 0
