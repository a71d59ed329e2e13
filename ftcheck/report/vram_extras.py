"""What `--what-if` and `--max-batch` found, as text and as JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ftcheck.report.vram_summary import table
from ftcheck.units import format_bytes
from ftcheck.vram.max_batch import BatchPoint, LargestBatch
from ftcheck.vram.what_if import Tried

__all__ = ["extras_dict", "extras_text"]


def extras_dict(parts: Mapping[str, Any]) -> dict[str, Any]:
    """`what_if` and `max_batch` as JSON types."""
    plain: dict[str, Any] = {}
    if "what_if" in parts:
        plain["what_if"] = [asdict(tried) for tried in parts["what_if"]]
    if "max_batch" in parts:
        plain["max_batch"] = asdict(parts["max_batch"])
    return plain


def extras_text(parts: Mapping[str, Any]) -> list[str]:
    """A block of text each."""
    blocks = []
    if "what_if" in parts:
        blocks.append(_what_if(parts["what_if"]))
    if "max_batch" in parts:
        blocks.append(_max_batch(parts["max_batch"]))
    return blocks


def _what_if(tried: Sequence[Tried]) -> str:
    lines = ["What helps, each change alone, predicted by running it"]
    rows = []
    for one in tried:
        if one.saved_bytes is None or one.needed_bytes is None:
            rows.append((one.slug, "unmeasured", one.problem))
            continue
        saves = "saves" if one.saved_bytes >= 0 else "takes"
        verdict = {True: ", fits", False: ", does not fit", None: ""}[one.fits]
        rows.append(
            (
                one.slug,
                f"{saves} {format_bytes(abs(one.saved_bytes))}",
                f"needs {format_bytes(one.needed_bytes)}{verdict}: {one.edit} ({one.cost})",
            )
        )
    return "\n".join(lines) + "\n" + table(rows)


def _max_batch(found: LargestBatch) -> str:
    answer = (
        f"Largest per_device_train_batch_size that fits {found.card}: {found.batch}"
        if found.batch
        else f"Not even one row a batch fits {found.card}"
    )
    return f"{answer}\n{_curve(found.by_batch)}\n\nBy length\n{_curve(found.by_length)}"


def _curve(points: Sequence[BatchPoint]) -> str:
    rows = [("batch", "length", "peak allocated", "needed", "")]
    rows += [
        (
            str(point.batch),
            str(point.length),
            format_bytes(point.peak_allocated_bytes),
            format_bytes(point.needed_bytes),
            "fits" if point.fits else "does not fit",
        )
        for point in points
    ]
    return table(rows)
