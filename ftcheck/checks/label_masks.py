"""FT206, FT207, FT221: which labels are masked."""

from __future__ import annotations

from collections.abc import Iterator

from ftcheck.checks.data import instructs
from ftcheck.checks.facts import IGNORED, Row, Text
from ftcheck.checks.finding import Finding, Level, NotApplicable, Severity
from ftcheck.checks.labels import labelled, pad_places
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []

_MOST = 0.9
_HALF = 0.5


@check("FT206", "label-mask-lost", Level.DATA, Severity.ERROR)
def mask_lost(self: Check, seen: Seen) -> Iterator[Finding]:
    """The data set masks labels, and the collator makes them anew from the tokens.

    `DataCollatorForLanguageModeling` replaces labels by `input_ids`: prompts that were masked are
    learned after all.

    Bad: labels with −100 and `DataCollatorForLanguageModeling(tokenizer, mlm=False)`.

    Good: `DataCollatorForSeq2Seq(tokenizer)`, which pads labels and leaves them as they are.
    """
    seen.models_language()
    rows = [row for row in seen.need("train").rows if row.labels is not None]
    if not rows:
        raise NotApplicable("the data set has no labels of its own")
    by_ids: dict[tuple[int, ...], Row] = {}
    for row in seen.rows("batches"):
        by_ids.setdefault(row.ids, row)
    lost = kept = 0
    shown: Row | None = None
    for row in rows:
        assert row.labels is not None
        masked = _masked_text(row, seen.text)
        if not masked:
            continue
        batch, moved = _collated(row, by_ids)
        if batch is None or batch.labels is None:
            continue
        learned = sum(1 for place in masked if batch.labels[place + moved] != IGNORED)
        if learned >= _HALF * len(masked):
            lost, shown = lost + 1, row
        else:
            kept += 1
    if lost > kept:
        assert shown is not None
        assert shown.labels is not None
        hidden = [t for t, label in zip(shown.ids, shown.labels, strict=False) if label == IGNORED]
        yield self.finding(
            f"{seen.need('setup').collator} replaces labels that the data set masks: "
            f"{lost} of {lost + kept} rows learn what was masked",
            evidence=seen.show("masked and learned: ", hidden),
            key="tokenization.labels",
            fix="Use DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100).",
        )


def _masked_text(row: Row, text: Text | None) -> list[int]:
    """Places of tokens that are text, and have no label; the first has none in any case."""
    assert row.labels is not None
    pads = set(pad_places(row, text)) if text is not None else set()
    return [
        place
        for place, label in enumerate(row.labels)
        if label == IGNORED and 0 < place < len(row.ids) and place not in pads
    ]


def _collated(row: Row, by_ids: dict[tuple[int, ...], Row]) -> tuple[Row | None, int]:
    """The row of a batch that a row of the data set became, and by how much pads moved it."""
    if row.ids in by_ids:
        return by_ids[row.ids], 0
    length = len(row.ids)
    for ids, batch in by_ids.items():
        if len(ids) > length and ids[:length] == row.ids:
            return batch, 0
        if len(ids) > length and ids[-length:] == row.ids:
            return batch, len(ids) - length
    return None, 0


@check("FT207", "label-mask-inverted", Level.DATA, Severity.ERROR)
def inverted(self: Check, seen: Seen) -> Iterator[Finding]:
    """The prompt has labels, and the answer behind it is masked.

    Judged by where labels stand: at the beginning of rows, and not at the end of their text.

    Bad: `labels = ids[:prompt] + [-100] * (len(ids) - prompt)`

    Good: `labels = [-100] * prompt + ids[prompt:]`
    """
    rows = labelled(seen)
    pads = {seen.text.pad, seen.text.eos} if seen.text is not None else set()
    wrong, judged = 0, 0
    shown: Row | None = None
    for row in rows:
        assert row.labels is not None
        mask = row.mask or (1,) * len(row.ids)
        real = [place for place, token in enumerate(row.ids) if mask[place] and token not in pads]
        if len(real) < 6:
            continue
        judged += 1
        on = [row.labels[place] != IGNORED for place in real]
        tail = on[-2:]
        if any(on[:2]) and not any(tail) and 0.1 <= sum(on) / len(on) <= _MOST:
            wrong, shown = wrong + 1, row
    if judged and wrong >= 0.8 * judged:
        assert shown is not None
        assert shown.labels is not None
        learned = [t for t, label in zip(shown.ids, shown.labels, strict=True) if label != IGNORED]
        yield self.finding(
            f"in {wrong} of {judged} rows the beginning is learned and the end is masked: the mask "
            "of the labels is inverted",
            evidence=seen.show("learned: ", learned),
            key="tokenization.labels",
            fix="Mask the prompt, and learn the answer.",
        )


def _masked_at_the_start(row: Row, text: Text | None) -> bool:
    """Whether the second token of the text has no label; the first has none in any case."""
    assert row.labels is not None
    pads = set(pad_places(row, text)) if text is not None else set()
    real = [place for place in range(len(row.ids)) if place not in pads]
    return len(real) > 1 and row.labels[real[1]] == IGNORED


@check("FT221", "prompt-in-loss", Level.DATA, Severity.NOTE)
def prompt_learned(self: Check, seen: Seen) -> Iterator[Finding]:
    """Prompts are learned as well as answers.

    A choice that many make; a model that is to answer spends part of its steps on questions.

    Bad: nothing is wrong with it.

    Good, where answers alone are meant: labels of −100 on the prompt.
    """
    rows = labelled(seen)
    if instructs(seen, rows) != "the text has markers of an answer":
        raise NotApplicable("the rows do not look like prompts with answers")
    if not any(_masked_at_the_start(row, seen.text) for row in rows):
        yield self.finding(
            "prompts have labels: the loss is about questions as well as answers",
            key="tokenization.labels",
            fix="Mask the prompt in the labels if answers alone are meant.",
        )
