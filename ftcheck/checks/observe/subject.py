"""What is looked at: a live `Trainer`, and what is known about it besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftcheck.checks.facts import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

    from ftcheck.recipe import Recipe

__all__ = ["Subject"]


@dataclass(kw_only=True)
class Subject:
    """A trainer that has not started, with what it was made from.

    Attributes:
        name: For the report.
        kind: `recipe`, `trainer` or `script`.
        trainer: Ready to train.
        tokenizer: Of its model; `None` where there is none.
        recipe: What it was built from.
        texts: Raw texts of training and evaluation rows, where they are known.
        cut: Tokens that truncation took, and all of them; `None` where that is not known.
        record: What a script did.
        real_weights: Whether the model has the weights that the run starts from.
        real_data: Whether the rows are those of the run.
        assumptions: What was put in place of the real thing, a sentence each.
        places: Section of a recipe to `file:line` of the object that stands for it.
        full_modules: Names and classes of modules of the real model, where the one of the trainer
            is smaller.
        row_scale: Rows of the run for each row of the trainer.
    """

    name: str
    kind: str
    trainer: Trainer
    tokenizer: PreTrainedTokenizerBase | None
    recipe: Recipe | None = None
    texts: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    cut: tuple[int, int] | None = None
    record: Record | None = None
    real_weights: bool = True
    real_data: bool = True
    assumptions: list[str] = field(default_factory=list)
    places: Mapping[str, str] = field(default_factory=dict)
    full_modules: tuple[tuple[str, str], ...] = ()
    row_scale: float = 1.0

    @property
    def model(self) -> Any:
        """The model as the trainer has it, wrapped or not."""
        return self.trainer.model
