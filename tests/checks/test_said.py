"""Whatever was not looked at, and whatever failed while looking: no check breaks, all say why."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ftcheck.checks.facts import Batches, Failure, Learning, Record, Reload, Training
from ftcheck.checks.finding import Level
from ftcheck.checks.observe.looking import look_at
from ftcheck.checks.registry import all_checks
from ftcheck.checks.seen import Seen
from ftcheck.subjects.trainer import trainer_subject
from tests.checks.said import FILE, KNOWN
from tests.checks.toys import judged, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

FAILED = Failure(kind="KeyError", text="'gone'\nmore", during="looking")
PARTS = (
    *("text", "setup", "train", "evaluation", "batches", "eval_batches"),
    *("learning", "training", "reload"),
)
EMPTY: dict[str, Any] = {
    "batches": Batches(),
    "eval_batches": Batches(),
    "learning": Learning(),
    "training": Training(),
    "reload": Reload(),
}
SETUPS: dict[str, dict[str, Any]] = {
    "no adapter": {"adapters": ()},
    "not tied": {"tied": False},
    "4 bits": {"quantized": "4"},
    "8 bits": {"quantized": "8", "prepared": True},
    "optimizer given": {"optimizer_given": True},
    "own loss": {"overrides": frozenset({"compute_loss"})},
    "other labels": {"label_names": ("start_positions", "end_positions")},
    "no labels named": {"label_names": ()},
    "other task": {"other_task": "GPT2ForSequenceClassification classifies"},
    "no rows": {"train_rows": None, "eval_rows": None},
    "no positions": {"positions": None},
    "no parameters": {"parameters": (), "modules": ()},
}
SUBJECTS: dict[str, dict[str, Any]] = {
    "fails on the virtual GPU": {"memory": FAILED},
    "other weights": {"real_weights": False},
    "other rows": {"real_data": False},
    "refused": {"refused": FAILED},
    "script to its training": {"kind": "script", "record": Record()},
    "script to its end": {"kind": "script", "record": Record(through=True)},
    "script that fails": {"kind": "script", "record": Record(failure=FAILED)},
    "loop": {"kind": "script", "record": Record(loop=True)},
    "loop with rates": {"kind": "script", "record": Record(loop=True, rates=(1e-3,) * 8)},
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All but memory, of a sound trainer."""
    made = trainer(tmp_path_factory.mktemp("seen"), evaluation=rows()[:8])
    return look_at(trainer_subject(made), set(Level) - {Level.MEMORY})


def all_heard(seen: Seen) -> None:
    for one in all_checks():
        judged(seen, one.code)


def test_of_nothing() -> None:
    all_heard(Seen(name="s", kind="trainer"))


def test_of_a_sound_trainer(seen: Seen) -> None:
    all_heard(seen)


@pytest.mark.parametrize("part", PARTS)
def test_without_a_part(seen: Seen, part: str) -> None:
    assert getattr(seen, part) is not None
    nothing: dict[str, Any] = {part: None}
    all_heard(dataclasses.replace(seen, **nothing))


@pytest.mark.parametrize("part", EMPTY)
def test_where_a_part_has_nothing_to_say(seen: Seen, part: str) -> None:
    all_heard(dataclasses.replace(seen, **{part: EMPTY[part]}))


@pytest.mark.parametrize("part", EMPTY)
def test_where_looking_failed(seen: Seen, part: str) -> None:
    failed = dataclasses.replace(EMPTY[part], failure=FAILED)
    all_heard(dataclasses.replace(seen, **{part: failed}))


@pytest.mark.parametrize("setup", SETUPS)
def test_of_other_setups(seen: Seen, setup: str) -> None:
    changed = dataclasses.replace(seen.need("setup"), **SETUPS[setup])
    all_heard(dataclasses.replace(seen, setup=changed))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_of_other_subjects(seen: Seen, subject: str) -> None:
    all_heard(dataclasses.replace(seen, **SUBJECTS[subject]))


def test_the_file_is_in_order() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(KNOWN)
