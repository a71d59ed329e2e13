"""Live trainers: `ftcheck.check` and the `Preflight` callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ftcheck
from ftcheck.errors import InputError
from ftcheck.subjects.trainer import ChecksFailed
from tests.checks.toys import lora, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def shifted() -> list[dict[str, Any]]:
    return [{**row, "labels": [*row["labels"][1:], -100]} for row in rows()]


def test_a_trainer_is_checked(tmp_path: Path) -> None:
    report = ftcheck.check(trainer(tmp_path, train=shifted()), level="data")
    assert [one.code for one in report.findings if one.fails] == ["FT204"]
    assert not report.ok
    accepted = ftcheck.check(
        trainer(tmp_path, train=shifted()), level="data", accept={"FT204": "to see it"}
    )
    assert accepted.ok


@pytest.mark.parametrize("given", ["itself", "found"])
def test_a_preflight_stops_what_is_wrong(tmp_path: Path, given: str) -> None:
    made = trainer(tmp_path, train=shifted())
    preflight = ftcheck.Preflight(made if given == "itself" else None)
    made.add_callback(preflight)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    with pytest.raises(ChecksFailed, match="FT204 labels-shifted"):
        made.train()
    assert all(torch.equal(before[name], made.model.state_dict()[name]) for name in before)


def test_a_preflight_warns_and_goes_on(tmp_path: Path) -> None:
    made = trainer(tmp_path, train=shifted(), arguments={"max_steps": 2})
    made.add_callback(ftcheck.Preflight(on_finding="warn"))
    with pytest.warns(UserWarning, match="FT204"):
        made.train()
    assert made.state.global_step == 2


def test_a_preflight_leaves_training_as_it_is(tmp_path: Path) -> None:
    def losses(*callbacks: Any) -> list[float]:
        torch.manual_seed(3)
        arguments = {"logging_steps": 1, "max_steps": 6}
        made = trainer(
            tmp_path, model=lora(lora_dropout=0.1), arguments=arguments, callbacks=list(callbacks)
        )
        made.train()
        return [entry["loss"] for entry in made.state.log_history if "loss" in entry]

    preflight = ftcheck.Preflight(level="roundtrip")
    assert losses(preflight) == losses()
    assert preflight.report is not None
    assert preflight.report.ok


def test_what_is_no_trainer_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a transformers\.Trainer"):
        ftcheck.check(lora())
    with pytest.raises(InputError, match="got 'deep'"):
        ftcheck.check(trainer(tmp_path), level="deep")
    with pytest.raises(InputError, match="expected raise or warn"):
        ftcheck.Preflight(on_finding="shout")  # type: ignore[arg-type] # that is what is tried
