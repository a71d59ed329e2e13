"""The summary of a run, from a result made by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ftcheck.environment import current
from ftcheck.pipeline.adapter import ParameterCounts
from ftcheck.pipeline.devices import PeakMemory
from ftcheck.pipeline.result import BugNotice, RunResult, Sample, TrainingResult
from ftcheck.pipeline.saving import ReloadComparison
from ftcheck.pipeline.tokens import TokenCounts
from ftcheck.pipeline.training import Evaluation
from ftcheck.report.run_summary import run_summary

COUNTS = TokenCounts(
    raw_rows=1000,
    rows=1000,
    positions=128_000,
    real=47_360,
    cut=18_061,
    cut_rows=220,
    short_rows=0,
    padded_in_batches=False,
)


@pytest.fixture
def result() -> RunResult:
    return RunResult(
        recipe="mine",
        folder=Path("runs/mine-1"),
        device="cuda:0",
        processes=1,
        train_tokens=COUNTS,
        evaluation_tokens=None,
        parameters=ParameterCounts(
            trainable=811_008,
            total=125_250_816,
            adapted={"attn.c_attn": 12, "attn.c_proj": 12, "mlp.c_proj": 12},
        ),
        training=TrainingResult(
            steps=250, first_loss=7.0, last_loss=3.5, seconds=700.0, seconds_per_step=2.75
        ),
        before=None,
        after=None,
        reload=ReloadComparison(difference=0.0, tolerance=1e-3, adapter_effect=2.0),
        memory=PeakMemory(device="cuda:0", allocated_bytes=2**30, reserved_bytes=3 * 2**29),
        samples=(Sample(prompt="A", before="A b\n\nc", after="A d"),),
        bugs=(BugNotice(slug="a-bug", effect="it is wrong", handled="mended", source="x#1"),),
        notices=("something to know",),
        environment=current(),
        seconds=720.0,
    )


def flat(result: RunResult) -> str:
    return " ".join(run_summary(result).split())


def test_everything_is_said(result: RunResult) -> None:
    text = flat(result)
    for part in (
        "mine: fine-tuned on cuda:0",
        "1,000 to train on",
        "47,360 real, 80,640 pads (63% of all); 18,061 cut off (28% of the text)",
        "811,008 of 125,250,816 trainable (0.65%); adapters on 12 × attn.c_attn",
        "(c_proj names modules in attn and in mlp)",
        "7.0000 first logged, 3.5000 last, in 250 steps",
        "none: the recipe names no rows to evaluate on",
        "peak allocated 1.00 GiB, peak reserved 1.50 GiB, measured on cuda:0",
        "12 min 00 s in all, 11 min 40 s training, 2.8 s a step (median)",
        "- something to know",
        "- library bug a-bug: it is wrong. What ftcheck does: mended.",
        "adapter runs/mine-1/adapter/",
    ):
        assert part in text
    assert "  │ A b\n  │ \n  │ c" in run_summary(result)


def test_evaluation_and_processes(result: RunResult) -> None:
    more = dataclasses.replace(
        result,
        processes=4,
        evaluation_tokens=COUNTS,
        before=Evaluation(loss=2.0, perplexity=8.0, tokens=10),
        after=Evaluation(loss=1.0, perplexity=4.0, tokens=10),
    )
    text = flat(more)
    assert "fine-tuned on cuda:0 by 4 processes" in text
    assert "perplexity 8.00 before, 4.00 after (-50%) on 10 label tokens" in text
    assert "1,000 to evaluate on" in text


def test_what_does_not_apply_is_not_said(result: RunResult) -> None:
    packed = dataclasses.replace(COUNTS, raw_rows=300, real=128_000, cut=0, padded_in_batches=True)
    less = dataclasses.replace(
        result,
        train_tokens=packed,
        bugs=(),
        notices=(),
        samples=(),
        reload=None,
        memory=PeakMemory(device="cpu", allocated_bytes=2**20, reserved_bytes=None),
    )
    text = flat(less)
    assert "from 300 rows of text" in text
    assert "pads only up to the longest row of a batch" in text
    assert "peak resident 1.00 MiB, measured on the CPU" in text
    for part in ("Worth knowing", "cut off", "reload", "before"):
        assert part not in text
