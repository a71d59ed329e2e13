"""The commands, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftcheck.cli import _status
from ftcheck.recipe import builtin_names, load_recipe
from tests.helpers.recipes import FAST, ftcheck_command, with_overrides

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `ftcheck run` has run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    answer = ftcheck_command("run", *with_overrides(FAST), cwd=folder)
    assert answer.returncode == 0, answer.stderr
    (folder / "stdout.txt").write_text(answer.stdout, encoding="utf-8")
    (folder / "stderr.txt").write_text(answer.stderr, encoding="utf-8")
    return folder


def test_run_prints_a_summary(finished: Path) -> None:
    out = (finished / "stdout.txt").read_text(encoding="utf-8")
    for label in ("rows", "tokens", "parameters", "loss", "evaluation", "reload", "memory", "time"):
        assert f"\n{label} " in out
    assert "48 to train on, 16 to evaluate on" in out
    assert "45,056 of" in out
    assert "c_proj names modules in attn and in mlp" in out
    assert "perplexity" in out
    assert "before   'The '" in out or "before " in out
    assert "runs/quickstart-1/adapter/" in out


def test_progress_goes_to_stderr_and_nothing_else_does(finished: Path) -> None:
    lines = (finished / "stderr.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["Importing the libraries …", "Loading data and tokenizer …"]
    assert all(line.endswith("…") or line.startswith("  step") for line in lines), lines


def test_the_run_folder_holds_everything(finished: Path) -> None:
    run = finished / "runs" / "quickstart-1"
    assert {path.name for path in run.iterdir()} == {
        "adapter",
        "before.json",
        "checkpoints",
        "environment.json",
        "generated.json",
        "loss.png",
        "metrics.jsonl",
        "recipe.toml",
        "summary.json",
    }
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert environment["seed"] == 42
    assert {"torch", "transformers", "peft"} <= set(environment["versions"])
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in losses if "loss" in line] == [1, 2, 3, 4]
    recipe = load_recipe(run / "recipe.toml")
    assert recipe.training["adam_beta2"] == 0.999  # a default that nobody wrote
    assert recipe.training["max_steps"] == 4


def test_the_recipe_of_a_run_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    status = _status(
        [
            "run",
            str(finished / "runs/quickstart-1/recipe.toml"),
            "--output-dir",
            str(tmp_path / "again"),
        ]
    )
    assert status == 0
    weights = "adapter/adapter_model.safetensors"
    first = (finished / "runs" / "quickstart-1" / weights).read_bytes()
    assert (tmp_path / "again" / weights).read_bytes() == first


def test_generate_continues_a_prompt(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished / "runs" / "quickstart-1"
    sample = json.loads((run / "generated.json").read_text(encoding="utf-8"))["samples"][0]
    assert _status(["generate", str(run), sample["prompt"]]) == 0
    assert capsys.readouterr().out == sample["after"] + "\n"


def test_generate_needs_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["generate", str(tmp_path), "a"]) == 2
    assert "expected a finished run folder" in capsys.readouterr().err


def test_json_summary_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", *with_overrides([*FAST, "training.max_steps=1"])]
    assert _status([*arguments, "--format", "json", "--output", "summary.json"]) == 0
    assert capsys.readouterr().out == ""
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["training"]["steps"] == 1
    assert summary["parameters"]["trainable"] == 45_056


def test_recipes_lists_the_built_in_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(builtin_names())
    assert lines[0].startswith("quickstart ")
    assert len(lines) == 5


def test_init_writes_a_recipe_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _status(["init"]) == 0
    assert "ftcheck run my.recipe.toml" in capsys.readouterr().out
    text = Path("my.recipe.toml").read_text(encoding="utf-8")
    assert load_recipe("my.recipe.toml").data.path == "my.txt"
    assert _status(["init"]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert _status(["init", "--force", "--from", "quickstart"]) == 0
    assert Path("my.recipe.toml.bak").read_text(encoding="utf-8") == text
    assert load_recipe("my.recipe.toml").data.path == "ftcheck:python-functions"


def test_doctor_names_versions_and_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    import transformers

    assert _status(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"transformers {transformers.__version__}" in out
    assert "known library bugs in these versions:" in out


def test_own_text_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"Rule {number}: the cat sat on mat number {number}." for number in range(60)]
    Path("my.txt").write_text("\n\n".join(lines), encoding="utf-8")
    assert (
        _status(
            [
                "run",
                "text-file",
                "--set",
                "training.max_steps=30",
                "--set",
                "training.learning_rate=1e-2",
                "--output-dir",
                "out",
            ]
        )
        == 0
    )
    summary = json.loads(Path("out/summary.json").read_text(encoding="utf-8"))
    assert summary["after"]["perplexity"] < summary["before"]["perplexity"] / 2
    assert summary["train_tokens"]["rows"] == 54


@pytest.mark.parametrize("command", ["run", "generate", "init", "recipes", "doctor"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status([command, "--help"]) == 0
    assert "Usage: ftcheck" in capsys.readouterr().out


def test_a_failure_of_ours_is_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ftcheck.environment

    def broken() -> None:
        raise AssertionError("a bug of ours")

    monkeypatch.setattr(ftcheck.environment, "current", broken)
    assert _status(["doctor"]) == 4
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "failed itself: AssertionError: a bug of ours" in err
