"""All steps in their order: a recipe in, an adapter and text out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

from ftcheck import environment
from ftcheck.errors import InputError
from ftcheck.files import write_text
from ftcheck.pipeline import processes
from ftcheck.pipeline.adapter import wrap
from ftcheck.pipeline.curve import draw_loss_curve
from ftcheck.pipeline.data import load_data
from ftcheck.pipeline.defaults import with_defaults
from ftcheck.pipeline.devices import choose_device
from ftcheck.pipeline.fine_tuning import FineTuning, Interrupted, Session
from ftcheck.pipeline.folder import Checkpoint, RunFolder
from ftcheck.pipeline.generation import check_prompts
from ftcheck.pipeline.library_bugs import LibraryBug, Situation, active_bugs
from ftcheck.pipeline.model import load_base
from ftcheck.pipeline.progress import Progress, Silent
from ftcheck.pipeline.result import RunResult
from ftcheck.pipeline.resuming import changed_versions, place_to_go_on
from ftcheck.pipeline.tokens import load_tokenizer, tokenize
from ftcheck.pipeline.training import build_arguments
from ftcheck.recipe import Arguments, Recipe, dump_recipe
from ftcheck.sources.base_model import find_base_model
from ftcheck.sources.hub import disk_refusals

__all__ = ["Interrupted", "run"]


def run(
    recipe: Recipe,
    folder: RunFolder,
    *,
    resume: bool = False,
    inexact_resume: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Fine-tune by a recipe, save, load again, compare, generate.

    Args:
        recipe: The recipe.
        folder: A run folder that was just made, or one to resume.
        resume: Go on from the last complete checkpoint in `folder`, from the start without one.
        inexact_resume: Resume even where the installed versions would not go on as the run
            without a stop had done.
        progress: Told what happens.

    Raises:
        InputError: The recipe, its data or its model cannot be used; `DiskError` and
            `Unavailable` among them.
        ReloadMismatch: What was saved does not compute what was trained.
        Interrupted: Ctrl-C; a checkpoint was saved.
    """
    try:
        with disk_refusals(), _environment_kept():
            session = Session(
                recipe=recipe,
                source=find_base_model(recipe),
                folder=folder,
                progress=progress or Silent(),
                notices=list(recipe.notices),
            )
            return _whole(session, resume=resume, inexact_resume=inexact_resume)
    except ImportError as error:
        raise InputError(
            f"The recipe needs a package that is not installed: {error}",
            next_step="Install it, or change the recipe.",
        ) from error


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Restore `os.environ`: transformers 4 leaves ACCELERATE_MIXED_PRECISION behind, and the next
    run of the process would train in the precision of this one."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _whole(session: Session, *, resume: bool, inexact_resume: bool) -> RunResult:
    recipe, source, folder = session.recipe, session.source, session.folder
    build_arguments(recipe, folder.checkpoints)  # refuses bad ones before the long steps
    _record(session)
    session.progress.stage("Loading data and tokenizer")
    tokenizer = load_tokenizer(recipe, source=source)
    tokens = tokenize(load_data(recipe), tokenizer, recipe)
    session.progress.stage("Loading the base model")
    base = load_base(recipe, tokenizer, source=source)
    check_prompts(base, tokenizer, recipe)
    situation = Situation(recipe=recipe, base=base, device=choose_device(recipe))
    bugs = active_bugs(situation)
    model = wrap(base, recipe)
    checkpoint = None
    if resume:
        checkpoint = _checkpoint(session, bugs, inexact=inexact_resume)
    fine_tuning = FineTuning(session, model, tokens, tokenizer, checkpoint)
    del base, model, situation  # it lets go of them before the model is loaded again
    fine_tuning.train()
    comparison = fine_tuning.saved_and_loaded()
    result = fine_tuning.result(bugs, comparison)
    if session.main:
        _finish(folder, result)
    processes.wait_for_all()
    return result


def _record(session: Session) -> None:
    """What the run is, before anything long begins."""
    recipe, folder = session.recipe, session.folder
    session.notices += _precision_notices(recipe)
    if not session.main or folder.recipe.exists():
        return
    write_text(folder.recipe, dump_recipe(with_defaults(recipe)))
    here = environment.current().to_dict()
    folder.write_json("environment.json", {**here, "seed": recipe.seed})


def _precision_notices(recipe: Recipe) -> Iterator[str]:
    if choose_device(recipe) != "cpu":
        return
    if (recipe.quantization or Arguments()).get("bnb_4bit_compute_dtype") == "float16":
        yield "quantization.bnb_4bit_compute_dtype: 4-bit layers computed in float32 on this CPU"
    if recipe.training.get("fp16"):
        yield (
            "training.fp16 has no effect on a CPU: this run was in float32, and says nothing "
            "about how fp16 goes"
        )


def _checkpoint(
    session: Session, bugs: Sequence[LibraryBug], *, inexact: bool
) -> Checkpoint | None:
    changed = changed_versions(session.folder)
    if changed:
        session.notices.append(f"resumed with other versions: {', '.join(changed)}")
    checkpoint = place_to_go_on(session.folder, bugs, inexact=inexact)
    if checkpoint is None:
        session.notices.append("there was no complete checkpoint: training began anew")
    else:
        session.progress.note(f"Going on from {checkpoint.folder.name}")
    return checkpoint


def _finish(folder: RunFolder, result: RunResult) -> None:
    draw_loss_curve(folder.metrics, folder.loss_curve)
    samples = [dataclasses.asdict(sample) for sample in result.samples]
    folder.write_json("generated.json", {"samples": samples})
    folder.write_json("summary.json", result.to_dict())
