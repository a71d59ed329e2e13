"""`ftcheck check` and `ftcheck explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftcheck.cli.options import emit, form_options, set_option
from ftcheck.errors import InputError

if TYPE_CHECKING:
    from ftcheck.checks.finding import CheckReport, Level

__all__ = ["check", "explain"]

_LEVELS = ("static", "data", "step", "roundtrip", "memory")
_SCRIPTS = (".py", ".ipynb")
_FINDINGS, _UNMEASURED, _BROKE = 1, 3, 4


@click.command()
@click.argument("subject")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@set_option
@click.option(
    "--level",
    type=click.Choice(_LEVELS),
    default="memory",
    show_default=True,
    help="How far to look; each level contains those before it.",
)
@click.option(
    "--select", multiple=True, metavar="CODE", help="Run these alone: FT2, FT203, a slug."
)
@click.option("--ignore", multiple=True, metavar="CODE", help="Leave these out; the same names.")
@click.option(
    "--through",
    type=click.Choice(("generate",)),
    help="Follow a script behind its training, with five steps: what it saves, loads, generates.",
)
@click.option(
    "--stand-in",
    "stand_ins",
    multiple=True,
    metavar="NAME=PATH",
    help="Answer a name on the hub with a folder (data: or a file), for a script.",
)
@click.option("--real-model", is_flag=True, help="Run the steps on the recipe's own model.")
@click.option("--fix", is_flag=True, help="Show what would mend the recipe, ask, and write it.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@click.option(
    "--timeout", type=click.IntRange(min=1), default=600, show_default=True, help="Seconds."
)
@form_options("report", "text", "json", "junit", "markdown")
@click.option("-v", "--verbose", is_flag=True, help="Show evidence, and what was not measured.")
def check(
    subject: str,
    arguments: tuple[str, ...],
    *,
    overrides: tuple[str, ...],
    level: str,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    through: str | None,
    stand_ins: tuple[str, ...],
    real_model: bool,
    fix: bool,
    yes: bool,
    timeout: int,
    style: str,
    output: Path | None,
    verbose: bool,
) -> int:
    """Say what is wrong with SUBJECT, and how to mend it.

    SUBJECT is a recipe (a TOML file or a built-in name), a training script (.py) or a notebook. A
    script is run up to its training, on the CPU; its ARGUMENTS come behind --.
    """
    from ftcheck.checks.finding import Level

    levels = Level(level).up_to()
    is_script = Path(subject).suffix in _SCRIPTS
    if is_script:
        if overrides or fix:
            raise InputError("--set and --fix are for recipes.", next_step="Edit the script.")
        report = _script(
            subject,
            arguments,
            levels=levels,
            through=through,
            stand_ins=stand_ins,
            select=select,
            ignore=ignore,
            timeout=timeout,
        )
    else:
        if arguments or through or stand_ins:
            raise InputError(
                "Arguments, --through and --stand-in are for scripts.",
                next_step="Leave them out, or give a .py file.",
            )
        if fix:
            from ftcheck.cli.fix import recipe_file

            recipe_file(subject)  # refuses a built-in one before the long looks
        report = _recipe(
            subject,
            overrides,
            levels=levels,
            select=select,
            ignore=ignore,
            timeout=timeout,
            real=real_model,
        )
    _print(report, style, output, verbose=verbose)
    if fix:
        from ftcheck.cli.fix import mend

        mend(subject, report, yes=yes)
    return _status(report)


def _recipe(
    subject: str,
    overrides: tuple[str, ...],
    *,
    levels: tuple[Level, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    timeout: int,
    real: bool,
) -> CheckReport:
    from ftcheck.recipe import load_recipe

    recipe = load_recipe(subject, overrides=overrides)
    from ftcheck.cli.console import ConsoleProgress, quiet_libraries

    with ConsoleProgress() as progress:
        progress.stage("Importing the libraries")
        quiet_libraries()
        from ftcheck.subjects.check import check_recipe

        return check_recipe(
            recipe,
            levels=levels,
            select=select,
            ignore=ignore,
            real_model=real,
            say=progress.stage,
            timeout_s=timeout,
        )


def _script(
    subject: str,
    arguments: tuple[str, ...],
    *,
    levels: tuple[Level, ...],
    through: str | None,
    stand_ins: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    timeout: int,
) -> CheckReport:
    from ftcheck.checks.registry import selected
    from ftcheck.cli.console import ConsoleProgress
    from ftcheck.subjects.script import check_script, named_places

    selected(select, ignore)
    places = named_places(stand_ins, "--stand-in")
    with ConsoleProgress() as progress:
        progress.stage(f"Running {Path(subject).name} up to its training, and looking")
        return check_script(
            subject,
            arguments,
            levels=levels,
            through=through is not None,
            stand_ins=places,
            select=select,
            ignore=ignore,
            timeout_s=timeout,
        )


def _print(report: CheckReport, style: str, output: Path | None, *, verbose: bool) -> None:
    from ftcheck.report.check_summary import check_junit, check_markdown, check_summary

    if style == "json":
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
    elif style == "junit":
        text = check_junit(report)
    elif style == "markdown":
        text = check_markdown(report)
    else:
        text = check_summary(report, verbose=verbose)
    emit(text, output)


def _status(report: CheckReport) -> int:
    from ftcheck.checks.finding import Status

    if any(found.fails for found in report.findings):
        return _FINDINGS
    if any(report.with_status(Status.ERROR)):
        return _BROKE
    return 0


@click.command()
@click.argument("name", required=False)
def explain(name: str | None) -> int:
    """Explain a check, by its code or slug; without one, list all of them."""
    from ftcheck.checks.registry import all_checks, find

    if name is None:
        for one in all_checks():
            click.echo(f"{one.code}  {one.severity.value:<8} {one.slug:<32} {one.summary}")
        return 0
    one = find(name)
    click.echo(f"{one.code} {one.slug} ({one.severity.value}, level {one.level.value})\n")
    click.echo(one.page)
    return 0
