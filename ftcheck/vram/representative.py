"""Rows that take as much memory as the largest batch that a recipe's data gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ftcheck.errors import Unavailable
from ftcheck.pipeline.data import RawData, load_data
from ftcheck.pipeline.tokens import IGNORED_LABEL, TokenCounts, TokenizedData, tokenize
from ftcheck.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments

__all__ = ["Batches", "Shape", "largest_batches", "representative_rows"]

_LOOKED_AT: Final = 512
"""Rows of most characters that are cut into tokens to find the one of most tokens."""
_ANY_ID: Final = 5
_EVAL_BATCHES: Final = 2

_Found = tuple[int, bool, int | None]
"""Longest row, whether rows differ, number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The largest batch of a split.

    Attributes:
        batch: Rows.
        length: Tokens of each, pads included.
        padded: Whether there are pads in it. A mask with zeros is handed to the attention, which
            then takes another kernel and more memory.
    """

    batch: int
    length: int
    padded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The largest batches that a recipe trains and evaluates on."""

    train: Shape
    evaluation: Shape | None
    """`None` where the recipe has no rows for it."""


def largest_batches(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | None,
    arguments: TrainingArguments,
    assume: Callable[[str], None],
) -> Batches:
    """The largest batches that a recipe trains and evaluates on.

    Where every row has the same length, the data is not read. Otherwise each row is in some batch,
    and a batch is as long as its longest row: the largest one has full size and the longest row.

    Args:
        recipe: The recipe.
        tokenizer: The recipe's own; `None` if it is not on this machine.
        arguments: Those of the recipe, with the sizes of batches.
        assume: Receives what is taken for granted.

    Raises:
        InputError: The data cannot be used.
    """
    settings = recipe.tokenization
    evaluates = any((recipe.data.eval_path, recipe.data.eval_split, recipe.data.eval_fraction))
    if settings.packing or settings.padding == "max_length":
        padded = not settings.packing
        if padded:
            assume(f"data: not read; rows of {settings.max_length} tokens, some of them padding")
        found: list[_Found] = [(settings.max_length, padded, None)] * 2
    else:
        found = _measured(recipe, tokenizer, assume)

    def shape(size: int, longest: _Found) -> Shape:
        length, padded, count = longest
        return Shape(
            batch=size if count is None else min(size, count),
            length=length,
            padded=padded and (size > 1 or settings.padding == "max_length"),
        )

    return Batches(
        train=shape(arguments.train_batch_size, found[0]),
        evaluation=shape(arguments.eval_batch_size, found[1]) if evaluates else None,
    )


def _measured(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None, assume: Callable[[str], None]
) -> list[_Found]:
    longest = recipe.tokenization.max_length
    nothing: _Found = (longest, True, None)
    if tokenizer is None:
        assume(f"data: not read, as the tokenizer is not here; rows of up to {longest} tokens")
        return [nothing, nothing]
    try:
        raw = load_data(recipe)
    except Unavailable:
        assume(f"data: {recipe.data.path} is not on this machine; rows of up to {longest} tokens")
        return [nothing, nothing]
    train, evaluation = _few(raw.train, raw), None
    if raw.evaluation is not None:
        evaluation = _few(raw.evaluation, raw)
    small = dataclasses.replace(raw, train=train, evaluation=evaluation)
    tokens = tokenize(small, tokenizer, recipe)
    found = [_lengths(tokens.train, len(raw.train))]
    if tokens.evaluation is None or raw.evaluation is None:
        return [*found, nothing]
    return [*found, _lengths(tokens.evaluation, len(raw.evaluation))]


def _few(split: Dataset, raw: RawData) -> Dataset:
    """The rows of most characters, and the shortest."""
    sizes = [len(text) for text in split[raw.text_column]]
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    return split.select(sorted({*order[:_LOOKED_AT], order[-1]}))


def _lengths(tokens: Dataset, count: int) -> _Found:
    lengths = [len(ids) for ids in tokens["input_ids"]]
    return max(lengths), len(set(lengths)) > 1, count


def representative_rows(
    recipe: Recipe, batches: Batches, count: int, tokenizer: PreTrainedTokenizerBase
) -> TokenizedData:
    """Rows that fill the largest batches.

    Args:
        recipe: Says what labels padding has.
        batches: What `largest_batches` returned.
        count: Batches to train on.
        tokenizer: Names the pad token.
    """
    masked = recipe.tokenization.labels == "pads_masked"
    pad = int(tokenizer.pad_token_id or 0)
    train, evaluation = _rows(batches.train, count, pad, masked=masked), None
    if batches.evaluation is not None:
        evaluation = _rows(batches.evaluation, _EVAL_BATCHES, pad, masked=masked)
    return TokenizedData(
        train=train,
        evaluation=evaluation,
        train_counts=_counts(train),
        evaluation_counts=None if evaluation is None else _counts(evaluation),
    )


def _rows(shape: Shape, batches: int, pad: int, *, masked: bool) -> Dataset:
    """Rows of one length; each ends in padding, if the batch has any.

    Args:
        shape: Of a batch.
        batches: How many of them.
        pad: Id of the pad token.
        masked: Whether padding has the label −100.
    """
    from datasets import Dataset

    text = shape.length - int(shape.padded)
    pads = shape.length - text
    row: dict[str, Any] = {
        "input_ids": [_ANY_ID] * text + [pad] * pads,
        "attention_mask": [1] * text + [0] * pads,
        "labels": [_ANY_ID] * text + [IGNORED_LABEL if masked else pad] * pads,
    }
    return Dataset.from_dict(
        {name: [value] * (shape.batch * batches) for name, value in row.items()}
    )


def _counts(split: Dataset) -> TokenCounts:
    """All rows are alike: the first speaks for them."""
    mask = split[0]["attention_mask"]
    return TokenCounts(
        raw_rows=len(split),
        rows=len(split),
        positions=len(split) * len(mask),
        real=len(split) * sum(mask),
        cut=0,
        cut_rows=0,
        short_rows=0,
        padded_in_batches=False,
    )
