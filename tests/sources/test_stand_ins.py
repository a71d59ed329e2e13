"""What answers names on the hub, and what is said where nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from ftcheck.checks.finding import Level
from ftcheck.sources.published import published_models
from ftcheck.sources.published_data import stand_in_rows
from ftcheck.sources.stand_ins import StandIns
from ftcheck.subjects.script import ScriptStopped, check_script

DATA = (Level.STATIC, Level.DATA)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("tatsu-lab/alpaca", {"instruction", "input", "output", "text"}),
        ("trl-lib/Capybara", {"messages", "source"}),
        ("trl-lib/ultrafeedback_binarized", {"chosen", "rejected"}),
        ("stanfordnlp/imdb", {"text", "label"}),
        ("Salesforce/wikitext", {"text"}),
    ],
)
def test_a_data_set_has_the_columns_of_its_own(
    tmp_path: Path, name: str, columns: set[str]
) -> None:
    said: list[str] = []
    made = StandIns(tmp_path, {}, said.append)
    rows = made.data(load_dataset, name, None, {"split": "train[:20]"})
    assert columns <= set(rows.column_names)
    assert len(rows) == 20
    assert made.used["data"]
    assert said == [f"the data set {name} could not be had: the embedded text stands in for it"]
    streamed = made.data(load_dataset, name, None, {"split": "train", "streaming": True})
    assert columns <= set(next(iter(streamed)))


def test_a_data_set_that_nobody_knows_has_no_stand_in(tmp_path: Path) -> None:
    assert stand_in_rows("me/my-own") is None
    made = StandIns(tmp_path, {}, lambda _: None)
    assert made.data(load_dataset, "me/my-own", None, {}) is None


@pytest.mark.slow
@pytest.mark.parametrize("model", published_models(), ids=lambda model: model.slug)
def test_every_published_model_has_a_stand_in(tmp_path: Path, model: object) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = model.names[-1]  # type: ignore[attr-defined] # of the table
    folder = StandIns(tmp_path, {}, lambda _: None).model(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = AutoModelForCausalLM.from_pretrained(folder)
    assert made.config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) <= made.get_input_embeddings().weight.shape[0]
    assert (tokenizer.chat_template is not None) == any(
        part in name for part in ("nstruct", "hat", "Qwen", "-it")
    )


def test_a_name_that_cannot_be_had_is_no_fault_of_the_script(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "from datasets import load_dataset\n\nload_dataset('me/my-own')\n", encoding="utf-8"
    )
    with pytest.raises(ScriptStopped, match=r"script\.py:3: .*my-own") as caught:
        check_script(file, levels=DATA)
    assert caught.value.next_step is not None
    assert "--stand-in NAME=PATH" in caught.value.next_step


def test_a_file_answers_a_data_set(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"words": f"row {n}"}) for n in range(8)), "utf-8")
    made = StandIns(tmp_path / "made", {"me/my-own": str(rows)}, lambda _: None)
    assert made.answers("me/my-own")
    assert made.data(load_dataset, "me/my-own", None, {"split": "train"})["words"][0] == "row 0"
    assert set(made.data(load_dataset, "me/my-own", None, {})) == {"train", "validation", "test"}
