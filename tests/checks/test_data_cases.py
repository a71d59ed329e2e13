"""Checks of rows, tokens and labels, each from both sides, on live trainers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checks.cases import Build, Cases, both_sides
from tests.checks.toys import TEXTS, base, found, lora, rows, tokenizer, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about what is built wrong

Row = dict[str, Any]
EOS = 2047


def each(change: Callable[[Row], None], count: int = 24, **more: Any) -> Build:
    """A trainer whose first rows were changed."""

    def build(folder: Path) -> Any:
        made = rows()
        for row in made[:count]:
            change(row)
        return trainer(folder, train=made, **more)

    return build


def real(row: Row) -> int:
    return sum(row["attention_mask"])


def emptied(row: Row) -> None:
    row["input_ids"] = [EOS] * 48
    row["attention_mask"], row["labels"] = [0] * 48, [-100] * 48


def shifted(row: Row) -> None:
    row["labels"] = [*row["labels"][1:], -100]


def of_another(row: Row) -> None:
    row["labels"] = [label if label == -100 else 7 + n for n, label in enumerate(row["labels"])]


def noisy(row: Row) -> None:
    """Labels are right, and every seventh token of the input is another one."""
    row["input_ids"] = [5 if n % 7 == 3 else token for n, token in enumerate(row["input_ids"])]


def ignored(row: Row) -> None:
    row["labels"] = [-100] * 48


def inverted(row: Row) -> None:
    row["labels"] = [label if n < 8 else -100 for n, label in enumerate(row["labels"])]


def prompt_masked(row: Row) -> None:
    row["labels"] = [-100 if n < 8 else label for n, label in enumerate(row["labels"])]


def mostly_masked(row: Row) -> None:
    row["labels"] = [-100 if n < 14 else label for n, label in enumerate(row["labels"])]


def pads_learned(row: Row) -> None:
    row["labels"] = list(row["input_ids"])


def without_labels(row: Row) -> None:
    del row["labels"]


def floats(row: Row) -> None:
    row["labels"] = [float(label) for label in row["labels"]]


def minus_one(row: Row) -> None:
    row["labels"] = [-1 if label == -100 else label for label in row["labels"]]


def eos_ignored(row: Row) -> None:
    row["labels"][real(row) - 1] = -100


def no_eos_answers(row: Row) -> None:
    prompt_masked(row)
    last = real(row) - 1
    row["input_ids"][last], row["attention_mask"][last], row["labels"][last] = EOS, 0, -100


def no_eos(row: Row) -> None:
    last = real(row) - 1
    row["attention_mask"][last], row["labels"][last] = 0, -100


def bos_twice(row: Row) -> None:
    for name, value in (("input_ids", EOS), ("attention_mask", 1), ("labels", EOS)):
        row[name] = [value, value, *row[name][:-2]]


def bos_once(row: Row) -> None:
    for name, value in (("input_ids", EOS), ("attention_mask", 1), ("labels", EOS)):
        row[name] = [value, *row[name][:-1]]


def mask_inverted(row: Row) -> None:
    row["attention_mask"] = [1 - on for on in row["attention_mask"]]


def on_the_left(row: Row) -> None:
    count = real(row)
    for name in ("input_ids", "attention_mask", "labels"):
        row[name] = [*row[name][count:], *row[name][:count]]


def on_the_left_unmasked(row: Row) -> None:
    on_the_left(row)
    row["attention_mask"] = [1] * 48


def all_ones(row: Row) -> None:
    row["attention_mask"] = [1] * 48


def beyond(token: int) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row["input_ids"][2] = token

    return change


def negative(row: Row) -> None:
    row["input_ids"][2] = -100


def repeated(count: int) -> Build:
    return lambda folder: trainer(folder, train=[*rows(), *rows()[:count]])


def overlapping(count: int) -> Build:
    def build(folder: Path) -> Any:
        others = rows(
            [
                f"class Kind{n}:\n    value = {n} + {n * n}\n    name = 'kind {n}'\n"
                for n in range(20)
            ]
        )
        return trainer(folder, evaluation=[*others[count:], *rows()[:count]])

    return build


def evaluated(change: Callable[[Row], None]) -> Build:
    def build(folder: Path) -> Any:
        made = rows()
        for row in made:
            change(row)
        return trainer(folder, evaluation=made)

    return build


def collated(kind: str) -> Build:
    """Rows whose prompts are masked, and a collator of the library."""

    def build(folder: Path) -> Any:
        import transformers

        made = rows()
        for row in made:
            prompt_masked(row)
        options = {"mlm": False} if kind == "DataCollatorForLanguageModeling" else {}
        collator = getattr(transformers, kind)(tokenizer(), **options)
        return trainer(folder, train=made, data_collator=collator)

    return build


def positions(count: int, context: int) -> Build:
    return lambda folder: trainer(
        folder, model=lora(base(n_positions=context)), train=rows(TEXTS, length=count)
    )


def answers(text: str) -> Build:
    return lambda folder: trainer(
        folder, train=rows([f"### Question: {n}?{text}{n}" for n in range(20)])
    )


def padless(*, padded: bool) -> Build:
    def build(folder: Path) -> Any:
        from transformers import DataCollatorForSeq2Seq

        words = tokenizer()
        if padded:
            words.pad_token = None
        short = [{"input_ids": row["input_ids"][: real(row)]} for row in rows()]
        return trainer(
            folder, train=short, data_collator=DataCollatorForSeq2Seq(words), processing_class=words
        )

    return build


def grown(folder: Path) -> Any:
    words = tokenizer()
    words.add_tokens(["<|role|>"])
    return trainer(folder, processing_class=words)


def foreign(text: str) -> Build:
    return lambda folder: trainer(folder, train=rows([text * 3] * 40, length=100))


def no_change(row: Row) -> None:
    """A sound row."""


sound = each(no_change)
CASES: Cases = {
    "FT101": (each(emptied, 12), "warning", (sound,)),
    "FT102": (repeated(6), "warning", (sound,)),
    "FT103": (overlapping(1), "warning", (overlapping(0),)),
    "FT201": (each(without_labels), "error", (sound,)),
    "FT202": (each(of_another), "error", (each(noisy), each(shifted), sound)),
    "FT203": (each(ignored), "error", (each(prompt_masked), sound)),
    "FT204": (each(shifted), "error", (each(noisy), each(of_another), sound)),
    "FT205": (each(floats), "error", (sound,)),
    "FT206": (
        collated("DataCollatorForLanguageModeling"),
        "error",
        (collated("DataCollatorForSeq2Seq"), sound),
    ),
    "FT207": (each(inverted), "error", (each(prompt_masked), each(eos_ignored), sound)),
    "FT208": (each(pads_learned, 8), "note", (each(prompt_masked), sound)),
    "FT209": (each(eos_ignored), "warning", (each(eos_ignored, 20), each(no_eos), sound)),
    "FT210": (each(no_eos_answers), "warning", (each(prompt_masked), each(no_eos), sound)),
    "FT211": (each(minus_one), "error", (sound,)),
    "FT212": (each(bos_twice), "warning", (each(bos_once), each(bos_twice, 2), sound)),
    "FT213": (padless(padded=True), "error", (padless(padded=False),)),
    "FT214": (each(beyond(2048)), "error", (each(beyond(2047)), sound)),
    "FT215": (each(negative), "error", (sound,)),
    "FT216": (positions(48, 47), "error", (positions(48, 48),)),
    "FT217": (each(mask_inverted), "error", (each(on_the_left), sound)),
    "FT218": (evaluated(mostly_masked), "warning", (evaluated(no_change),)),
    "FT221": (answers("\n### Answer: "), "note", (sound, answers(" is "))),
}
test_it_catches_what_is_wrong, test_it_leaves_near_misses_alone = both_sides(CASES, __name__)


@pytest.mark.parametrize(
    ("code", "build", "severity"),
    [
        ("FT101", each(emptied, 11), "note"),
        ("FT102", repeated(4), "note"),
        ("FT203", each(ignored, 13), "warning"),
        ("FT203", each(ignored, 3), "note"),
        ("FT208", each(pads_learned), "note"),
        ("FT214", grown, "warning"),
        ("FT217", each(on_the_left_unmasked), "error"),
        ("FT217", each(all_ones), "note"),
        ("FT218", evaluated(no_eos), "warning"),
        ("FT218", evaluated(without_labels), "warning"),
    ],
)
def test_other_degrees(tmp_path: Path, code: str, build: Build, severity: str) -> None:
    findings = found(build(tmp_path), code)
    assert [one.severity.value for one in findings] == [severity]
