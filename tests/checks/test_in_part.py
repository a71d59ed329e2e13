"""What is looked at in part is said in the report, and what is looked at whole is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcheck.checks.finding import Level
from ftcheck.checks.observe.rows import MOST_ROWS
from ftcheck.subjects.trainer import check_trainer
from tests.checks.toys import rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


def said(made: Any, level: Level = Level.DATA) -> tuple[str, ...]:
    return check_trainer(made, level=level.value, select=["FT101", "FT403"]).assumptions


class Repeated:
    """One row, so many times."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        return ROW


ROW = rows()[0]
BATCHES = "data: the first 16 training batches were looked at"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (64, ()),
        (68, (BATCHES,)),
        (MOST_ROWS, (BATCHES,)),
        (
            MOST_ROWS + 4,
            (
                "data: 2,000 of 2,004 training rows were looked at, evenly spread",
                BATCHES,
            ),
        ),
    ],
)
def test_rows_and_batches_are_counted(tmp_path: Path, count: int, expected: Any) -> None:
    assert said(trainer(tmp_path, train=Repeated(count))) == expected


def test_a_stream_is_looked_at_from_its_start(tmp_path: Path) -> None:
    from datasets import IterableDataset

    def stream(count: int) -> Any:
        made = IterableDataset.from_generator(lambda: iter([ROW] * count))
        return trainer(tmp_path, train=made, arguments={"max_steps": 9})

    assert said(stream(20)) == ()
    assert said(stream(MOST_ROWS)) == (
        "data: the first 2,000 training rows were looked at, of a set without a length",
        BATCHES,
    )


def test_one_of_several_evaluation_sets_is_looked_at(tmp_path: Path) -> None:
    made = trainer(tmp_path, evaluation={"short": Repeated(8), "long": Repeated(9)})
    assert said(made) == ("data: of 2 evaluation sets 'short' was looked at",)
    assert said(trainer(tmp_path, evaluation={"short": Repeated(8)})) == ()


def test_nothing_is_said_of_rows_that_nobody_asked_for(tmp_path: Path) -> None:
    assert said(trainer(tmp_path, train=Repeated(2 * MOST_ROWS)), Level.STATIC) == ()
