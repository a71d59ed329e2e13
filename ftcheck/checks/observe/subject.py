"""What is looked at: a live `Trainer`, and what is known about it besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftcheck.checks.facts import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

    from ftcheck.recipe import Recipe

__all__ = ["Subject", "evenly", "held_out", "length_of", "processing_of"]


@dataclass(kw_only=True)
class Subject:
    """A trainer that has not started, with what it was made from.

    Attributes:
        name: For the report.
        kind: `recipe`, `trainer` or `script`.
        trainer: Ready to train.
        tokenizer: Of its model; `None` where there is none.
        recipe: What it was built from.
        cut: Tokens that truncation took, and all of them; `None` where that is not known.
        record: What a script did.
        real_weights: Whether the model has the weights that the run starts from.
        real_data: Whether the rows are those of the run.
        assumptions: What was put in place of the real thing, a sentence each.
        places: Section of a recipe to `file:line` of the object that stands for it.
        full_modules: Names and classes of modules of the real model, where the one of the trainer
            is smaller.
        row_scale: Rows of the run for each row of the trainer.
        stored_rows: Rows of the embedding that a recipe's model is stored with.
    """

    name: str
    kind: str
    trainer: Trainer
    tokenizer: PreTrainedTokenizerBase | None
    recipe: Recipe | None = None
    cut: tuple[int, int] | None = None
    record: Record | None = None
    real_weights: bool = True
    real_data: bool = True
    assumptions: list[str] = field(default_factory=list)
    places: Mapping[str, str] = field(default_factory=dict)
    full_modules: tuple[tuple[str, str], ...] = ()
    row_scale: float = 1.0
    stored_rows: int | None = None

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
