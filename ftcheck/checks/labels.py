"""FT20x: labels, and the tokens that the loss is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ftcheck.checks.data import edges
from ftcheck.checks.facts import IGNORED, Row, Text
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__ = ["TAIL", "labelled", "pad_places"]

_MOST: Final = 0.9
_HALF: Final = 0.5
TAIL: Final = 3
"""Last tokens of a row that are its end: EOS, and what chat templates write behind it."""


def labelled(seen: Seen) -> list[Row]:
    """Rows with labels of the length of their ids."""
    seen.models_language()
    found = [
        row
        for row in seen.rows("batches")
        if row.labels is not None and len(row.labels) == len(row.ids)
    ]
    if not found:
        raise NotApplicable("there are no labels for each token")
    return found


@check("FT201", "labels-missing", Level.DATA, Severity.ERROR)
def missing(self: Check, seen: Seen) -> Iterator[Finding]:
    """Batches have no labels, and the model returns no loss.

    `ValueError: The model did not return a loss from the inputs, only the following keys: logits.`

    Bad: rows with `input_ids` and `attention_mask` alone, and the default collator.

    Good: `row["labels"] = row["input_ids"].copy()`, or
    `DataCollatorForLanguageModeling(tokenizer, mlm=False)`.
    """
    seen.models_language()
    batches = seen.need("batches")
    if not batches.keys:
        raise NotMeasured("no batch could be made")
    setup = seen.need("setup")
    if "labels" not in batches.keys and not setup.own_loss:
        names = [name for name in setup.label_names if name in batches.keys]
        if names and names != ["labels"]:
            raise NotApplicable(f"the labels are called {', '.join(names)}")
        yield self.finding(
            "batches have no labels: the model will not return a loss",
            evidence=[f"a batch has {', '.join(batches.keys)}"],
            key="tokenization.labels",
            fix="Set labels to a copy of input_ids, with −100 where the attention mask is 0.",
        )


@check("FT202", "labels-of-another-row", Level.DATA, Severity.ERROR)
def other_row(self: Check, seen: Seen) -> Iterator[Finding]:
    """Labels are neither the row's own tokens nor the next ones.

    Half of the labels or fewer equal the token at their place or the one behind it: they belong to
    another row, or to nothing.

    Bad: shuffling `labels` and `input_ids` apart from each other.

    Good: labels made from the ids of the same row.
    """
    rows = labelled(seen)
    same, after, total = _matches(rows)
    if total and same <= _HALF * total and after <= _HALF * total:
        row = max(rows, key=lambda one: sum(1 for label in one.labels or () if label != IGNORED))
        labels = [label for label in row.labels or () if label != IGNORED]
        yield self.finding(
            f"labels are not the tokens of their rows: {100 * same / total:.0f} % equal the token "
            f"at their place, {100 * after / total:.0f} % the one behind it",
            evidence=[*seen.show("tokens ", row.ids), *seen.show("labels ", labels)],
            key="tokenization.labels",
            fix="Make labels from the input_ids of the same row.",
        )


def _matches(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Labels that equal the token at their place, those that equal the next one, and all.

    Where both are the same, nothing can be told, and it does not count.
    """
    same = after = total = 0
    for row in rows:
        assert row.labels is not None
        for place, label in enumerate(row.labels):
            if label == IGNORED or place + 1 >= len(row.ids):
                continue
            here, following = row.ids[place], row.ids[place + 1]
            if here == following:
                continue
            total += 1
            same += label == here
            after += label == following
    return same, after, total


@check("FT203", "labels-all-ignored", Level.DATA, Severity.ERROR)
def all_ignored(self: Check, seen: Seen) -> Iterator[Finding]:
    """Every label is −100: there is nothing to learn.

    The Trainer logs `loss: 0.0` and goes on. It comes from a response template that is not found,
    or from prompts as long as `max_length`. An error where it is so in every row; a warning from
    half of the rows on; else a note.

    Bad: `max_length=64` and prompts of 100 tokens.

    Good: longer rows; rows without an answer are filtered out.
    """
    rows = labelled(seen)
    empty = [row for row in rows if all(label == IGNORED for label in (row.labels or ())[1:])]
    if not empty:
        return
    share = len(empty) / len(rows)
    severity = (
        Severity.ERROR if share == 1 else Severity.WARNING if share >= _HALF else Severity.NOTE
    )
    yield self.finding(
        f"{len(empty)} of {len(rows)} rows have no label but −100: they teach nothing",
        evidence=seen.show("", empty[0].ids),
        key="tokenization.labels",
        fix="Check what masks the labels, raise max_length, or filter such rows out.",
        severity=severity,
    )


@check("FT204", "labels-shifted", Level.DATA, Severity.ERROR)
def shifted(self: Check, seen: Seen) -> Iterator[Finding]:
    """Labels are shifted by hand, and the model shifts them again.

    Each token then learns the one after the next, and nothing says so. Where the trainer has a loss
    of its own, that loss is asked how it shifts: it does not where it is within 2 % of the loss
    without a shift, and no nearer to the one with it.

    Bad: `labels = input_ids[1:] + [eos]`

    Good: `labels = input_ids`: models of transformers shift by themselves.
    """
    rows = labelled(seen)
    same, after, total = _matches(rows)
    if not total or after < _MOST * total or same > _HALF * total:
        return
    if seen.need("setup").own_loss:
        learning = seen.need("learning")
        own, plain, again = learning.own_loss, learning.unshifted_loss, learning.mean_loss
        if own is None or plain is None or again is None:
            raise NotMeasured("the loss of the trainer could not be computed")
        apart = abs(own - plain)
        if apart < 0.02 * max(1.0, abs(plain)) and apart <= abs(own - again):
            return  # labels shifted once, and a loss that does not shift
    row = rows[0]
    yield self.finding(
        f"labels are the next token already ({100 * after / total:.0f} %), and the model shifts "
        "them again: it learns the token after the next",
        evidence=[*seen.show("tokens ", row.ids), *seen.show("labels ", row.labels or ())],
        key="tokenization.labels",
        fix="Leave labels in the place of their tokens: labels = input_ids.",
    )


@check("FT205", "labels-not-int64", Level.DATA, Severity.ERROR)
def dtype(self: Check, seen: Seen) -> Iterator[Finding]:
    """Labels that are no 64-bit integers.

    `cross_entropy` takes classes as int64; floats of that shape it takes for something else, or
    refuses.

    Bad: `torch.tensor(labels, dtype=torch.float32)`

    Good: `torch.tensor(labels)`
    """
    seen.models_language()
    batches = seen.need("batches")
    if not batches.label_dtype:
        raise NotApplicable("there are no labels")
    if batches.label_dtype != "int64":
        yield self.finding(
            f"labels have the type {batches.label_dtype}, expected int64",
            key="tokenization.labels",
            fix="Make them int64 (torch.long).",
        )


@check("FT208", "pads-in-loss", Level.DATA, Severity.NOTE)
def pads(self: Check, seen: Seen) -> Iterator[Finding]:
    """Padding has labels: part of the loss is about predicting pads.

    It costs steps, makes the loss look small, and a perplexity mean nothing. One EOS behind the
    text does not count. A note with the share; a warning from half of the label tokens on.

    Bad: `labels = input_ids` and rows that are padded to `max_length`.

    Good: labels of −100 where the attention mask is 0 (`tokenization.labels = "pads_masked"`).
    """
    text = seen.need("text")
    count, total = 0, 0
    for row in labelled(seen):
        assert row.labels is not None
        places = pad_places(row, text)
        total += sum(1 for label in row.labels if label != IGNORED)
        count += sum(1 for place in places if row.labels[place] != IGNORED)
    if count and total:
        share = count / total
        yield self.finding(
            f"{100 * share:.0f} % of the label tokens are padding",
            evidence=[
                f"{count:,} of {total:,} labels in the batches that were looked at",
                f"the rest of {100 * (1 - share):.0f} % is what the run learns from",
            ],
            key="tokenization.labels",
            fix="Mask pads in the labels.",
            change={"tokenization.labels": "pads_masked"},
            severity=Severity.WARNING if share >= _HALF else None,
        )


def pad_places(row: Row, text: Text) -> list[int]:
    """Places of padding: by the mask, and runs of the pad token at an end but for one EOS."""
    places: set[int] = set()
    if row.mask is not None and len(row.mask) == len(row.ids):
        places = {place for place, on in enumerate(row.mask) if not on}
    if text.pad is None:
        return sorted(places)
    first, last = edges(row.ids, text.pad)
    if last == 0:
        return list(range(len(row.ids)))
    behind = set(range(last, len(row.ids)))
    if text.pad == text.eos and last not in places:
        behind.discard(last)  # the EOS of the text
    in_front = set(range(first)) if first > 1 or text.pad != text.bos else set()
    if text.pad == text.bos and first - 1 not in places:
        in_front.discard(first - 1)  # the BOS of the text
    places |= behind | in_front
    return sorted(places)


@check("FT209", "eos-never-learned", Level.DATA, Severity.WARNING)
def eos_ignored(self: Check, seen: Seen) -> Iterator[Finding]:
    """Rows end in EOS, and its label is −100: the model never learns to stop.

    With the pad token set to EOS, a collator that masks every pad id masks the EOS of the text,
    too (transformers#23530). Up to two tokens behind it, such as a line feed, are part of the end.

    Bad:

        tokenizer.pad_token = tokenizer.eos_token
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)

    Good: a pad token of its own, or labels that go by the attention mask.
    """
    text = seen.need("text")
    eos = text.eos
    if eos is None:
        raise NotApplicable("there is no EOS token")
    at_the_end = ignored = 0
    shown: tuple[int, ...] = ()
    for row in labelled(seen):
        assert row.labels is not None
        mask = row.mask or (1,) * len(row.ids)
        real = [place for place, on in enumerate(mask) if on]
        if row.mask is None:  # a run of EOS is padding, but for its first
            real = real[: len(row.ids) - _run_at_the_end(row.ids, eos) + 1]
        ends = [place for place in real[1:][-TAIL:] if row.ids[place] == eos]
        if not ends:
            continue
        place = ends[-1]
        at_the_end += 1
        # Where labels are shifted by hand (FT204), that of EOS stands one place before it.
        lost = row.labels[place] == IGNORED and row.labels[place - 1] != eos
        if lost and any(label != IGNORED for label in row.labels):
            ignored, shown = ignored + 1, row.ids[max(0, place - 7) : place + 1]
    if not at_the_end:
        raise NotApplicable("no row has an EOS that the mask shows")
    if ignored >= _MOST * at_the_end:
        yield self.finding(
            f"{ignored} of {at_the_end} rows with EOS ignore it in their labels: the model never "
            "learns to stop",
            evidence=[f"pad id {text.pad}, EOS id {eos}", text.show(shown)],
            key="tokenization.pad_token",
            fix="Give the tokenizer a pad token of its own, or mask labels by the attention mask.",
        )


def _run_at_the_end(ids: tuple[int, ...], token: int) -> int:
    """How many times a token stands at the end."""
    count = 0
    while count < len(ids) and ids[-1 - count] == token:
        count += 1
    return count


@check("FT211", "labels-out-of-vocabulary", Level.DATA, Severity.ERROR)
def out_of_vocabulary(self: Check, seen: Seen) -> Iterator[Finding]:
    """Labels that are no token: negative but for −100, or beyond the vocabulary.

    On a CPU: "Target -1 is out of bounds"; on a card: "device-side assert triggered".

    Bad: `label_pad_token_id=-1`

    Good: −100, which losses leave out.
    """
    setup = seen.need("setup")
    wrong = {
        label
        for row in labelled(seen)
        for label in row.labels or ()
        if label != IGNORED and not 0 <= label < setup.embedding_rows
    }
    if wrong:
        yield self.finding(
            f"labels hold {', '.join(map(str, sorted(wrong)[:5]))}, expected token ids below "
            f"{setup.embedding_rows} or −100",
            key="tokenization.labels",
            fix="Use −100 for what is not to be learned.",
        )
