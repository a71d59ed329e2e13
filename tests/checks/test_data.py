"""FT101 to FT109: the rows, from both sides of each limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ftcheck.checks.facts import Call, Record, Rows
from ftcheck.checks.finding import Finding, Level, Severity, Status
from ftcheck.checks.observe.looking import look_at
from ftcheck.checks.seen import Seen
from ftcheck.recipe import load_recipe
from ftcheck.subjects.trainer import trainer_subject
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, judged, lora, rows, tokenizer, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about what is built wrong

EOS = 2047  # also the pad token of the toy tokenizer
TEXT = "def total(values):\n    return sum(values)\n"


def row(ids: Sequence[int], length: int = 48) -> dict[str, Any]:
    """Some tokens, padded on the right."""
    pads = length - len(ids)
    return {
        "input_ids": [*ids, *[EOS] * pads],
        "attention_mask": [1] * len(ids) + [0] * pads,
        "labels": [*ids, *[-100] * pads],
    }


def distinct(count: int, tokens: int = 27, first: int = 0) -> list[dict[str, Any]]:
    """Rows that share no run of eight tokens."""
    starts = range(first, first + count)
    return [row([(7 * start + step * step) % 2040 for step in range(tokens)]) for start in starts]


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    made = trainer(tmp_path_factory.mktemp("seen"))
    return look_at(trainer_subject(made), {Level.DATA})


def did(seen: Seen, what: str, **facts: Any) -> Seen:
    call = Call(what=what, place="train.py:9", when="before", facts=facts)
    return dataclasses.replace(seen, kind="script", record=Record(calls=(call,), through=True))


@catches("FT101")
@pytest.mark.parametrize("tokens", [0, 1])
@pytest.mark.parametrize(
    ("count", "severity", "share"),
    [
        (1, Severity.NOTE, "1 of 24 (4 %)"),
        (11, Severity.NOTE, "11 of 24 (46 %)"),
        (12, Severity.WARNING, "12 of 24 (50 %)"),
    ],
)
def test_empty_rows_are_counted(
    tmp_path: Path, tokens: int, count: int, severity: Severity, share: str
) -> None:
    made = [row([5] * tokens)] * count + distinct(24 - count)
    finding = only(found(trainer(tmp_path, train=made), "FT101"))
    assert finding.severity is severity
    assert finding.sentence == f"{share} rows have fewer than two tokens"
    assert finding.fix.change == {"data.drop_empty": True}


@leaves_alone("FT101")
def test_rows_of_two_tokens_are_not_empty(tmp_path: Path) -> None:
    assert found(trainer(tmp_path, train=[row([5, 6])] * 24), "FT101") == ()


@leaves_alone("FT101")
def test_an_eos_with_a_pad_token_of_its_own_is_a_token(tmp_path: Path) -> None:
    words = tokenizer(pad_token="~")
    made = trainer(tmp_path, train=[row([5, EOS])] * 24, processing_class=words)
    assert found(made, "FT101") == ()


class Tokenizing:
    """A collator that tokenizes texts."""

    def __call__(self, examples: list[dict[str, str]]) -> Any:
        texts = [one["text"] for one in examples]
        batch = tokenizer()(texts, padding="max_length", max_length=48, return_tensors="pt")
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return batch


@catches("FT101", "FT102")
@pytest.mark.parametrize("code", ["FT101", "FT102"])
def test_rows_that_the_collator_tokenizes_are_seen_as_well(tmp_path: Path, code: str) -> None:
    texts = ["", *[f"def add_{n}(a, b):\n    return a + b * {n}\n" for n in range(18)] * 2]
    made = trainer(
        tmp_path,
        train=[{"text": text} for text in texts],
        data_collator=Tokenizing(),
        arguments={"remove_unused_columns": False},
    )
    assert len(found(made, code)) == 1


@leaves_alone("FT101", "FT102", "FT103", "FT107")
@pytest.mark.parametrize("code", ["FT101", "FT102", "FT103", "FT107"])
def test_nothing_is_said_of_text_that_stands_in(seen: Seen, code: str) -> None:
    one = judged(dataclasses.replace(seen, real_data=False), code)
    assert one.status is Status.UNMEASURED


def with_repeated(count: int, total: int, tokens: int = 16) -> list[dict[str, Any]]:
    made = distinct(total - count, tokens)
    return [*made, *made[:count]]


@catches("FT102")
@pytest.mark.parametrize(
    ("count", "severity"), [(1, Severity.NOTE), (19, Severity.NOTE), (20, Severity.WARNING)]
)
def test_repeated_rows_are_counted(tmp_path: Path, count: int, severity: Severity) -> None:
    finding = only(found(trainer(tmp_path, train=with_repeated(count, 100)), "FT102"))
    assert finding.severity is severity
    assert finding.sentence.startswith(f"{count} of 100 ({count} %)")
    assert finding.evidence[0].startswith("2 times: ")


@catches("FT102")
def test_a_row_is_the_same_whatever_its_padding(tmp_path: Path) -> None:
    first, *others = distinct(24)
    moved = {name: [*values[27:], *values[:27]] for name, values in first.items()}
    assert len(found(trainer(tmp_path, train=[first, *others, moved]), "FT102")) == 1


@leaves_alone("FT102")
@pytest.mark.parametrize(
    "made",
    [with_repeated(1, 101), with_repeated(50, 100, tokens=15), distinct(100)],
    ids=["below 1 %", "headings of 15 tokens", "distinct"],
)
def test_few_or_short_repeated_rows_are_left_alone(
    tmp_path: Path, made: list[dict[str, Any]]
) -> None:
    assert found(trainer(tmp_path, train=made), "FT102") == ()


def cut_short(by: int) -> dict[str, Any]:
    """The first training row, whose last tokens are others: each takes one of 20 runs away."""
    ids = distinct(1)[0]["input_ids"][:27]
    return row([*ids[: 27 - by], *range(1000, 1000 + by)])


@catches("FT103")
@pytest.mark.parametrize(
    ("others", "severity", "share"),
    [(19, Severity.WARNING, "1 of 20 (5 %)"), (20, Severity.NOTE, "1 of 21 (5 %)")],
)
@pytest.mark.parametrize(("by", "how"), [(0, "1 exactly, 0 nearly"), (4, "0 exactly, 1 nearly")])
def test_evaluation_rows_of_the_training_set_are_counted(
    tmp_path: Path, *, others: int, severity: Severity, share: str, by: int, how: str
) -> None:
    held_out = [cut_short(by), *distinct(others, first=100)]
    made = trainer(tmp_path, train=distinct(24), evaluation=held_out)
    finding = only(found(made, "FT103"))
    assert finding.severity is severity
    assert finding.sentence == f"{share} evaluation rows are in the training set ({how})"


@leaves_alone("FT103")
def test_rows_that_share_less_are_left_alone(tmp_path: Path) -> None:
    first, second = (one["input_ids"][:27] for one in distinct(2))
    joined = row([*first[:14], *second[:13]])  # its runs are of two rows
    held_out = [cut_short(5), joined, *distinct(20, first=100)]
    assert found(trainer(tmp_path, train=distinct(24), evaluation=held_out), "FT103") == ()


@leaves_alone("FT103")
@pytest.mark.parametrize("held_out", [None, distinct(8, tokens=15)], ids=["none", "short"])
def test_no_or_short_evaluation_rows_cannot_tell(
    tmp_path: Path, held_out: list[dict[str, Any]] | None
) -> None:
    made = trainer(tmp_path, train=distinct(24, tokens=15), evaluation=held_out)
    assert check_one(made, "FT103").status is Status.SKIPPED


@catches("FT104")
@pytest.mark.parametrize("method", ["shuffle", "train_test_split"])
def test_shuffling_without_a_seed_is_said(seen: Seen, method: str) -> None:
    finding = only(judged(did(seen, "shuffle", method=method, seeded=False), "FT104").findings)
    assert finding.severity is Severity.WARNING
    assert finding.sentence.startswith(f"{method} without a seed")
    assert finding.place == "train.py:9"


@leaves_alone("FT104")
def test_shuffling_with_a_seed_is_left_alone(seen: Seen) -> None:
    one = judged(did(seen, "shuffle", method="shuffle", seeded=True), "FT104")
    assert one.status is Status.PASSED
    assert one.findings == ()
    assert judged(seen, "FT104").status is Status.SKIPPED  # it is no script


def with_column(name: str, value: Any) -> list[dict[str, Any]]:
    return [{**one, name: value} for one in rows()]


@catches("FT105")
@pytest.mark.parametrize("value", [[0.5] * 48, [1] * 48, [True] * 48])
def test_numbers_for_each_token_that_are_dropped_are_said(tmp_path: Path, value: Any) -> None:
    made = trainer(tmp_path, train=with_column("loss_weights", value))
    finding = only(found(made, "FT105"))
    assert finding.severity is Severity.WARNING
    assert "'loss_weights'" in finding.sentence


@leaves_alone("FT105")
@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("loss_weights", [0.5] * 48, True),
        ("text", TEXT, False),
        ("words", ["def", "total"], False),
        ("score", 0.5, False),
        ("special_tokens_mask", [0] * 48, False),
        ("token_type_ids", [0] * 48, False),
        ("position_ids", list(range(48)), False),
    ],
)
def test_columns_that_nobody_misses_are_left_alone(
    tmp_path: Path, name: str, value: Any, kept: bool
) -> None:
    arguments = {"remove_unused_columns": not kept}
    made = trainer(tmp_path, train=with_column(name, value), arguments=arguments)
    assert found(made, "FT105") == ()


@catches("FT106")
def test_rows_of_a_stale_cache_are_said(seen: Seen) -> None:
    facts = {"function": "prepare", "stale": True, "evidence": ("text: 'a', now 'b'",)}
    finding = only(judged(did(seen, "map", **facts), "FT106").findings)
    assert finding.severity is Severity.ERROR
    assert finding.sentence.startswith("map(prepare)")
    assert finding.evidence == ("text: 'a', now 'b'",)


@leaves_alone("FT106")
@pytest.mark.parametrize("facts", [{"stale": False}, {}])
def test_rows_of_a_fresh_cache_are_left_alone(seen: Seen, facts: dict[str, Any]) -> None:
    one = judged(did(seen, "map", function="prepare", evidence=(), **facts), "FT106")
    assert one.status is Status.PASSED
    assert one.findings == ()


def cut(seen: Seen, tokens: tuple[int, int] | None) -> Seen:
    assert seen.train is not None
    return dataclasses.replace(seen, train=dataclasses.replace(seen.train, cut=tokens))


@catches("FT107")
@pytest.mark.parametrize(
    ("tokens", "severity"),
    [(10, Severity.NOTE), (999, Severity.NOTE), (1000, Severity.WARNING)],
)
def test_what_truncation_takes_is_counted(seen: Seen, tokens: int, severity: Severity) -> None:
    finding = only(judged(cut(seen, (tokens, 2000)), "FT107").findings)
    assert finding.severity is severity
    assert f"{tokens:,} of 2,000" in finding.sentence


@catches("FT107")
def test_what_packing_leaves_out_is_not_called_cut(seen: Seen) -> None:
    packing = load_recipe("quickstart", overrides=["tokenization.packing=true"])
    packed = dataclasses.replace(cut(seen, (76, 2000)), recipe=packing)
    finding = only(judged(packed, "FT107").findings)
    assert finding.sentence.startswith("packing leaves 76 of 2,000")
    assert "pack the rows" not in finding.fix.text


@leaves_alone("FT107")
@pytest.mark.parametrize(
    ("tokens", "status"), [((0, 2000), Status.PASSED), (None, Status.UNMEASURED)]
)
def test_nothing_cut_is_left_alone(
    seen: Seen, tokens: tuple[int, int] | None, status: Status
) -> None:
    one = judged(cut(seen, tokens), "FT107")
    assert one.status is status
    assert one.findings == ()


def large_vocabulary(folder: Path, text: str) -> Any:
    """The toy trainer, with 3,000 tokens more that no text holds."""
    words = tokenizer()
    words.add_tokens([f"<unused {n}>" for n in range(3000)])
    train = [row(words(f"{text}{n}")["input_ids"][:47]) for n in range(40)]
    model = lora(base(vocab_size=len(words)))
    return trainer(folder, model=model, train=train, processing_class=words)


@catches("FT108")
def test_text_in_another_script_is_said(tmp_path: Path) -> None:
    finding = only(found(large_vocabulary(tmp_path, "你好世界，" * 6), "FT108"))
    assert finding.severity is Severity.WARNING
    assert "a token of every 1.0 bytes" in finding.sentence


@leaves_alone("FT108")
def test_text_that_the_tokenizer_knows_is_left_alone(tmp_path: Path) -> None:
    one = check_one(large_vocabulary(tmp_path, TEXT * 4), "FT108")
    assert one.status is Status.PASSED
    assert one.findings == ()


def of_bytes(seen: Seen, bytes_in_ten: int, *, tokens: int = 1000, size: int = 5000) -> Seen:
    """Rows of ten tokens, and a vocabulary, whose ten tokens have so many bytes of text."""
    assert seen.train is not None
    assert seen.text is not None
    one = dataclasses.replace(seen.train.rows[0], ids=(5,) * 10, mask=None, labels=None)
    last = dataclasses.replace(one, ids=(5,) * (tokens % 10))
    made = Rows(rows=(*(one,) * (tokens // 10), last))
    words = dataclasses.replace(
        seen.text, size=size, decode=lambda ids: "x" * (len(ids) * bytes_in_ten // 10)
    )
    return dataclasses.replace(seen, text=words, train=made)


@catches("FT108")
def test_below_sixteen_bytes_in_ten_tokens_it_is_said(seen: Seen) -> None:
    finding = only(judged(of_bytes(seen, 15), "FT108").findings)
    assert "1.5 bytes" in finding.sentence


@leaves_alone("FT108")
@pytest.mark.parametrize(
    ("bytes_in_ten", "tokens", "size", "status"),
    [
        (16, 1000, 5000, Status.PASSED),
        (15, 999, 5000, Status.UNMEASURED),
        (15, 1000, 4999, Status.SKIPPED),
    ],
)
def test_enough_bytes_or_too_little_to_tell_is_left_alone(
    seen: Seen, bytes_in_ten: int, tokens: int, size: int, status: Status
) -> None:
    one = judged(of_bytes(seen, bytes_in_ten, tokens=tokens, size=size), "FT108")
    assert one.status is status
    assert one.findings == ()


BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}


@catches("FT109")
@pytest.mark.parametrize("count", [1, 9])
def test_the_best_of_a_few_rows_is_said(tmp_path: Path, count: int) -> None:
    made = trainer(tmp_path, evaluation=rows()[:count], arguments=BEST)
    finding = only(found(made, "FT109"))
    assert finding.severity is Severity.NOTE
    assert finding.sentence == f"the best checkpoint is chosen on {count} rows"


@leaves_alone("FT109")
@pytest.mark.parametrize(("count", "arguments"), [(10, BEST), (9, {"eval_strategy": "epoch"})])
def test_ten_rows_or_no_choice_are_left_alone(
    tmp_path: Path, count: int, arguments: dict[str, Any]
) -> None:
    made = trainer(tmp_path, evaluation=rows()[:count], arguments=arguments)
    assert found(made, "FT109") == ()
    assert check_one(trainer(tmp_path), "FT109").status is Status.SKIPPED
