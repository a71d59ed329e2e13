"""Bad recipes and bad data: exit code 2, one clear message, no traceback, nothing half written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ftcheck.assets import model_dir
from tests.helpers.commands import assert_refused, status_and_message

pytestmark = pytest.mark.filterwarnings("ignore")

HEAD = '[model]\nname_or_path = "ftcheck:tiny-gpt2"\n[data]\npath = "ftcheck:python-functions"\n'

BAD_TOML = {
    "unknown section": ("[modle]\n" + HEAD, ":1: modle: unknown section. Did you mean model?"),
    "unknown key": (HEAD + "rowss = 3\n", ":5: data.rowss: unknown key. Did you mean rows?"),
    "unknown training argument": (
        HEAD + "[training]\nlearning_rat = 1\n",
        ":6: training.learning_rat: unknown argument of TrainingArguments",
    ),
    "unknown lora argument": (HEAD + "[lora]\nrank = 8\n", "rank: unknown argument of LoraConfig"),
    "unknown generation argument": (
        HEAD + "[generation]\nmax_tokens = 8\n",
        "unknown argument of GenerationConfig",
    ),
    "unknown quantization argument": (
        HEAD + "[lora]\nr = 1\n[quantization]\nload_in_8bits = true\n",
        "Did you mean load_in_8bit?",
    ),
    "text for a number": (HEAD + "[training]\nlearning_rate = '1e-4'\n", "expected a number"),
    "number for a text": (
        HEAD.replace('"ftcheck:tiny-gpt2"', "7"),
        ":2: model.name_or_path: got 7",
    ),
    "text for a switch": (HEAD + "[training]\nfp16 = 'yes'\n", "expected true or false"),
    "number for a switch": (HEAD + "[training]\nfp16 = 1\n", "expected true or false"),
    "switch for a number": (HEAD + "[training]\nmax_steps = true\n", "expected a whole number"),
    "fraction for a count": (HEAD + "rows = 1.5\n", "got 1.5, expected a whole number"),
    "table for a text": (HEAD.replace('"ftcheck:tiny-gpt2"', "{ a = 1 }"), "expected a text"),
    "array for a number": (HEAD + "[lora]\nr = [8]\n", "expected a whole number"),
    "text for an array": (HEAD + "[generation]\nprompts = 'a'\n", "expected an array of texts"),
    "numbers for texts": (HEAD + "[generation]\nprompts = [1]\n", "expected an array of texts"),
    "date for a text": (HEAD + "text_column = 2026-01-01\n", "expected a text in quotes"),
    "value for a section": ("model = 'gpt2'\n", "model: got a value, expected a section [model]"),
    "description no text": ("description = 5\n" + HEAD, "description: got 5, expected a text"),
    "missing section": ('[model]\nname_or_path = "gpt2"\n', "the section [data] is missing"),
    "missing key": ("[model]\n[data]\npath = 'a.txt'\n", "model.name_or_path: is missing"),
    "empty name": (HEAD.replace("ftcheck:tiny-gpt2", ""), "a text that is not empty"),
    "rank zero": (HEAD + "[lora]\nr = 0\n", "got 0, expected 1 or more"),
    "dropout one": (HEAD + "[lora]\nlora_dropout = 1.0\n", "expected a number below 1"),
    "negative rate": (HEAD + "[training]\nlearning_rate = -1.0\n", "expected 0 or more"),
    "not a number": (HEAD + "[training]\nlearning_rate = nan\n", "expected a finite number"),
    "infinite": (HEAD + "[training]\nweight_decay = inf\n", "expected a finite number"),
    "batch zero": (HEAD + "[training]\nper_device_train_batch_size = 0\n", "expected 1 or more"),
    "no steps": (HEAD + "[training]\nmax_steps = 0\n", "or -1 to go by num_train_epochs"),
    "seed too large": (HEAD + "[training]\nseed = 4294967296\n", "a number below 4294967296"),
    "max_length one": (HEAD + "[tokenization]\nmax_length = 1\n", "got 1, expected 2 or more"),
    "share of all": (HEAD + "eval_fraction = 1.0\n", "expected a number below 1"),
    "temperature zero": (HEAD + "[generation]\ntemperature = 0.0\n", "expected a number above 0"),
    "top_p above one": (HEAD + "[generation]\ntop_p = 1.5\n", "expected 1 or less"),
    "wrong choice": (HEAD + "[training]\nlr_scheduler_type = 'cosin'\n", "Did you mean cosine?"),
    "wrong dtype": (HEAD.replace("[data]", "dtype = 'fp16'\n[data]"), "Did you mean float16?"),
    "wrong 4-bit type": (
        HEAD + "[lora]\nr = 1\n[quantization]\nload_in_4bit = true\nbnb_4bit_quant_type = 'nf5'\n",
        "Did you mean nf4?",
    ),
    "8 and 4 bits": (
        HEAD + "[lora]\nr = 1\n[quantization]\nload_in_8bit = true\nload_in_4bit = true\n",
        ":9: quantization.load_in_4bit: got true beside load_in_8bit",
    ),
    "no bits": (HEAD + "[lora]\nr = 1\n[quantization]\n", "expected load_in_8bit = true or"),
    "quantized without adapter": (
        HEAD + "[quantization]\nload_in_8bit = true\n",
        "quantized weights cannot be trained",
    ),
    "fp16 and bf16": (HEAD + "[training]\nfp16 = true\nbf16 = true\n", "beside fp16 = true"),
    "two evaluations": (
        HEAD + "eval_split = 'eval'\neval_fraction = 0.1\n",
        ":6: data.eval_fraction: set beside data.eval_split",
    ),
    "evaluation of nothing": (
        HEAD + "[training]\neval_strategy = 'epoch'\n",
        "[data] names no rows to evaluate on",
    ),
    "best of none": (
        HEAD + "eval_split = 'eval'\n[training]\nload_best_model_at_end = true\n",
        "no best one is ever known",
    ),
    "grouped and packed": (
        HEAD + "[tokenization]\npacking = true\n[training]\ngroup_by_length = true\n",
        "grouping by length does nothing",
    ),
    "launcher's argument": (HEAD + "[training]\nlocal_rank = 0\n", "launch"),
    "said twice": (
        HEAD.replace("[data]", "dtype = 'float32'\ntorch_dtype = 'float16'\n[data]"),
        ":4: model.torch_dtype: says the same as model.dtype",
    ),
    "warm-up of all": (HEAD + "[training]\nwarmup_ratio = 1.5\n", "training.warmup_ratio: got 1.5"),
    "budget without unit": (HEAD + "[budget]\nvram = '8'\n", "expected a number with a unit"),
    "accepted without reason": (HEAD + "[checks.accept]\nFT203 = ' '\n", "got an empty reason"),
    "reason no text": (HEAD + "[checks.accept]\nFT203 = 1\n", "checks.accept: got"),
    "not TOML": ("[model\n", ":1: not valid TOML"),
    "key twice": (HEAD + "path = 'b'\n", ":5: not valid TOML"),
    "section twice": (HEAD + "[model]\n", "not valid TOML"),
    "JSON": ('{"model": {"name_or_path": "gpt2"}}', ":1: not valid TOML"),
    "YAML": ("model:\n  name_or_path: gpt2\n", ":1: not valid TOML"),
    "empty": ("", "the section [model] is missing"),
    "unended text": ('[model]\nname_or_path = "gpt2\n', ":2: not valid TOML"),
    "nested too deeply": ("a = " + "[" * 100_000, "not valid TOML|nested too deeply"),
    "model a file": (
        HEAD.replace("ftcheck:tiny-gpt2", "recipe.toml"),
        "recipe.toml is a file, expected a folder",
    ),
    "model not there": (HEAD.replace("ftcheck:tiny-gpt2", "./no/model"), "does not exist"),
    "data not there": (HEAD.replace("ftcheck:python-functions", "no.txt"), "there is no file"),
    "split not there": (HEAD + "split = 'test'\n", "has no split 'test'"),
    "column not there": (HEAD + "text_column = 'txt'\n", "has no column 'txt'.*Did you mean text?"),
    "too many rows": (HEAD + "rows = 100000\n", "asks for 100000 rows, and .* has 1000"),
    "target not there": (
        HEAD + "rows = 8\n[lora]\ntarget_modules = ['q_proj', 'c_attn']\n",
        "no module of ftcheck:tiny-gpt2 is named 'q_proj'.*c_attn, c_fc, c_proj",
    ),
    "rows longer than the context": (
        HEAD + "rows = 8\n[tokenization]\nmax_length = 512\n",
        "512 tokens, and ftcheck:tiny-gpt2 has room for 256",
    ),
    "prompt longer than the context": (
        HEAD + "rows = 8\n[generation]\nprompts = ['a']\nmax_new_tokens = 256\n",
        "do not fit into the context of 256",
    ),
    "refused by the library": (
        HEAD + "rows = 8\neval_split = 'eval'\n[training]\neval_strategy = 'steps'\n"
        "save_strategy = 'epoch'\nload_best_model_at_end = true\n",
        "training",
    ),
}


@pytest.mark.parametrize("name", BAD_TOML)
def test_bad_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = BAD_TOML[name]
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(text, encoding="utf-8")
    status, message = status_and_message(capsys, "run", "recipe.toml")
    assert_refused(status, message, expected, tmp_path)


def test_all_problems_are_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(HEAD + "rows = 0\n[lora]\nr = 0\n[nothing]\n", encoding="utf-8")
    _, message = status_and_message(capsys, "run", file)
    assert [line.split(": ")[0].rpartition(":")[2] for line in message.splitlines()[1:]] == [
        "7",
        "8",
    ]
    assert "data.rows" in message.splitlines()[0]


def write(name: str, content: bytes | str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = folder / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return make


def parquet_of_numbers(folder: Path) -> Path:
    from datasets import Dataset

    file = folder / "a.parquet"
    Dataset.from_dict({"text": [1, 2, 3]}).to_parquet(file)
    return file


BAD_DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty file": (write("a.txt", ""), "a.txt is empty"),
    "blanks only": (write("a.txt", "\n \n\t\n"), "gives no rows to train on"),
    "one row": (write("a.txt", "only one\n"), "gives 1 row to train on, expected 2 or more"),
    "binary as text": (write("a.txt", b"\x7fELF\0\0\0\1 text"), "holds binary data"),
    "picture as text": (write("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "holds binary data"),
    "invalid UTF-8": (
        write("a.txt", b"good\nalso good\nbad \xe9 here\n"),
        r"a.txt:3: byte 0xe9 at column 5 is not UTF-8",
    ),
    "a row of a million characters": (
        write("a.txt", "short\n" + "x" * 1_000_000 + "\nshort\n"),
        "row 2 of .* has 1,000,000 characters",
    ),
    "JSON that is none": (
        write("a.jsonl", '{"text": "a"}\n{"text": \n'),
        "cannot be read as jsonl",
    ),
    "JSON of another kind": (write("a.jsonl", '{"txt": "a"}\n{"txt": "b"}\n'), "no column 'text'"),
    "null texts": (
        write("a.jsonl", '{"text": "a"}\n{"text": null}\n{"text": "b"}\n'),
        "1 of 3 rows have no value in column 'text'",
    ),
    "CSV without the column": (
        write("a.csv", "a,b\n1,2\n3,4\n"),
        "no column 'text'; it has 'a', 'b'",
    ),
    "parquet that is none": (write("a.parquet", "not parquet"), "cannot be read as parquet"),
    "numbers for text": (parquet_of_numbers, "column 'text' of .* holds int64, expected text"),
    "unknown suffix": (write("a.docx", "PK"), r"has the suffix '.docx'"),
    "a folder for a file": (lambda folder: folder / "nothing.jsonl", "there is no file"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = BAD_DATA[name]
    monkeypatch.chdir(tmp_path)
    file = make(tmp_path)
    more = ["--set", "data.drop_empty=false"] if name == "null texts" else []
    status, message = status_and_message(
        capsys,
        "run",
        "text-file",
        "--set",
        f'data.path="{file}"',
        "--set",
        "data.eval_fraction=0.4" if name != "one row" else "data.rows=1",
        *more,
    )
    assert_refused(status, message, expected, tmp_path)


def model_copy(folder: Path) -> Path:
    copy = folder / "model"
    shutil.copytree(model_dir(), copy)
    return copy


def adapter_folder(folder: Path) -> Path:
    copy = model_copy(folder)
    (copy / "adapter_config.json").write_text("{}", encoding="utf-8")
    return copy


def without(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        copy = model_copy(folder)
        (copy / name).unlink()
        return copy

    return make


def pickled(folder: Path) -> Path:
    import torch

    copy = model_copy(folder)
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    return copy


def cut_off(folder: Path) -> Path:
    copy = model_copy(folder)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return copy


def lacking(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    copy = model_copy(folder)
    weights = load_file(copy / "model.safetensors")
    del weights[next(name for name in weights if "h.1.mlp.c_fc.weight" in name)]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def of_another_kind(folder: Path) -> Path:
    copy = model_copy(folder)
    (copy / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    return copy


def broken_config(folder: Path) -> Path:
    copy = model_copy(folder)
    (copy / "config.json").write_text('{"model_type": ', encoding="utf-8")
    return copy


BAD_MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an adapter for a base": (adapter_folder, "is a LoRA adapter, expected a base model"),
    "no configuration": (without("config.json"), "has no config.json"),
    "no weights": (without("model.safetensors"), "cannot be loaded|could not be had"),
    "a pickle for safetensors": (pickled, "model.* cannot be loaded: .*safetensors"),
    "weights cut off": (cut_off, "cannot be loaded"),
    "weights that are not all there": (lacking, "lacks the weights .*h.1.mlp.c_fc.weight"),
    "no language model": (of_another_kind, "cannot be loaded"),
    "broken configuration": (broken_config, "cannot be loaded"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = BAD_MODELS[name]
    monkeypatch.chdir(tmp_path)
    status, message = status_and_message(
        capsys, "run", "--set", f'model.name_or_path="{make(tmp_path)}"', "--set", "data.rows=8"
    )
    assert_refused(status, message, expected, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "no-such-recipe"], "no such file, and not the name of a built-in recipe"),
        (["run", "quickstrt"], "Did you mean quickstart?"),
        (["run", "--set", "training"], "expected section.key=value"),
        (["run", "--set", "a=1"], "expected section.key=value"),
        (["run", "--set", "description.a=1"], "description is a value, not a section"),
        (["run", "--resume"], "There is nothing to resume"),
        (["run", "--resume", "--output-dir", "nowhere"], "is no run folder"),
        (["init", "a.toml", "--from", "quick"], "not a built-in recipe"),
    ],
)
def test_bad_command(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, message = status_and_message(capsys, *arguments)
    assert_refused(status, message, expected, tmp_path)


@pytest.mark.parametrize("arguments", [["--nothing"], ["nothing"], ["run", "--num-processes", "0"]])
def test_usage_errors_come_from_click(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, message = status_and_message(capsys, *arguments)
    assert status == 2
    assert "Error" in message


def test_an_output_dir_with_something_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_text("mine", encoding="utf-8")
    status, message = status_and_message(capsys, "run", "--output-dir", tmp_path)
    assert_refused(status, message, "never overwritten", tmp_path)
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "mine"


def test_there_are_enough_bad_inputs() -> None:
    assert len(BAD_TOML) + len(BAD_DATA) + len(BAD_MODELS) >= 60
