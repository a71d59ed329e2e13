"""`ftcheck vram`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftcheck.cli.options import emit, form_options, set_option
from ftcheck.errors import InputError

if TYPE_CHECKING:
    from ftcheck.cards import Card
    from ftcheck.recipe import Recipe
    from ftcheck.vram.vram_report import VramReport

__all__ = ["vram"]

_DOES_NOT_FIT = 1
_DEFAULT_RECIPE = "gpt2-wikitext2"


@click.command()
@click.argument("recipe", required=False)
@set_option
@click.option("--card", metavar="NAME", help="Card to fit; --list-cards lists them.")
@click.option("--vram", "amount", metavar="SIZE", help="Memory to fit, such as 8GiB.")
@click.option(
    "--cards",
    "cards_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file with cards of your own.",
)
@click.option("--list-cards", is_flag=True, help="List the known cards.")
@click.option("--measure", is_flag=True, help="Run it on the card of this machine instead.")
@click.option(
    "--what-if", is_flag=True, help="Try the changes that save memory, sorted by what they save."
)
@click.option("--max-batch", is_flag=True, help="Find the largest batch that fits.")
@click.option(
    "--timeline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw memory over time: .html, .svg, .png, or .pickle for pytorch.org/memory_viz.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Replay a memory snapshot (torch.cuda.memory._dump_snapshot) instead of a recipe.",
)
@click.option("--device", type=click.IntRange(min=0), help="GPU of --replay. [default: busiest]")
@click.option(
    "--alloc-conf",
    metavar="CONF",
    help="Allocator settings, such as expandable_segments:True. "
    "[default: PYTORCH_ALLOC_CONF, or as recorded]",
)
@click.option(
    "--validate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Measure and predict a grid of configurations on this machine's card; tables to FOLDER.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Seconds that one prediction may take.",
)
@form_options("report", "text", "json", "markdown")
def vram(
    recipe: str | None,
    overrides: tuple[str, ...],
    card: str | None,
    amount: str | None,
    cards_file: Path | None,
    *,
    list_cards: bool,
    measure: bool,
    what_if: bool,
    max_batch: bool,
    timeline: Path | None,
    replay: Path | None,
    device: int | None,
    alloc_conf: str | None,
    validate: Path | None,
    timeout: float,
    style: str,
    output: Path | None,
) -> int:
    """Say what RECIPE takes on a card, and whether it fits; no card is needed.

    RECIPE is a TOML file or the name of a built-in recipe. The recipe is run in small on a virtual
    GPU; with --measure on the card of this machine; with --replay a snapshot of a run is replayed.
    Exit code 1: it does not fit.
    """
    from ftcheck.cards import load_cards
    from ftcheck.recipe import load_recipe
    from ftcheck.vram.budget import budget_of, named_budget

    extra = load_cards(cards_file) if cards_file else {}
    if list_cards:
        click.echo(_cards(extra))
        return 0
    if alloc_conf is not None:
        _set_alloc_conf(alloc_conf)
    if replay is not None:
        if recipe or overrides or measure or what_if or max_batch or validate:
            raise InputError(
                "--replay goes with none of RECIPE, --set, --measure, --what-if, --max-batch and "
                "--validate.",
                next_step="Leave them out: the snapshot is what was run.",
            )
        text, fits = _replay(
            replay,
            named_budget(card, amount, extra),
            device=device,
            timeline=timeline,
            style=style,
        )
        emit(text, output)
        return _DOES_NOT_FIT if fits is False else 0
    if device is not None:
        raise InputError("--device needs --replay.", next_step="Name a snapshot with --replay.")
    if validate is not None:
        return _validate(validate)
    loaded = load_recipe(recipe or _DEFAULT_RECIPE, overrides=overrides)
    budget = named_budget(card, amount, extra) or budget_of(loaded, extra)
    if measure and (what_if or max_batch or timeline):
        raise InputError(
            "--measure goes with none of --what-if, --max-batch and --timeline.",
            next_step="Leave --measure out: those are predicted.",
        )
    if max_batch and budget is None:
        raise InputError(
            "--max-batch needs a card to fit.", next_step="Name it with --card or --vram."
        )
    text, fits = _answer(
        loaded,
        budget,
        measure=measure,
        what_if=what_if,
        max_batch=max_batch,
        timeline=timeline,
        timeout=timeout,
        style=style,
    )
    emit(text, output)
    return _DOES_NOT_FIT if fits is False else 0


def _answer(
    recipe: Recipe,
    budget: Card | None,
    *,
    measure: bool,
    what_if: bool,
    max_batch: bool,
    timeline: Path | None,
    timeout: float,
    style: str,
) -> tuple[str, bool | None]:
    """The report, with what else was asked for, and the verdict."""
    from ftcheck.cli.console import ConsoleProgress

    with ConsoleProgress() as progress:
        if timeline is not None:
            _check_place(timeline)  # before the long part
        progress.stage("Running on the card" if measure else "Running on the virtual GPU")
        report = _measured(recipe, budget) if measure else _predicted(recipe, budget, timeout)
        parts: dict[str, object] = {}
        if what_if:
            from ftcheck.vram.what_if import try_changes

            parts["what_if"] = try_changes(recipe, report, timeout_s=timeout, progress=progress)
        if max_batch:
            from ftcheck.vram.max_batch import largest_batch

            assert budget is not None
            parts["max_batch"] = largest_batch(
                recipe, budget, report, timeout_s=timeout, progress=progress
            )
        if timeline is not None:
            progress.stage(f"Drawing {timeline}")
            _draw(timeline, report)
    return _formatted(report, parts, style), report.fits


def _set_alloc_conf(text: str) -> None:
    """Put `--alloc-conf` where predictions, replays and torch itself look first."""
    from ftcheck.allocator.conf import VARIABLES, read_conf

    read_conf(text, "--alloc-conf")
    os.environ[VARIABLES[0]] = text


def _replay(
    file: Path,
    budget: Card | None,
    *,
    device: int | None,
    timeline: Path | None,
    style: str,
) -> tuple[str, bool | None]:
    """The report on a snapshot, and the verdict."""
    from ftcheck.allocator.conf import conf_from_environ
    from ftcheck.cli.console import ConsoleProgress
    from ftcheck.report.vram_replay import replay_dict, replay_markdown, replay_summary
    from ftcheck.vram.snapshot_replay import replay_snapshot

    with ConsoleProgress() as progress:
        if timeline is not None:
            _check_place(timeline)
        settings = conf_from_environ(os.environ)
        progress.stage(f"Replaying {file}")
        replayed = replay_snapshot(file, card=budget, settings=settings, device=device)
        if timeline is not None:
            progress.stage(f"Drawing {timeline}")
            _draw(timeline, replayed.report)
    if style == "json":
        return _json(replay_dict(replayed)), replayed.report.fits
    text = replay_markdown(replayed) if style == "markdown" else replay_summary(replayed)
    return text, replayed.report.fits


def _check_place(timeline: Path) -> None:
    from ftcheck.report.timeline import check_suffix

    check_suffix(timeline)
    if not timeline.parent.is_dir():
        raise InputError(
            f"--timeline {timeline}: the folder {timeline.parent} does not exist.",
            next_step="Make it, or name another place.",
        )


def _draw(timeline: Path, report: VramReport) -> None:
    from ftcheck.report.timeline import write_timeline

    assert report.trace is not None
    title = report.subject if report.card is None else f"{report.subject} on {report.card.title}"
    write_timeline(timeline, report.trace, title=title, card=report.card, settings=report.settings)


def _predicted(recipe: Recipe, budget: Card | None, timeout: float) -> VramReport:
    from ftcheck.vram.prediction import predict

    return predict(recipe, card=budget, timeout_s=timeout)


def _measured(recipe: Recipe, budget: Card | None) -> VramReport:
    from ftcheck.cli.console import quiet_libraries
    from ftcheck.vram.measurement import measure, this_card

    this_card()  # before the long imports
    quiet_libraries()
    return measure(recipe, card=budget)


def _formatted(report: VramReport, parts: Mapping[str, object], style: str) -> str:
    from ftcheck.report.vram_extras import extras_dict, extras_text
    from ftcheck.report.vram_summary import vram_markdown, vram_summary

    if style == "json":
        return _json({**report.to_dict(), **extras_dict(parts)})
    text = vram_markdown(report) if style == "markdown" else vram_summary(report)
    return "\n\n".join([text, *extras_text(parts)])


def _json(report: dict[str, object]) -> str:
    from ftcheck.environment import current

    return json.dumps({**report, "environment": current().to_dict()}, indent=2)


def _validate(folder: Path) -> int:
    from ftcheck.cli.console import ConsoleProgress, quiet_libraries
    from ftcheck.vram.validation import validate

    with ConsoleProgress() as progress:
        quiet_libraries()
        outcome = validate(folder, progress)
    click.echo(outcome.text)
    return 0 if outcome.passed else 1


def _cards(extra: Mapping[str, Card]) -> str:
    from ftcheck.cards import cards
    from ftcheck.units import format_bytes

    known = [*extra.values(), *(card for card in cards() if card.name not in extra)]
    width = max(len(card.name) for card in known)
    return "\n".join(
        f"{card.name:<{width}}  {format_bytes(card.capacity_bytes):>10}  "
        f"{card.compute_capability[0]}.{card.compute_capability[1]:<2}  {card.title}"
        for card in known
    )
