"""Rows and batches: what the data set holds, and what the collator makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

from ftcheck.checks.facts import Batches, Failure, Row, Rows
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.checks.observe.subject import evenly, length_of

__all__ = ["MOST_ROWS", "in_part", "see_batches", "see_rows"]

MOST_ROWS: Final = 2000
"""Rows of a data set that are read; of a larger one, so many, evenly spread."""
_MOST_BATCHES: Final = 16
_MOST_BATCH_ROWS: Final = 256


def see_rows(data: Any, cut: tuple[int, int] | None = None) -> Rows:
    """Read rows of a tokenized data set.

    Args:
        data: Of a trainer; rows without `input_ids` are left out.
        cut: Tokens that truncation took, and all tokens.
    """
    read = [row_of(one) for one in _read(data)]
    rows = tuple(row for row in read if row is not None)
    return Rows(rows=rows, cut=cut, read=len(read), total=length_of(data))


def _read(data: Any) -> Iterator[Any]:
    total = length_of(data)
    if total is None:
        yield from itertools.islice(iter(data), MOST_ROWS)
    elif hasattr(data, "select") and total > MOST_ROWS:
        yield from data.select(evenly(total, MOST_ROWS))
    else:
        yield from (data[number] for number in evenly(total, MOST_ROWS))


def row_of(one: Any) -> Row | None:
    """A row of a data set, or of a batch; `None` where it has no tokens."""
    if not hasattr(one, "keys") or "input_ids" not in one:
        return None
    ids = _numbers(one["input_ids"])
    if ids is None:
        return None
    return Row(
        ids=ids, mask=_numbers(one.get("attention_mask")), labels=_numbers(one.get("labels"))
    )


def _numbers(values: Any) -> tuple[int, ...] | None:
    if values is None:
        return None
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)) or (values and isinstance(values[0], (list, tuple))):
        return None
    try:
        return tuple(int(value) for value in values)
    except (TypeError, ValueError):
        return None


def see_batches(loader: Any) -> Batches:
    """Take batches as training does.

    Args:
        loader: Makes the data loader; it is called here, where it may fail.
    """
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    count, read = None, 0
    failure: Failure | None = None
    try:
        made = loader()
        count = length_of(made)
        for batch in itertools.islice(made, _MOST_BATCHES):
            read += 1
            facts = facts or _facts(batch)
            rows.extend(_rows_of(batch))
            if len(rows) >= _MOST_BATCH_ROWS:
                break
    except Exception as error:  # noqa: BLE001 - whatever people's collators raise is a result
        failure = failure_of(error, "making a batch")
    return Batches(rows=tuple(rows), batches=count, read=read, failure=failure, **facts)


def in_part(what: str, rows: Rows, batches: Batches) -> Iterator[str]:
    """What was left out of a data set and its loader, a sentence each.

    Args:
        what: `training` or `evaluation`.
        rows: Of the data set.
        batches: Of the loader.
    """
    if rows.total is None and rows.read == MOST_ROWS:
        yield f"data: the first {MOST_ROWS:,} {what} rows were looked at, of a set without a length"
    elif rows.total is not None and rows.read < rows.total:
        yield f"data: {rows.read:,} of {rows.total:,} {what} rows were looked at, evenly spread"
    stopped = batches.read == _MOST_BATCHES or len(batches.rows) >= _MOST_BATCH_ROWS
    if stopped and batches.read != batches.batches:
        yield f"data: the first {batches.read} {what} batches were looked at"


def _facts(batch: Any) -> dict[str, Any]:
    labels, ids = batch.get("labels"), batch.get("input_ids")
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    anew = positions is not None and bool((positions[..., 1:] <= positions[..., :-1]).any())
    return {
        "keys": tuple(name for name in batch if batch[name] is not None),
        "label_dtype": "" if labels is None else str(labels.dtype).removeprefix("torch."),
        "id_dtype": "" if ids is None else str(ids.dtype).removeprefix("torch."),
        "position_ids": anew or "seq_idx" in batch or "cu_seq_lens_q" in batch,
        "four_dimensional_mask": mask is not None and mask.dim() > 2,
    }


def _rows_of(batch: Any) -> Iterator[Row]:
    ids = batch.get("input_ids")
    if ids is None or ids.dim() != 2:
        return
    for number in range(ids.shape[0]):
        one = {
            name: batch[name][number]
            for name in ("input_ids", "attention_mask", "labels")
            if batch.get(name) is not None and batch[name].dim() == 2
        }
        row = row_of(one)
        if row is not None:
            yield row
