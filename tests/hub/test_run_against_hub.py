"""`ftcheck run gpt2-wikitext2` against a hub: all the way, and what is said when the hub fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftcheck.assets import model_dir, pretraining_text
from tests.helpers.hub import Fault, Hub
from tests.helpers.recipes import ftcheck_command

WEIGHTS = "*/resolve/*/*.safetensors"
PARQUET = "*/resolve/*.parquet"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """GPT-2 by its published name, in the shape of the embedded model; 1,200 rows of wikitext."""
    lines = pretraining_text().splitlines()[:1200]
    rows = {"train": lines, "validation": lines[:8], "test": lines[:8]}
    with Hub(tmp_path / "hub") as server:
        server.add_model("openai-community/gpt2", model_dir(), aliases=("gpt2",))
        server.add_dataset(
            "Salesforce/wikitext", {"wikitext-2-raw-v1": rows}, aliases=("wikitext",)
        )
        yield server


def ftcheck_run(
    hub: Hub, folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> tuple[int, str, str]:
    answer = ftcheck_command(
        "run",
        "gpt2-wikitext2",
        "--output-dir",
        "out",
        *arguments,
        cwd=folder,
        environment={**hub.environment(folder / "home"), **(environment or {})},
        timeout=280,
    )
    return answer.returncode, answer.stdout, answer.stderr


@pytest.mark.slow
def test_a_short_run_then_one_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    short = ["--set", "training.max_steps=2", "--set", "generation.max_new_tokens=4"]
    status, out, err = ftcheck_run(hub, tmp_path, *short)
    assert status == 0, err
    assert "1,000 to train on" in out
    assert any(request.path.endswith("model.safetensors") for request in hub.requests)
    before = len(hub.requests)
    status, out, err = ftcheck_run(
        hub, tmp_path, *short, "--output-dir", "again", environment={"HF_HUB_OFFLINE": "1"}
    )
    assert status == 0, err
    assert len(hub.requests) == before


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gpt2-wikitext2", "gpt2-wikitext2-nf4"])
def test_the_published_recipe_to_its_end(hub: Hub, tmp_path: Path, recipe: str) -> None:
    answer = ftcheck_command(
        "run",
        recipe,
        "--output-dir",
        "out",
        cwd=tmp_path,
        environment=hub.environment(tmp_path / "home"),
        timeout=900,
    )
    assert answer.returncode == 0, answer.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["training"]["steps"] == 250
    assert summary["training"]["last_loss"] < summary["training"]["first_loss"]
    assert summary["reload"]["difference"] <= summary["reload"]["tolerance"]


FAULTS = [
    pytest.param(WEIGHTS, Fault.TOO_MANY_REQUESTS, 'model "gpt2"', "429"),
    pytest.param(WEIGHTS, Fault.MISSING, 'model "gpt2"', "404", marks=pytest.mark.slow),
    pytest.param(WEIGHTS, Fault.SERVER_ERROR, 'model "gpt2"', "500", marks=pytest.mark.slow),
    pytest.param(
        WEIGHTS, Fault.CUT_CONNECTION, 'model "gpt2"', "connection failed", marks=pytest.mark.slow
    ),
    pytest.param(
        "*/resolve/*/config.json", Fault.SERVER_ERROR, '"gpt2"', "500", marks=pytest.mark.slow
    ),
    pytest.param("*/resolve/*/config.json", Fault.MISSING, '"gpt2"', "404", marks=pytest.mark.slow),
    pytest.param(WEIGHTS, Fault.GATED, 'model "gpt2"', "40[13]", marks=pytest.mark.slow),
    pytest.param(
        PARQUET, Fault.CUT_CONNECTION, 'data set "', "connection failed", marks=pytest.mark.slow
    ),
    pytest.param(PARQUET, Fault.TOO_MANY_REQUESTS, 'data set "', "429", marks=pytest.mark.slow),
    pytest.param(PARQUET, Fault.MISSING, 'data set "', "404"),
    pytest.param("*Salesforce*", Fault.SERVER_ERROR, 'data set "', "500", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("files", "fault", "what", "reason"), FAULTS)
def test_what_could_not_be_had_is_said(
    hub: Hub, tmp_path: Path, *, files: str, fault: Fault, what: str, reason: str
) -> None:
    import re

    hub.fail(files, fault)
    status, _, err = ftcheck_run(hub, tmp_path)
    assert status == 2, err
    message = " ".join(err[err.index("ftcheck: error:") :].split())
    assert re.search(f"{what}.* could not be had from {hub.endpoint}: .*{reason}", message), message
    assert "gpt2-wikitext2 (built in):" in message
    for way_out in ("local folder", "HF_HUB_OFFLINE=1", "ftcheck run quickstart"):
        assert way_out in message
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_hub_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path / "home")
    answer = ftcheck_command(
        "run",
        "gpt2-wikitext2",
        cwd=tmp_path,
        environment={**environment, "HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    assert answer.returncode == 2, answer.stderr
    assert "could not be had from http://127.0.0.1:9: the connection failed" in answer.stderr
