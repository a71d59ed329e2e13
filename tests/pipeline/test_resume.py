"""Killed and resumed: the same adapter bytes as without a stop."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ftcheck.errors import ResumeRefused
from ftcheck.pipeline import RunFolder, RunResult, run
from ftcheck.pipeline.library_bugs import LIBRARY_BUGS
from ftcheck.recipe import load_recipe
from tests.helpers.recipes import ftcheck_command, with_overrides

pytestmark = pytest.mark.filterwarnings("ignore")
OVERRIDES = with_overrides(
    [
        "data.rows=48",
        "data.eval_rows=8",
        "tokenization.max_length=48",
        "training.per_device_train_batch_size=4",
        "training.num_train_epochs=3",
        "training.save_steps=3",
        "training.logging_steps=1",
        "generation.max_new_tokens=4",
    ]
)
STEPS = 36
REPEATS_DATA = next(bug for bug in LIBRARY_BUGS if bug.slug == "resume-repeats-data").installed()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    answer = ftcheck_command("run", *OVERRIDES, "--output-dir", "run", cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return folder / "run"


def weights(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def killed(folder: Path, when: Callable[[Path], bool], number: int = signal.SIGKILL) -> int:
    """Start a run and send a signal as soon as `when` holds; its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ftcheck", "run", *OVERRIDES, "--output-dir", "run"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not when(folder / "run"):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    return process.returncode


def steps_logged(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_text(encoding="utf-8").count('"loss"') if metrics.is_file() else 0


def resumed(folder: Path, *, inexact: bool = REPEATS_DATA) -> RunResult:
    run_folder = RunFolder.existing(folder / "run")
    recipe = load_recipe(run_folder.recipe)
    return run(recipe, run_folder, resume=True, inexact_resume=inexact)


def assert_same(folder: Path, undisturbed: Path) -> None:
    if REPEATS_DATA:
        with pytest.raises(ResumeRefused, match=r"another order \(resume-repeats-data"):
            resumed(folder, inexact=False)
        resumed(folder)
        return
    resumed(folder)
    assert weights(folder / "run") == weights(undisturbed)
    for name in ("metrics.jsonl", "before.json", "generated.json"):
        there = strip_times((folder / "run" / name).read_text(encoding="utf-8"))
        assert there == strip_times((undisturbed / name).read_text(encoding="utf-8"))


def strip_times(text: str) -> list[str]:
    """Losses, steps and texts; not what a clock said, nor the totals of a training, which a run
    does not have that was killed behind its last step."""
    kept = [line for line in text.split("\n") if "train_runtime" not in line]
    clocks = ("runtime", "per_second", "preparation")
    return [
        part for part in ", ".join(kept).split(", ") if not any(word in part for word in clocks)
    ]


@pytest.mark.parametrize("epoch", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_at_a_random_step(tmp_path: Path, undisturbed: Path, epoch: int) -> None:
    step = random.randint(epoch * 12 + 1, epoch * 12 + 11)
    status = killed(tmp_path, lambda run: steps_logged(run) >= step)
    assert status == -signal.SIGKILL, f"at step {step}"
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [3, 15, 36])
@pytest.mark.parametrize("part", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_killed_while_a_checkpoint_is_written(
    tmp_path: Path, undisturbed: Path, checkpoint: int, part: str
) -> None:
    file = f"checkpoints/checkpoint-{checkpoint}/{part}"
    status = killed(tmp_path, lambda run: (run / file).exists())
    assert status == -signal.SIGKILL
    assert_same(tmp_path, undisturbed)


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path, undisturbed: Path) -> None:
    """The same with certainty: the newest checkpoint is cut off by hand."""
    shutil.copytree(undisturbed, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    shutil.rmtree(run.adapter)
    run.summary.unlink()
    for step in (36, 33):
        optimizer = run.checkpoints / f"checkpoint-{step}" / "optimizer.pt"
        optimizer.write_bytes(optimizer.read_bytes()[:-200])
    last = run.last_checkpoint()
    assert last is not None
    assert last.step == 30
    assert_same(tmp_path, undisturbed)


@pytest.mark.parametrize("adapter_saved", [False, True])
def test_killed_after_the_last_step(tmp_path: Path, undisturbed: Path, adapter_saved: bool) -> None:
    """Trained to the end, no summary: a resume must not train one step more."""
    shutil.copytree(undisturbed, tmp_path / "run")
    if not adapter_saved:
        shutil.rmtree(tmp_path / "run" / "adapter")
    (tmp_path / "run" / "summary.json").unlink()
    result = resumed(tmp_path)
    assert weights(tmp_path / "run") == weights(undisturbed)
    assert result.training.steps == STEPS
    assert [path.name for path in (tmp_path / "run").glob("adapter*")] == ["adapter"]


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(tmp_path: Path, undisturbed: Path) -> None:
    killed(tmp_path, lambda run: (run / "recipe.toml").exists())
    result = resumed(tmp_path)
    assert any("training began anew" in notice for notice in result.notices)
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_exits_130(tmp_path: Path, undisturbed: Path) -> None:
    status = killed(tmp_path, lambda run: steps_logged(run) >= 4, signal.SIGINT)
    assert status == 130
    last = RunFolder(tmp_path / "run").last_checkpoint()
    assert last is not None
    assert last.step >= 4
    assert not (tmp_path / "run" / "summary.json").exists()
    answer = ftcheck_command("run", "run", "--resume", "--inexact-resume", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert REPEATS_DATA or weights(tmp_path / "run") == weights(undisturbed)


def test_a_finished_run_is_not_resumed(tmp_path: Path, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    answer = ftcheck_command("run", "run", "--resume", cwd=tmp_path)
    assert answer.returncode == 2
    assert "is finished; there is nothing to resume" in answer.stderr
