"""The grid and the table of a validation: what of it needs no card."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ftcheck.allocator.trace import Tags, TraceRecorder
from ftcheck.cards import from_vram
from ftcheck.recipe import Arguments
from ftcheck.vgpu import Unmeasured
from ftcheck.vram.prediction import predict_many
from ftcheck.vram.validation import GRID, Row, configurations, summarize
from ftcheck.vram.validation import _measured as measured_by_command
from ftcheck.vram.validation import _row as made_row
from ftcheck.vram.vram_report import report_on

MIB = 1024**2


def row(name: str, allocated: tuple[float, float], reserved: tuple[float, float]) -> Row:
    """Predicted and measured MiB of each."""
    return Row(
        name=name,
        predicted_allocated_bytes=int(allocated[0] * MIB),
        measured_allocated_bytes=int(allocated[1] * MIB),
        predicted_reserved_bytes=int(reserved[0] * MIB),
        measured_reserved_bytes=int(reserved[1] * MIB),
        predicted_fits=True,
        measured_fits=True,
    )


GOOD = (row("a", (1000, 1000), (1000, 1000)), row("b", (1010, 1000), (970, 1000)))


def test_the_grid_is_wide() -> None:
    assert len(GRID) >= 40
    assert len({configuration.name for configuration in GRID}) == len(GRID)
    kinds: Counter[str] = Counter()
    for _, recipe in configurations():
        kinds["full" if recipe.lora is None else "lora"] += 1
        kinds["checkpointing"] += recipe.checkpointing
        quantization = recipe.quantization or Arguments()
        kinds["int8"] += bool(quantization.get("load_in_8bit"))
        kinds["nf4"] += bool(quantization.get("load_in_4bit"))
        kinds["bf16"] += bool(recipe.training.get("bf16"))
        kinds["fp32"] += not (recipe.training.get("fp16") or recipe.training.get("bf16"))
        kinds["eval"] += recipe.data.eval_fraction is not None
        kinds[recipe.training.get("optim", "default")] += 1
        kinds[recipe.model.name_or_path] += 1
        assert recipe.budget.vram == "8 GiB"
    assert min(kinds[name] for name in ("full", "checkpointing", "int8", "nf4", "bf16")) >= 3
    assert kinds["fp32"] >= 2
    assert kinds["eval"] >= 2
    assert len(kinds) > 18


def test_goals_that_are_reached_pass() -> None:
    outcome = summarize(GOOD, "a card")
    assert outcome.passed
    assert "| allocated | 0.50% | 1.00% | 1% and 5% |" in outcome.text
    assert "| b | 1010.0 | 1000.0 | +1.00% | 970.0 | 1000.0 | -3.00% | yes | yes |" in outcome.text
    plain = json.loads(json.dumps(outcome.summary))
    assert plain["card"] == "a card"
    assert "torch" in plain["environment"]["versions"]


def test_one_bad_figure_fails() -> None:
    for bad in (
        row("worst allocated", (1060, 1000), (1000, 1000)),
        row("worst reserved", (1000, 1000), (1090, 1000)),
    ):
        assert not summarize((*GOOD, *GOOD, bad), "a card").passed


def test_a_median_over_its_goal_fails() -> None:
    rows = [row(str(number), (1020, 1000), (1000, 1000)) for number in range(3)]
    assert not summarize(rows, "a card").passed


def test_a_wrong_verdict_and_a_missing_figure_fail() -> None:
    wrong = Row(
        name="wrong",
        predicted_allocated_bytes=MIB,
        measured_allocated_bytes=MIB,
        predicted_reserved_bytes=MIB,
        measured_reserved_bytes=MIB,
        predicted_fits=True,
        measured_fits=False,
    )
    outcome = summarize((*GOOD, wrong), "a card")
    assert not outcome.passed
    assert "Wrong verdicts at 8 GiB: wrong." in outcome.text
    missing = Row(name="missing", problem="measured: no answer")
    outcome = summarize((*GOOD, missing), "a card")
    assert not outcome.passed
    assert "| missing | measured: no answer |" in outcome.text


def test_nothing_at_all_is_no_pass() -> None:
    assert not summarize((), "a card").passed


@pytest.mark.slow
def test_every_configuration_can_be_predicted() -> None:
    recipes = [recipe for _, recipe in configurations()]
    failed = {
        recipes[number].name: str(outcome)
        for number, outcome in predict_many(recipes, capability=(9, 0))
        if isinstance(outcome, Exception)
    }
    assert not failed


def test_a_row_takes_each_figure_from_its_side() -> None:
    configuration = GRID[0]
    trace = TraceRecorder()
    trace.allocate(0, 100 * MIB, Tags(phase="load"))
    predicted = report_on(trace.finish(), subject="small", card=from_vram(8 * 1024 * MIB))
    measured = {
        "peak_allocated_bytes": 90 * MIB,
        "peak_reserved_bytes": 110 * MIB,
        "fits": False,
    }
    assert made_row(configuration, predicted, measured) == Row(
        name=configuration.name,
        predicted_allocated_bytes=100 * MIB,
        measured_allocated_bytes=90 * MIB,
        predicted_reserved_bytes=100 * MIB,
        measured_reserved_bytes=110 * MIB,
        predicted_fits=True,
        measured_fits=False,
    )


def test_what_is_missing_is_said_in_the_row() -> None:
    predicted = report_on(TraceRecorder().finish(), subject="small", card=None)
    failed = made_row(GRID[0], Unmeasured("aten::nonzero", "its size is unknown"), {})
    assert failed.problem == "predicted: unmeasured: aten::nonzero: its size is unknown"
    assert made_row(GRID[0], predicted, "no card").problem == "measured: no card"
    with pytest.raises(ZeroDivisionError):  # no error of ours: it is not hidden in a table
        made_row(GRID[0], ZeroDivisionError(), {})


def test_a_measuring_process_that_refuses_is_quoted() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a card: tests/gpu measure on it")
    said = measured_by_command(configurations()[0][1])
    assert isinstance(said, str)
    assert said.startswith("error: --measure needs a CUDA card; torch ")
