"""FT1xx: the rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from ftcheck.checks.facts import IGNORED, Row
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []

_LONG_ENOUGH: Final = 16
"""Tokens from which two equal rows are no coincidence, as headings and short answers are."""


def real_tokens(row: Row, pad: int | None) -> tuple[int, ...]:
    """Tokens of a row without what the mask leaves out, and without a run of pads at an end."""
    ids = row.ids
    if row.mask is not None and len(row.mask) == len(ids):
        ids = tuple(token for token, on in zip(ids, row.mask, strict=True) if on)
    first, last = edges(ids, pad)
    return ids[first:last]


def edges(ids: Sequence[int], pad: int | None) -> tuple[int, int]:
    """Where text begins and ends: without runs of the pad token at an end."""
    first, last = 0, len(ids)
    if pad is None:
        return first, last
    while last > first and ids[last - 1] == pad:
        last -= 1
    while first < last and ids[first] == pad:
        first += 1
    return first, last


def _tokens(seen: Seen, what: Literal["train", "evaluation"]) -> list[tuple[int, ...]]:
    rows = seen.need(what)
    if not seen.real_data:
        raise NotMeasured("other text stands in for the data")
    found: Sequence[Row] = rows.rows
    if not found:
        batches = seen.batches if what == "train" else seen.eval_batches
        found = batches.rows if batches is not None else ()
    if not found:
        raise NotMeasured("the data set has no rows of tokens before they are collated")
    return [real_tokens(row, seen.pad) for row in found]


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / max(1, whole):.0f} %)"


@check("FT101", "rows-empty", Level.DATA, Severity.NOTE)
def rows_empty(self: Check, seen: Seen) -> Iterator[Finding]:
    """Rows that hold no text, or a single token.

    A causal model has nothing to predict in them: they take a place in the batch and teach at most
    the padding. A note; a warning from half of the rows on.

    Bad: `load_dataset("wikitext", ...)` as it is: a third of its rows are empty lines.

    Good:

        dataset = dataset.filter(lambda row: row["text"].strip())
    """
    rows = _tokens(seen, "train")
    empty = sum(1 for row in rows if len(row) < 2)
    if empty:
        yield self.finding(
            f"{_share(empty, len(rows))} rows have fewer than two tokens",
            key="data.drop_empty",
            fix="Leave them out before tokenizing.",
            change={"data.drop_empty": True},
            severity=Severity.WARNING if 2 * empty >= len(rows) else None,
        )


@check("FT102", "rows-repeated", Level.DATA, Severity.NOTE)
def rows_repeated(self: Check, seen: Seen) -> Iterator[Finding]:
    """Rows that are there more than once.

    What is repeated is learned by heart, and counts more than it should. Rows below 16 tokens do
    not count: headings and short answers repeat. A note from 1 % on; a warning from 20 % on, which
    is more than data sets that were joined by mistake have by chance.

    Bad: the same file given twice to `load_dataset("text", data_files=[...])`.

    Good: `dataset.unique("text")` beforehand.
    """
    rows = [row for row in _tokens(seen, "train") if len(row) >= _LONG_ENOUGH]
    counts = Counter(rows)
    repeated = sum(count - 1 for count in counts.values())
    if rows and repeated >= 0.01 * len(rows):
        row, times = counts.most_common(1)[0]
        yield self.finding(
            f"{_share(repeated, len(rows))} rows repeat another one",
            evidence=seen.show(f"{times} times: ", row),
            key="data.path",
            fix="Leave the repeated ones out.",
            severity=Severity.WARNING if repeated >= 0.2 * len(rows) else None,
        )


@check("FT103", "eval-rows-in-training", Level.DATA, Severity.WARNING)
def overlap(self: Check, seen: Seen) -> Iterator[Finding]:
    """Evaluation rows that are in the training set, exactly or nearly.

    The evaluation loss then measures memory. Rows below 16 tokens do not count. Nearly: 80 % of a
    row's runs of eight tokens are in one training row. A warning from 5 % of the evaluation rows
    on, else a note.

    Bad:

        trainer = Trainer(train_dataset=data, eval_dataset=data.select(range(100)), ...)

    Good:

        split = data.train_test_split(test_size=100, seed=42)
    """
    train = [row for row in _tokens(seen, "train") if len(row) >= _LONG_ENOUGH]
    held_out = [row for row in _tokens(seen, "evaluation") if len(row) >= _LONG_ENOUGH]
    if not held_out:
        raise NotApplicable("no evaluation row is long enough to tell")
    exact = set(train)
    runs: dict[tuple[int, ...], set[int]] = {}
    for number, row in enumerate(train):
        for start in range(0, len(row) - 7):
            runs.setdefault(row[start : start + 8], set()).add(number)
    same = [row for row in held_out if row in exact]
    near = [row for row in held_out if row not in exact and _mostly_in(row, runs)]
    count = len(same) + len(near)
    if count:
        shown = (same or near)[0]
        yield self.finding(
            f"{_share(count, len(held_out))} evaluation rows are in the training set "
            f"({len(same)} exactly, {len(near)} nearly)",
            evidence=seen.show("", shown),
            key=seen.held_out_key,
            fix="Split before anything else, and leave out rows that are on both sides.",
            severity=None if count >= 0.05 * len(held_out) else Severity.NOTE,
        )


def _mostly_in(row: tuple[int, ...], runs: dict[tuple[int, ...], set[int]]) -> bool:
    found: Counter[int] = Counter()
    total = len(row) - 7
    for start in range(total):
        found.update(runs.get(row[start : start + 8], ()))
    return bool(found) and found.most_common(1)[0][1] >= 0.8 * total


@check("FT104", "shuffle-unseeded", Level.STATIC, Severity.WARNING)
def shuffle_unseeded(self: Check, seen: Seen) -> Iterator[Finding]:
    """A data set is shuffled or split without a seed, before any seed was set.

    Every run then trains on other rows, or evaluates on rows that it trained on before.

    Bad: `dataset.shuffle().select(range(1000))`

    Good: `dataset.shuffle(seed=42).select(range(1000))`
    """
    for call in seen.need("record").of("shuffle"):
        if not call.facts["seeded"]:
            yield self.finding(
                f"{call.facts['method']} without a seed: every run has other rows",
                place=call.place,
                key="data.shuffle_seed",
                fix="Give it seed=42.",
            )


@check("FT105", "columns-dropped", Level.STATIC, Severity.NOTE)
def columns_dropped(self: Check, seen: Seen) -> Iterator[Finding]:
    """Columns that `Trainer` takes away before the collator sees them.

    `remove_unused_columns` keeps what the model's `forward` names. Text that is left over is no
    loss; a list of numbers for each token (weights, a mask of one's own) was meant to be used, and
    is a warning.

    Bad: a column `loss_mask` and the default `remove_unused_columns=True`.

    Good: `TrainingArguments(remove_unused_columns=False, ...)`, and a collator that uses it.
    """
    setup = seen.need("setup")
    usual = {
        "special_tokens_mask",
        "token_type_ids",
        "length",
        "overflow_to_sample_mapping",
        "offset_mapping",
        "num_truncated_tokens",
        "idx",
        "id",
        "tokens",
        "seq_lengths",
    }
    lists = [
        name for name, numbers in setup.dropped_columns.items() if numbers and name not in usual
    ]
    if lists:
        yield self.finding(
            f"Trainer drops the column {', '.join(map(repr, lists))}, which holds numbers for each "
            "row",
            evidence=[f"columns: {', '.join(setup.columns)}"],
            key="training.remove_unused_columns",
            fix="Set remove_unused_columns=False if the collator or the loss is to see it.",
            severity=Severity.WARNING,
        )


@check("FT106", "map-cache-stale", Level.DATA, Severity.ERROR)
def map_stale(self: Check, seen: Seen) -> Iterator[Finding]:
    """`Dataset.map` gave rows from its cache that its function would not make today.

    A function that is imported from a module is hashed by its name (datasets#3297): the rows of
    its older version are served. The function is called on the first rows again, and compared.

    Bad: `dataset.map(prepare)` with `from my_module import prepare`, after an edit.

    Good: `dataset.map(prepare, load_from_cache_file=False)`
    """
    for call in seen.need("record").of("map"):
        if call.facts.get("stale"):
            yield self.finding(
                f"map({call.facts['function']}) served rows that the function does not make today",
                place=call.place,
                evidence=call.facts["evidence"],
                fix="Pass load_from_cache_file=False, or delete the cache of the data set.",
            )


@check("FT107", "rows-truncated", Level.DATA, Severity.NOTE)
def truncated(self: Check, seen: Seen) -> Iterator[Finding]:
    """How much of the text `max_length` cuts away.

    A note with the share; a warning from half of all tokens on.

    Bad: `max_length=128` for documents of 2,000 tokens.

    Good: a longer `max_length`, or packing (`tokenization.packing = true`), which cuts nothing.
    """
    rows = seen.need("train")
    if not seen.real_data:
        raise NotMeasured("other text stands in for the data")
    if rows.cut is None:
        raise NotMeasured("the text before it was cut is not known")
    cut, total = rows.cut
    packed = seen.recipe is not None and seen.recipe.tokenization.packing
    if cut:
        yield self.finding(
            f"max_length cuts {_share(cut, total)} tokens away"
            if not packed
            else f"packing leaves {_share(cut, total)} tokens out, which fill no block",
            key="tokenization.max_length",
            fix="Set max_length higher, or pack the rows."
            if not packed
            else "Set max_length lower, if the rest that fills no block matters.",
            severity=Severity.WARNING if 2 * cut >= total else None,
        )


@check("FT108", "text-foreign-to-tokenizer", Level.DATA, Severity.WARNING)
def foreign(self: Check, seen: Seen) -> Iterator[Finding]:
    """Text that the tokenizer cuts into single bytes: another language, or no text at all.

    Rows get several times longer than need be, and the model has hardly seen such tokens. English
    text has about 4.3 bytes a token in GPT-2's vocabulary, Python code about 3, Chinese 1.3.
    Looked at from 1,000 tokens and a vocabulary of 5,000 on; a warning below 1.6 bytes a token.

    Bad: Chinese text and GPT-2.

    Good: a model whose tokenizer knows the language.
    """
    text = seen.need("text")
    if text.size < 5000:
        raise NotApplicable("the vocabulary is too small to tell")
    rows = _tokens(seen, "train")[:500]
    count = sum(len(row) for row in rows)
    if count < 1000:
        raise NotMeasured("fewer than 1,000 tokens were seen")
    size = sum(len(text.decode(row).encode()) for row in rows)
    if size / count < 1.6:
        yield self.finding(
            f"the tokenizer makes a token of every {size / count:.1f} bytes of text",
            evidence=[text.show(max(rows, key=len))],
            key="model.name_or_path",
            fix="Use a model whose tokenizer knows this language.",
        )


@check("FT109", "eval-set-tiny", Level.STATIC, Severity.NOTE)
def eval_tiny(self: Check, seen: Seen) -> Iterator[Finding]:
    """The best checkpoint is chosen on fewer than ten rows.

    Bad: `load_best_model_at_end=True` with an evaluation set of four rows.

    Good: fifty rows or more.
    """
    setup = seen.need("setup")
    if setup.eval_rows is None:
        raise NotApplicable("there is no evaluation set")
    if setup.eval_rows < 10 and setup.arguments.get("load_best_model_at_end"):
        yield self.finding(
            f"the best checkpoint is chosen on {setup.eval_rows} rows",
            key="data.eval_rows",
            fix="Hold out more rows.",
        )


_MARKERS: Final = re.compile(
    r"### ?(Response|Assistant|Answer|Output)|<\|assistant\|>|\[/INST\]|<\|im_start\|>assistant"
    r"|\nAssistant:|\nAnswer:|\nA:|<start_of_turn>model",
    re.IGNORECASE,
)


def instructs(seen: Seen, rows: Sequence[Row]) -> str:
    """Why rows look like prompts with answers; empty where they do not."""
    labelled = [
        row for row in rows if row.labels is not None and any(t != IGNORED for t in row.labels)
    ]
    masked = [row for row in labelled if _prompt_masked(row)]
    if labelled and 2 * len(masked) >= len(labelled):
        return "the labels of prompts are masked"
    if seen.text is None or not rows:
        return ""
    few = rows[:64]
    marked = sum(1 for row in few if _MARKERS.search(seen.text.decode(row.ids)))
    return "the text has markers of an answer" if marked >= 0.8 * len(few) else ""


def _prompt_masked(row: Row) -> bool:
    """Whether labels begin behind some real tokens that have none."""
    assert row.labels is not None
    first = next((n for n, label in enumerate(row.labels) if label != IGNORED), None)
    if not first or first < 2:
        return False
    mask = row.mask or (1,) * len(row.ids)
    return sum(mask[:first]) >= 2
