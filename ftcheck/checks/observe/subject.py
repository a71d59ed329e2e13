"""What is looked at: a live `Trainer`, and what is known about it besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftcheck.checks.facts import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

    from ftcheck.recipe import Recipe
    from ftcheck.sources.base_model import BaseModel

__all__ = ["Subject", "evenly", "held_out", "length_of", "processing_of"]


@dataclass(kw_only=True)
class Subject:
    """A trainer that has not started, with what it was made from."""

    name: str
    """For the report."""
    kind: str
    """`recipe`, `trainer` or `script`."""
    trainer: Trainer
    """Ready to train."""
    tokenizer: PreTrainedTokenizerBase | None
    """Of its model; `None` where there is none."""
    recipe: Recipe | None = None
    """What it was built from."""
    base_model: BaseModel | None = None
    """Where the model of a recipe was loaded from."""
    cut: tuple[int, int] | None = None
    """Tokens that truncation took, and all of them; `None` where that is not known."""
    record: Record | None = None
    """What a script did."""
    real_weights: bool = True
    """Whether the model has the weights that the run starts from."""
    real_data: bool = True
    """Whether the rows are those of the run."""
    assumptions: list[str] = field(default_factory=list)
    """What was put in place of the real thing, one sentence each."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Section of a recipe to `file:line` of the object that corresponds to it."""
    full_modules: tuple[tuple[str, str], ...] = ()
    """Names and classes of modules of the real model, where the one of the trainer is smaller."""
    row_scale: float = 1.0
    """Rows of the run for each row of the trainer."""

    @property
    def model(self) -> Any:
        """The model as the trainer has it, wrapped or not."""
        return self.trainer.model


def processing_of(trainer: Any) -> Any:
    """The tokenizer of a trainer, under the name that its version has; `None` for none."""
    return getattr(trainer, "processing_class", None) or getattr(trainer, "tokenizer", None)


def held_out(trainer: Any) -> Any:
    """The evaluation set of a trainer, the first where there are several; `None` for none."""
    rows = trainer.eval_dataset
    return next(iter(rows.values()), None) if isinstance(rows, dict) else rows


def length_of(rows: Any) -> int | None:
    """How many there are; `None` for a data set or a loader without a length."""
    try:
        return len(rows)
    except TypeError:
        return None


def evenly(total: int, most: int) -> list[int]:
    """Positions of at most so many rows, evenly spread."""
    count = min(total, most)
    return [number * total // count for number in range(count)]
