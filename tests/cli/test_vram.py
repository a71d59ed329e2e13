"""`ftcheck vram`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.recipes import ftcheck_command

SMALL = ("--set", "training.max_steps=1")


def test_the_report_of_the_embedded_model(tmp_path: Path) -> None:
    picture = tmp_path / "memory.html"
    answer = ftcheck_command(
        "vram", "quickstart", "--vram", "8GiB", "--timeline", picture, cwd=tmp_path
    )
    assert answer.returncode == 0, answer.stderr
    assert "quickstart on a card with 8.00 GiB: FITS" in answer.stdout
    for words in ("peak allocated", "peak reserved", "CUDA context", "step 2", "generate"):
        assert words in answer.stdout
    assert "Traceback" not in answer.stderr
    page = picture.read_text(encoding="utf-8")
    assert "<svg" in page
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["memory.html"]


def test_json_and_a_card_that_is_too_small(tmp_path: Path) -> None:
    answer = ftcheck_command(
        "vram",
        "quickstart",
        "--vram",
        "310MiB",
        "--format",
        "json",
        "--output",
        "vram.json",
        cwd=tmp_path,
    )
    assert answer.returncode == 1, answer.stderr
    found = json.loads((tmp_path / "vram.json").read_text(encoding="utf-8"))
    assert found["fits"] is False
    assert found["how"] == "predicted"
    assert found["failure"]["message"].startswith("CUDA out of memory. Tried to allocate")
    assert found["failure"]["phase"].startswith("step")
    assert found["headroom_bytes"] < 0
    assert "transformers" in found["environment"]["versions"]


def test_the_cards_are_listed(tmp_path: Path) -> None:
    cards = tmp_path / "cards.toml"
    cards.write_text(
        '[mine-9gb]\ncapacity = "9 GiB"\ncompute_capability = "8.6"\ncontext_overhead = "1 MiB"\n',
        encoding="utf-8",
    )
    answer = ftcheck_command("vram", "--list-cards", "--cards", cards, cwd=tmp_path)
    assert answer.returncode == 0
    assert answer.stdout.count("\n") == 48
    assert answer.stdout.startswith("mine-9gb")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gpt2-wikitext2", "--card", "rtx4070"), "Did you mean rtx4070"),
        (("gpt2-wikitext2", "--vram", "8 gigabytes"), "expected a number with a unit"),
        (("gpt2-wikitext2", "--vram", "200MiB"), "expected more than the 300.00 MiB"),
        (("gpt2-wikitext2", "--timeline", "memory.gif"), "expected one of .html"),
        (("gpt2-wikitext2", "--timeline", "nowhere/memory.html"), "does not exist"),
        (("quickstart", "--max-batch"), "--max-batch needs a card"),
        (("gpt2-wikitext2", "--measure", "--what-if"), "--measure goes with none of"),
        (("gpt2-wikitext3",), "Did you mean gpt2-wikitext2"),
        (("gpt2-wikitext2", "--cards", "none.toml"), "does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_message(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    answer = ftcheck_command("vram", *arguments, cwd=tmp_path)
    assert answer.returncode == 2, answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not answer.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('model.name_or_path="somebody/unheard-of"', "somebody/unheard-of"),
        ('lora.target_modules=["nothing"]', "no module of gpt2 is named 'nothing'"),
        ("tokenization.max_length=4096", "has room for 1024"),
    ],
)
def test_what_shows_only_in_the_child_is_said_all_the_same(
    tmp_path: Path, setting: str, words: str
) -> None:
    answer = ftcheck_command("vram", "gpt2-wikitext2", "--set", setting, cwd=tmp_path)
    assert answer.returncode == 2, answer.stderr
    assert words in answer.stderr
    assert "ftcheck-vram-" not in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_allocator_setting_that_torch_would_refuse(tmp_path: Path) -> None:
    answer = ftcheck_command(
        "vram",
        "quickstart",
        cwd=tmp_path,
        environment={"PYTORCH_ALLOC_CONF": "max_split_size_mb:x"},
    )
    assert answer.returncode == 2
    assert "PYTORCH_ALLOC_CONF" in answer.stderr


def test_measuring_needs_a_card(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a card: tests/gpu measure on it")
    for arguments in (("quickstart", "--measure"), ("--validate", "tables")):
        answer = ftcheck_command("vram", *arguments, cwd=tmp_path)
        assert answer.returncode == 2
        assert "needs a CUDA card" in answer.stderr
        assert not list(tmp_path.iterdir())


def children_of(process: int) -> list[int]:
    answer = subprocess.run(
        ["pgrep", "-g", str(process)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in answer.stdout.split()]


def test_ctrl_c_leaves_no_child_behind(tmp_path: Path) -> None:
    running = subprocess.Popen(
        # A suite that was started in the background ignores SIGINT, and so would its children.
        ["env", "--default-signal=INT", sys.executable, "-m", "ftcheck", "vram", "gpt2-wikitext2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = None
    end = time.monotonic() + 60
    while worker is None and time.monotonic() < end:
        found = subprocess.run(
            ["pgrep", "-P", str(running.pid), "-f", "vgpu.worker"],
            capture_output=True,
            text=True,
            check=False,
        )
        worker = int(found.stdout.split()[0]) if found.stdout.split() else None
        time.sleep(0.05)
    assert worker is not None
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.splitlines()[-1] == "ftcheck: interrupted"
    assert "Traceback" not in said
    assert children_of(worker) == []


@pytest.mark.slow
def test_too_little_time_is_said(tmp_path: Path) -> None:
    answer = ftcheck_command("vram", "gpt2-wikitext2", "--timeout", "1", cwd=tmp_path)
    assert answer.returncode == 3
    assert "was stopped after 1 s, in the phase" in answer.stderr
    assert "Traceback" not in answer.stderr
