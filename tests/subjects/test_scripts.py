"""Unmodified scripts and notebooks, run in child processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ftcheck.assets import model_dir
from ftcheck.checks.finding import CheckReport, Level
from ftcheck.errors import InputError
from ftcheck.subjects.script import ScriptStopped, check_script

SCRIPTS = Path(__file__).parent / "scripts"
DATA = (Level.STATIC, Level.DATA)
STAND_INS = {"gpt2": str(model_dir())}


def codes(report: CheckReport) -> set[str]:
    return {one.code for one in report.findings if one.fails}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Path(shutil.copy(SCRIPTS / "published.py", tmp_path))


def test_a_sound_script_passes_and_leaves_nothing_behind(published: Path) -> None:
    report = check_script(published, through=True, stand_ins=STAND_INS)
    assert codes(report) == set()
    assert [path.name for path in published.parent.iterdir()] == ["published.py"]
    assert any("stands in" in line for line in report.assumptions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "code", "line"),
    [
        ("unseeded", "FT104", "data.shuffle()"),
        ("shifted", "FT204", ""),
        ("none", "FT201", ""),
        ("targets", "FT301", "get_peft_model"),
        ("saved early", "FT803", "model.save_pretrained"),
        ("train mode", "FT901", "loaded.generate"),
    ],
)
def test_a_mistake_in_a_script_is_found_at_its_line(
    published: Path, mistake: str, code: str, line: str
) -> None:
    report = check_script(published, ["--mistake", mistake], through=True, stand_ins=STAND_INS)
    assert code in codes(report)
    found = next(one for one in report.findings if one.code == code)
    if line:
        number = int(found.place.rpartition(":")[2])
        assert line in published.read_text(encoding="utf-8").splitlines()[number - 1]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["", "inputs on the host"])
def test_inputs_on_the_host_are_found_on_the_virtual_gpu(published: Path, mistake: str) -> None:
    report = check_script(
        published,
        ["--mistake", mistake],
        levels=(*DATA, Level.MEMORY),
        through=True,
        stand_ins=STAND_INS,
    )
    if not mistake:
        assert codes(report) == set()
        return
    found = next(one for one in report.findings if one.code == "FT601")
    assert "Expected all tensors to be on the same device" in found.sentence
    number = int(found.place.rpartition(":")[2])
    assert "loaded(**inputs)" in published.read_text(encoding="utf-8").splitlines()[number - 1]


@pytest.mark.slow
def test_gpt2_is_stood_in_for_where_it_is_not_on_this_machine(published: Path) -> None:
    report = check_script(published, levels=DATA)
    assert codes(report) == set()
    assert any("gpt2 is not on this machine" in line for line in report.assumptions)


@pytest.mark.parametrize(
    ("mistake", "how", "found"),
    [
        ("", "by name", set()),
        pytest.param("", "positional", set(), marks=pytest.mark.slow),
        ("shifted", "positional", {"FT204"}),
        ("uncleared", "by name", {"FT429"}),
        pytest.param("epochs", "by name", {"FT403"}, marks=pytest.mark.slow),
    ],
)
def test_a_loop_of_its_own_is_followed(
    published: Path, mistake: str, how: str, found: set[str]
) -> None:
    report = check_script(SCRIPTS / "loop.py", [str(model_dir()), mistake, how])
    assert codes(report) == found
    assert published.exists()


TRAINERS = """
from datasets import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
model = AutoModelForCausalLM.from_pretrained({model!r})
rows = Dataset.from_list([{{"input_ids": [*range(9)], "labels": [*range(9)]}}] * 8)
def trainer():
    given = TrainingArguments(output_dir="out", report_to="none", max_steps=2)
    return Trainer(model=model, args=given, train_dataset=rows)
first = trainer()
{second}first.train()
trainer().train()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "through", "said"),
    [
        ("", False, []),
        ("trainer()\n", False, ["training: of 2 trainers the one that trains first was looked at"]),
        ("", True, ["training: the first train() was looked at, not that at {file}:11"]),
    ],
)
def test_other_trainers_than_the_first_are_said(
    tmp_path: Path, second: str, through: bool, said: list[str]
) -> None:
    file = tmp_path / "train.py"
    file.write_text(TRAINERS.format(model=str(model_dir()), second=second), encoding="utf-8")
    report = check_script(file, levels=(Level.STATIC,), through=through)
    about = [line for line in report.assumptions if line.startswith("training: ")]
    assert about == [line.format(file=file) for line in said]


@pytest.mark.slow
def test_a_notebook_is_run_cell_by_cell(published: Path) -> None:
    text = published.read_text(encoding="utf-8").replace("parse_args()", "parse_args([])")
    first, second = text.split("tokenizer = Auto", 1)
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "!pip install peft\n", first]},
        {"cell_type": "code", "source": f"tokenizer = Auto{second}"},
    ]
    file = published.parent / "fine_tune.ipynb"
    file.write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8")
    report = check_script(file, levels=DATA, stand_ins=STAND_INS)
    assert codes(report) == set()


def test_a_script_that_fails_before_training_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "fails.py"
    file.write_text(
        "from transformers import TrainingArguments\n"
        "TrainingArguments(output_dir='out', evaluation_strategy='no')\n",
        encoding="utf-8",
    )
    report = check_script(file, levels=DATA)
    found = next(one for one in report.findings if one.code == "FT426")
    assert "evaluation_strategy" in found.sentence
    assert found.place.endswith("fails.py:2")
    assert "eval_strategy" in found.fix.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('no training here')\n", "ended without training"),
        ("import os\nos._exit(9)\n", "ended with status 9"),
    ],
)
def test_a_script_that_never_trains_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "script.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ScriptStopped, match=said):
        check_script(file, levels=DATA)


def test_a_script_that_hangs_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "hangs.py"
    file.write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    with pytest.raises(ScriptStopped, match="was stopped after 8 s"):
        check_script(file, levels=DATA, timeout_s=8)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        check_script(tmp_path / "nothing.py")
    file = tmp_path / "script.py"
    file.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        check_script(file, stand_ins={"gpt2": str(tmp_path / "nowhere")})


FILES_AGAIN = """
import json, os, sys
from pathlib import Path
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
out = "runs/first/last"
model = AutoModelForCausalLM.from_pretrained({model!r})
model = get_peft_model(model, LoraConfig(target_modules=["c_attn"], task_type="CAUSAL_LM"))
rows = Dataset.from_list([{{"input_ids": [*range(9)], "labels": [*range(9)]}}] * 8)
given = TrainingArguments(output_dir="runs", report_to="none", max_steps=2)
Trainer(model=model, args=given, train_dataset=rows).train()
model.save_pretrained(out + "/adapter")
assert os.path.isdir(out) and not os.path.exists(out + "/merged")
weights = load_file(f"{{out}}/adapter/adapter_model.safetensors")
assert weights
AutoModelForCausalLM.from_pretrained({model!r}).load_state_dict(weights, strict=False)
torch.save({{"step": 2}}, out + "/adapter/state.pt")
Path(out, "adapter", "notes.json").write_text(json.dumps(sorted(os.listdir(out))))
assert torch.load(out + "/adapter/state.pt") == {{"step": 2}}
assert json.load(open(out + "/adapter/notes.json")) == ["adapter"]
model.merge_and_unload().save_pretrained(out + "/merged")
AutoModelForCausalLM.from_pretrained(out + "/merged")
Path("mine.txt").write_text("done")
"""


def test_what_a_script_saved_is_found_again_however_it_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "train.py"
    file.write_text(FILES_AGAIN.format(model=str(model_dir())), encoding="utf-8")
    report = check_script(file, levels=(Level.STATIC, Level.ROUNDTRIP), through=True)
    failed = [one for one in report.findings if one.fails]
    assert [one.code for one in failed] == ["FT808"]
    assert "strict=False" in FILES_AGAIN.splitlines()[int(failed[0].place.rpartition(":")[2]) - 1]
    assert "none of 8 weights" in failed[0].sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "train.py"]
