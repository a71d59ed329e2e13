"""From a recipe to a report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftcheck.checks.facts import Failure
from ftcheck.checks.finding import CheckReport, Level
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.checks.observe.looking import Say, look_at, refused
from ftcheck.checks.registry import selected, within
from ftcheck.checks.runner import judge
from ftcheck.errors import InputError, Unavailable
from ftcheck.recipe import Recipe
from ftcheck.subjects.recipe import recipe_subject
from ftcheck.vram.budget import budget_of

__all__ = ["ALL_LEVELS", "check", "check_recipe"]

ALL_LEVELS: tuple[Level, ...] = tuple(Level)


def check_recipe(
    recipe: Recipe,
    *,
    levels: Collection[Level] = ALL_LEVELS,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    accept: Mapping[str, str] | None = None,
    real_model: bool = False,
    say: Say = lambda _: None,
    timeout_s: float = 300.0,
) -> CheckReport:
    """Check a recipe.

    Args:
        recipe: The recipe; its `[checks]` decide where the arguments below say nothing.
        levels: To look at.
        select: Codes, prefixes or slugs of the checks to run.
        ignore: The same, of those to leave out.
        accept: Code or slug of a finding that is meant, to the reason; beside those of the recipe.
        real_model: Look at the real model, however large it is.
        say: Told what begins.
        timeout_s: Seconds that each look may take.

    Raises:
        InputError: An unknown check or budget.
        Unavailable: The configuration of the model cannot be had.
    """
    budget_of(recipe)  # refuses an unknown card before the long looks
    checks = selected(select or recipe.checks.select, ignore)
    checks = within(checks, levels)
    accepted = {**recipe.checks.accept, **(accept or {})}
    begun = time.monotonic()
    assumptions: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ftcheck-check-") as place:
        say("Building the recipe")
        try:
            subject = recipe_subject(recipe, Path(place), real_model=real_model)
        except Unavailable:
            raise
        except InputError as error:
            seen = refused(recipe.name, "recipe", _refusal(error), recipe=recipe)
        except Exception as error:
            if not recipe.model.trust_remote_code:
                raise  # no code but ours and the libraries' ran
            failure = failure_of(error, "building the recipe")
            seen = refused(recipe.name, "recipe", failure, recipe=recipe)
        else:
            assumptions = subject.assumptions
            asked = {one.level for one in checks}.intersection(levels)
            seen = look_at(subject, asked, say=say, timeout_s=timeout_s)
    return judge(
        seen,
        checks,
        accept=accepted,
        assumptions=assumptions,
        seconds=time.monotonic() - begun,
    )


def _refusal(error: InputError) -> Failure:
    text = error.message + (f"\n{error.next_step}" if error.next_step else "")
    return Failure(kind="InputError", text=text, during="building the recipe")


def check(subject: Any, **how: Any) -> CheckReport:
    """Check a recipe or a live trainer; see `check_recipe` and `check_trainer`.

    Args:
        subject: A `Recipe`, the path or name of one, or a `transformers.Trainer`.
        how: Arguments of `check_recipe` or `check_trainer`.
    """
    from ftcheck.recipe import load_recipe
    from ftcheck.subjects.trainer import check_trainer

    if isinstance(subject, (str, Path)):
        subject = load_recipe(subject)
    if isinstance(subject, Recipe):
        return check_recipe(subject, **how)
    return check_trainer(subject, **how)
