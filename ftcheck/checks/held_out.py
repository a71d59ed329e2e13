"""FT218: evaluation rows beside training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from ftcheck.checks.data import edges, real_tokens
from ftcheck.checks.facts import IGNORED, Row, Text
from ftcheck.checks.finding import Finding, Level, NotApplicable, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen
from ftcheck.checks.tokens import stripped

__all__: list[str] = []


@check("FT218", "eval-prepared-differently", Level.DATA, Severity.WARNING)
def eval_differs(self: Check, seen: Seen) -> Iterator[Finding]:
    """Training and evaluation rows are labelled in different ways.

    Their losses cannot be compared, and the best checkpoint is the best at another task. Compared:
    the share of real tokens that have a label (more than 0.3 apart), pads with labels (half of the
    label tokens or more on one side, a tenth or less on the other), rows that end in EOS (nine in
    ten or more on one side, one in ten or less on the other), and the three tokens that nine in ten
    rows begin with.

    Bad: prompts masked in the training set alone.

    Good: one function that prepares both.
    """
    seen.models_language()
    text = seen.text
    train, held_out = seen.rows("batches"), seen.rows("eval_batches")
    one, other = _profile(train, text), _profile(held_out, text)
    yield from _other_form(self, seen, train, held_out)
    if one["labels"] is None and other["labels"] is None:
        raise NotApplicable("there are no labels")
    if other["labels"] is None or one["labels"] is None:
        side = "evaluation" if other["labels"] is None else "training"
        yield self.finding(
            f"{side} rows have no labels, the others have",
            key=seen.held_out_key,
            fix="Prepare both with one function.",
        )
        return
    for what, differ in _DIFFER.items():
        left, right = one[what], other[what]
        if left is not None and right is not None and differ(min(left, right), max(left, right)):
            yield self.finding(
                f"{_PROFILES[what]}: {100 * left:.0f} % in training, {100 * right:.0f} % in "
                "evaluation",
                key=seen.held_out_key,
                fix="Prepare both with one function.",
            )


_DIFFER: Final[dict[str, Callable[[float, float], bool]]] = {
    "labels": lambda least, most: most - least > 0.3,
    "pads": lambda least, most: most >= 0.5 and least <= 0.1,
    "eos": lambda least, most: most >= 0.9 and least <= 0.1,
}
"""Whether the smaller and the larger of two shares are of rows that were prepared in two ways."""

_PROFILES: Final = {
    "labels": "real tokens with a label",
    "pads": "label tokens that are pads",
    "eos": "rows that end in EOS",
}


def _other_form(
    self: Check, seen: Seen, train: tuple[Row, ...], held_out: tuple[Row, ...]
) -> Iterator[Finding]:
    """Nine in ten rows of one side begin alike, and at most one in ten of the other does."""
    text, pad = seen.text, seen.pad
    starts = [Counter(real_tokens(row, pad)[:3] for row in rows) for rows in (train, held_out)]
    for mine, others in (starts, starts[::-1]):
        start, count = mine.most_common(1)[0]
        whole, there = mine.total(), others.total()
        alike = whole >= 8 and there >= 8 and len(start) == 3 and count >= 0.9 * whole
        if alike and others[start] <= 0.1 * there:
            shown = others.most_common(1)[0][0]
            yield self.finding(
                "training and evaluation rows are written in different forms",
                evidence=[]
                if text is None
                else [
                    f"{count} of {whole} rows of one begin {text.show(start)}",
                    f"{others[start]} of {there} of the other do; one begins {text.show(shown)}",
                ],
                key=seen.held_out_key,
                fix="Prepare both with one function.",
            )
            return


def _profile(rows: tuple[Row, ...], text: Text | None) -> dict[str, float | None]:
    labelled = [row for row in rows if row.labels is not None]
    if not labelled:
        return {"labels": None, "pads": None, "eos": None}
    pad = text.pad if text is not None else None
    real = with_label = pads = labels = 0
    for row in labelled:
        assert row.labels is not None
        first, last = edges(row.ids, pad)
        real += last - first
        inside = sum(1 for label in row.labels[first:last] if label != IGNORED)
        every = sum(1 for label in row.labels if label != IGNORED)
        with_label, pads, labels = with_label + inside, pads + every - inside, labels + every
    ended = None
    if text is not None and text.eos is not None:
        ended = sum(1 for row in rows if stripped(row, text)[-1:] == (text.eos,)) / len(rows)
    return {
        "labels": with_label / max(1, real),
        "pads": pads / max(1, labels),
        "eos": ended,
    }
