"""Step 1, data: the rows of text that a recipe names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftcheck.recipe import Recipe
from ftcheck.recipe.values import did_you_mean
from ftcheck.sources.data_set import load_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["RawData", "load_data"]

_LONGEST_ROW = 1_000_000
"""Characters from which a row cannot be meant as one example: a file without line ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """Rows of text.

    Attributes:
        train: Rows to train on, with the one column `text_column`.
        evaluation: Rows to evaluate on, with the same column; `None` where the recipe names none.
        text_column: Name of that column.
        dropped: Rows that `data.drop_empty` left out.
    """

    train: Dataset
    evaluation: Dataset | None
    text_column: str
    dropped: int


def load_data(recipe: Recipe) -> RawData:
    """Load the rows of a recipe: split, shuffled, cut to the number of rows.

    The order is that of `dataset.shuffle(seed=shuffle_seed).select(range(rows))`.

    Raises:
        InputError: A file is not what its suffix says, a column is not there, or there are too
            few rows.
        Unavailable: The hub, the network or the cache does not have the data set.
    """
    data = recipe.data
    train = _rows(recipe, data.path, data.split, "data.path")
    train, dropped = _without_empty(recipe, train)
    if data.shuffle_seed is not None:
        train = train.shuffle(seed=data.shuffle_seed)
    if data.rows is not None:
        if data.rows > len(train):
            raise recipe.fault(
                "data.rows",
                f"asks for {data.rows} rows, and {data.path} has {len(train)}",
                "Ask for fewer, or leave data.rows out to take all.",
            )
        train = train.select(range(data.rows))
    fewest = 1 if recipe.tokenization.packing else 2
    if len(train) < fewest:
        count = "no rows" if len(train) == 0 else f"{len(train)} row"
        raise recipe.fault(
            "data.path",
            f"{data.path} gives {count} to train on, expected {fewest} or more",
            "Give more rows; one example stands on a line (data.text_unit).",
        )
    train, evaluation = _evaluation(recipe, train)
    if evaluation is not None and len(evaluation) == 0:
        raise recipe.fault(
            "data", "there are no rows to evaluate on", "Give more, or evaluate on none."
        )
    return RawData(
        train=train, evaluation=evaluation, text_column=data.text_column, dropped=dropped
    )


def _evaluation(recipe: Recipe, train: Dataset) -> tuple[Dataset, Dataset | None]:
    data = recipe.data
    held_out: Dataset | None = None
    if data.eval_fraction is not None:
        count = round(len(train) * data.eval_fraction)
        if count == 0 or count == len(train):
            raise recipe.fault(
                "data.eval_fraction",
                f"{data.eval_fraction} of {len(train)} rows is {count} rows",
                "Choose a share that leaves rows on both sides, or give more rows.",
            )
        held_out = train.select(range(len(train) - count, len(train)))
        train = train.select(range(len(train) - count))
    elif data.eval_split is not None:
        held_out = _rows(recipe, data.path, data.eval_split, "data.eval_split")
    elif data.eval_path is not None:
        held_out = _rows(recipe, data.eval_path, "train", "data.eval_path")
    if held_out is None:
        return train, None
    if data.eval_fraction is None:
        held_out, _ = _without_empty(recipe, held_out)
    if data.eval_rows is not None:
        held_out = held_out.select(range(min(data.eval_rows, len(held_out))))
    return train, held_out


def _rows(recipe: Recipe, path: str, split: str, key: str) -> Dataset:
    rows = _one_text_column(recipe, load_rows(recipe, path, split, key), path)
    if not recipe.tokenization.packing:
        _check_longest(recipe, rows, path)
    return rows


def _one_text_column(recipe: Recipe, rows: Dataset, path: str) -> Dataset:
    column = recipe.data.text_column
    if column not in rows.column_names:
        raise recipe.fault(
            "data.text_column",
            f"{path} has no column {column!r}; it has {', '.join(map(repr, rows.column_names))}",
            did_you_mean(column, rows.column_names) or "Name the column that holds the text.",
        )
    kind = getattr(rows.features[column], "dtype", None)
    if kind not in ("string", "large_string"):
        raise recipe.fault(
            "data.text_column",
            f"column {column!r} of {path} holds {kind or 'nested values'}, expected text",
            "Name the column that holds the text.",
        )
    return rows.select_columns([column])


def _check_longest(recipe: Recipe, rows: Dataset, path: str) -> None:
    import pyarrow.compute as pc

    lengths = pc.utf8_length(rows.data.column(recipe.data.text_column))
    longest = pc.max(lengths).as_py()
    if longest is not None and longest >= _LONGEST_ROW:
        number = pc.index(lengths, longest).as_py() + 1
        raise recipe.fault(
            "data.path",
            f"row {number} of {path} has {longest:,} characters, "
            f"of which only the first {recipe.tokenization.max_length} tokens would be used",
            "Put one example on a line, or set tokenization.packing = true to use all of it.",
        )


def _without_empty(recipe: Recipe, rows: Dataset) -> tuple[Dataset, int]:
    """Rows that hold text; missing texts are an error unless empty rows are dropped."""
    import numpy as np

    column = recipe.data.text_column
    texts = rows.data.column(column)
    if recipe.data.drop_empty:
        # Of a million rows, plain values are ten times as fast as rows, and datasets hashes an
        # array of positions ten times as fast as a list.
        full = [bool(text) and not text.isspace() for text in texts.to_pylist()]
        kept = np.flatnonzero(full)
        return (rows, 0) if all(full) else (rows.select(kept), len(rows) - len(kept))
    missing = texts.null_count
    if missing:
        raise recipe.fault(
            "data.text_column",
            f"{missing} of {len(rows)} rows have no value in column {column!r}",
            "Set data.drop_empty = true to leave them out.",
        )
    return rows, 0
