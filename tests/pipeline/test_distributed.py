"""Two processes on the CPU: the same effective batch gives the losses of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.recipes import ftcheck_command, with_overrides

SAME = [
    "data.rows=48",
    "data.eval_rows=15",  # odd: one process gets a repeated row, which must not count
    "tokenization.max_length=32",
    "tokenization.padding=max_length",
    "tokenization.labels=input_ids",
    "training.per_device_eval_batch_size=4",
    "training.max_steps=6",
    "training.logging_steps=1",
    "training.learning_rate=5e-3",
    "lora.lora_dropout=0.0",  # each process draws its own mask
    "generation.max_new_tokens=4",
]


def logged(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for line in lines if "loss" in (entry := json.loads(line))]


def summary(run: Path) -> dict[str, dict[str, float]]:
    content: dict[str, dict[str, float]] = json.loads(
        (run / "summary.json").read_text(encoding="utf-8")
    )
    return content


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    batch = "training.per_device_train_batch_size"
    one = ftcheck_command(
        "run", "--output-dir", "one", *with_overrides([*SAME, f"{batch}=4"]), cwd=tmp_path
    )
    assert one.returncode == 0, one.stderr
    two = ftcheck_command(
        "run",
        "--output-dir",
        "two",
        "--num-processes",
        "2",
        *with_overrides([*SAME, f"{batch}=2"]),
        cwd=tmp_path,
    )
    assert two.returncode == 0, two.stderr
    assert "by 2 processes" in two.stdout
    assert two.stdout.count("everything ") == 1, "rank 0 alone prints"
    assert len(logged(tmp_path / "two")) == 6, "rank 0 alone writes"
    # The same rows in the same steps; sums of float32 in another order, six updates long.
    assert logged(tmp_path / "two") == pytest.approx(logged(tmp_path / "one"), rel=1e-4)
    for when in ("before", "after"):
        ours, theirs = summary(tmp_path / "two")[when], summary(tmp_path / "one")[when]
        assert ours["tokens"] == theirs["tokens"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


@pytest.mark.slow
def test_an_error_is_said_once(tmp_path: Path) -> None:
    answer = ftcheck_command(
        "run", "--num-processes", "2", "--set", "training.learning_rat=1", cwd=tmp_path
    )
    assert answer.returncode == 2
    assert answer.stderr.count("learning_rat") == 2  # the name, and nothing but the name again
