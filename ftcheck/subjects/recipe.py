"""A recipe as a subject: built by the pipeline as far as the trainer, on the CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ftcheck.checks.observe.rows import MOST_ROWS
from ftcheck.checks.observe.subject import Subject, evenly
from ftcheck.errors import Unavailable
from ftcheck.pipeline.adapter import wrap
from ftcheck.pipeline.data import RawData, load_data
from ftcheck.pipeline.generation import check_prompts
from ftcheck.pipeline.model import load_base
from ftcheck.pipeline.tokens import tokenize, tokenizer_at_hand
from ftcheck.pipeline.training import build_trainer
from ftcheck.recipe import Data, Recipe
from ftcheck.sources.base_model import BaseModel, find_base_model
from ftcheck.sources.data_set import EMBEDDED_DATA
from ftcheck.sources.proxy import full_modules, proxy_model

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["recipe_subject"]

_MOST_PARAMETERS: Final = 60_000_000
"""Parameters up to which the real model is looked at."""


def recipe_subject(recipe: Recipe, folder: Path, *, real_model: bool = False) -> Subject:
    """Build a recipe up to its trainer.

    Where its data is not on this machine and cannot be had, other text stands in; where its model
    is large or not there, one of the same architecture, and small, does.

    Args:
        recipe: The recipe.
        folder: Empty; for a small model and what the trainer might write.
        real_model: Look at the real model, however large it is.

    Raises:
        InputError: The pipeline refuses it.
    """
    assumptions: list[str] = []
    published = find_base_model(recipe)
    tokenizer = tokenizer_at_hand(recipe, published, assumptions.append)
    raw, real_data = _data(recipe, assumptions)
    raw, scale = _sampled(raw, assumptions)
    tokens = tokenize(raw, tokenizer, recipe)
    source, modules = _looked_at(published, folder / "base", assumptions, real=real_model)
    on_cpu = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, device="cpu"))
    base = load_base(on_cpu, tokenizer, source=source)
    if source is published:
        check_prompts(base, tokenizer, recipe)
    model = wrap(base, on_cpu)
    trainer = build_trainer(model, tokens, tokenizer, on_cpu, folder / "checkpoints")
    counts = tokens.train_counts
    return Subject(
        name=recipe.name,
        kind="recipe",
        trainer=trainer,
        tokenizer=tokenizer,
        recipe=recipe,
        base_model=source,
        cut=(counts.cut, counts.real + counts.cut),
        real_weights=source is published,
        real_data=real_data,
        assumptions=assumptions,
        full_modules=modules,
        row_scale=scale,
    )


def _data(recipe: Recipe, assumptions: list[str]) -> tuple[RawData, bool]:
    try:
        return load_data(recipe), True
    except Unavailable as error:
        assumptions.append(
            f"data: {recipe.data.path} could not be had ({error.reason}); the embedded text stands "
            "in for it"
        )
    evaluates = recipe.data.eval_split or recipe.data.eval_fraction or recipe.data.eval_path
    data = Data(
        path=EMBEDDED_DATA,
        shuffle_seed=recipe.data.shuffle_seed,
        eval_split="eval" if evaluates else None,
    )
    return load_data(dataclasses.replace(recipe, data=data)), False


def _sampled(raw: RawData, assumptions: list[str]) -> tuple[RawData, float]:
    """At most 2,000 rows of each split, evenly, and how many rows stand behind each."""
    total = len(raw.train)
    if total > MOST_ROWS:
        assumptions.append(f"data: {MOST_ROWS:,} of {total:,} rows were looked at, evenly spread")
    few = dataclasses.replace(
        raw,
        train=_few(raw.train),
        evaluation=None if raw.evaluation is None else _few(raw.evaluation),
    )
    return few, total / len(few.train)


def _few(rows: Dataset) -> Dataset:
    return rows if len(rows) <= MOST_ROWS else rows.select(evenly(len(rows), MOST_ROWS))


def _looked_at(
    source: BaseModel, folder: Path, assumptions: list[str], *, real: bool
) -> tuple[BaseModel, tuple[tuple[str, str], ...]]:
    """The model that is looked at, and the modules of the whole one if that is a proxy."""
    modules, parameters = full_modules(source)
    if assumption := source.configuration.assumption:
        assumptions.append(assumption)
    if real or (source.has_weights and parameters <= _MOST_PARAMETERS):
        return source, ()
    assumptions.append(
        f"model: {source.name} has {parameters / 1e6:,.0f} million parameters; steps were run on "
        "one of the same architecture with two narrow layers and random weights"
    )
    return proxy_model(source, folder), modules
