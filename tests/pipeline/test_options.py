"""Arguments of `Trainer` that people combine, run for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcheck.environment import installed_version
from ftcheck.errors import InputError
from ftcheck.pipeline import RunFolder, run
from tests.helpers.recipes import small_recipe
from tests.helpers.versions import skip_unless_runnable

pytestmark = pytest.mark.filterwarnings("ignore")


def summary_of(folder: Path, *overrides: str) -> dict[str, Any]:
    run(small_recipe(*overrides), RunFolder.at(folder))
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "training.eval_strategy=steps",
            "training.eval_steps=2",
            "training.save_steps=2",
            "training.load_best_model_at_end=true",
            "training.save_total_limit=1",
        ],
        ["training.save_strategy=no"],
        ["training.lr_scheduler_type=cosine", "training.warmup_steps=2"],
        ["training.optim=adamw_bnb_8bit"],
        ["training.optim=paged_adamw_8bit"],
        ["training.label_smoothing_factor=0.1"],
        ["training.bf16=true"],
        ["training.dataloader_num_workers=1"],
        ["training.gradient_accumulation_steps=3"],
        ["training.num_train_epochs=2", "training.max_steps=-1"],
        ["generation.num_beams=2", "generation.do_sample=false"],
        ['generation.stop_strings=["zzzz"]'],
        ["generation.max_length=12"],
        ["generation.prompts=[]"],
        ["lora.bias=all"],
        ["lora.use_rslora=true"],
        ["lora.init_lora_weights=gaussian"],
        ["tokenization.num_proc=2"],
    ],
    ids=lambda overrides: "+".join(o.split(".", 1)[1].split("=")[0] for o in overrides),
)
def test_runs_to_its_end(tmp_path: Path, overrides: list[str]) -> None:
    skip_unless_runnable(overrides)
    found = summary_of(tmp_path / "run", *overrides)
    assert found["training"]["steps"] >= 4
    assert found["reload"]["difference"] <= found["reload"]["tolerance"]
    assert found["after"]["loss"] < found["before"]["loss"] + 0.05


def test_the_recipes_output_dir_holds_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftcheck.cli import _status
    from tests.helpers.recipes import FAST, with_overrides

    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        arguments = with_overrides([*FAST, "training.max_steps=1", "training.output_dir=mine"])
        assert _status(["run", *arguments]) == 0
        assert (tmp_path / "mine" / f"quickstart-{number}" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("override", "package"),
    [("training.report_to=comet_ml", "comet"), ("training.optim=galore_adamw", "galore")],
)
def test_a_package_that_is_not_there(tmp_path: Path, override: str, package: str) -> None:
    assert installed_version(package) is None
    with pytest.raises(InputError, match=package):
        run(
            small_recipe(override, 'lora.target_modules=["c_attn"]'), RunFolder.at(tmp_path / "run")
        )
