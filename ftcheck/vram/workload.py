"""What is run to see its memory, and the GPU that it is held against."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftcheck.cards import Card, card
from ftcheck.pipeline.training import cut_short
from ftcheck.recipe import Recipe
from ftcheck.vram.budget import budget_of
from ftcheck.vram.meter import MOST_STEPS, Meter, peak_repeats, phases
from ftcheck.vram.recipe_run import run_recipe

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["Subject", "Workload", "workload_of"]

Subject = Recipe | Callable[[], Any]
"""A recipe, or a function that makes a `Trainer`, makes a step, or is all that is to be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A subject of `predict` or `measure`, resolved; it can be pickled where its subject can."""

    subject: Subject
    """What is run."""
    name: str
    """Of the recipe or of the function, for the report."""
    card: Card | None
    """The budget; `None` where none is named."""

    def run(self, meter: Meter, *, accumulate: int | None = 2) -> dict[str, Any]:
        """Run it in small.

        Args:
            meter: Where.
            accumulate: Micro-batches of a step, if a recipe accumulates more: from the second on
                they repeat each other. `None` runs all of them.

        Returns:
            Plain facts for the report: parameters, batch, length; empty for a function.

        Raises:
            InputError: The recipe, its data or its model cannot be used.
        """
        if isinstance(self.subject, Recipe):
            return run_recipe(meter, self.subject, accumulate=accumulate)
        _run_function(meter, self.subject)
        return {}


def workload_of(subject: Subject, named: str | Card | None = None) -> Workload:
    """Resolve a subject and the GPU that it is held against.

    Args:
        subject: A recipe or a function.
        named: Name of a card or a card; `None` takes `[budget]` of a recipe.

    Raises:
        InputError: There is no such card.
    """
    if isinstance(named, str):
        named = card(named)
    if isinstance(subject, Recipe):
        return Workload(subject=subject, name=subject.name, card=named or budget_of(subject))
    name = str(getattr(subject, "__qualname__", subject))
    return Workload(subject=subject, name=name, card=named)


def _run_function(meter: Meter, function: Callable[[], Any]) -> None:
    """Run what people have written: a function that makes a `Trainer`, or a step, or all of it.

    Args:
        meter: Where.
        function: Called once. If it returns a `Trainer`, that is trained until its peak repeats,
            evaluated where it has rows for that, and saved. If it returns a function, that is
            called as a step until the peak repeats.
    """
    meter.as_cuda()
    meter.phase("load")
    made = function()
    if callable(getattr(made, "train", None)) and hasattr(made, "args"):
        _run_trainer(meter, made)
    elif callable(made):
        _run_steps(meter, made)


def _run_trainer(meter: Meter, trainer: Trainer) -> None:
    cut_short(trainer, MOST_STEPS)
    trainer.add_callback(phases(meter))
    trainer.train()
    if trainer.eval_dataset is not None:
        meter.phase("eval")
        trainer.evaluate()
    meter.phase("save")
    with tempfile.TemporaryDirectory(prefix="ftcheck-vram-") as folder:
        trainer.save_model(folder)


def _run_steps(meter: Meter, step: Callable[[], Any]) -> None:
    peaks: list[int] = []
    while len(peaks) < MOST_STEPS and not peak_repeats(peaks):
        meter.phase(f"step {len(peaks) + 1}")
        step()
        peaks.append(meter.step_peak_bytes())
