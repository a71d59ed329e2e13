"""What a check costs: time from the prompt, and after the libraries are imported.

    python -m benchmarks.check

Each row is two processes: the command as people type it, and one that imports torch, transformers
and their kin first and then runs the same command. Ratios are within one table of one run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.prediction import LLAMA

ROWS = (1_000, 1_000_000)


_AFTER_IMPORTS = """
import sys, time
import accelerate, bitsandbytes, datasets, peft, torch
from transformers import AutoTokenizer, GPT2LMHeadModel, Trainer, TrainingArguments
from ftcheck.cli import main
begun = time.perf_counter()
try:
    main(sys.argv[1:])
finally:
    print(f"seconds {time.perf_counter() - begun}", file=sys.stderr)
"""


def run(*command: str) -> tuple[float, str]:
    """Seconds of a whole process, and what it wrote to stderr."""
    begun = time.perf_counter()
    answer = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if answer.returncode not in (0, 1):
        raise SystemExit(answer.stderr)
    return seconds, answer.stderr


def check(recipe: str, *arguments: str) -> tuple[float, float]:
    """Seconds from the prompt, and those after the libraries are imported."""
    asked = ("check", recipe, "--format", "json", *arguments)
    seconds, _ = run("-m", "ftcheck", *asked)
    _, told = run("-c", _AFTER_IMPORTS, *asked)
    return seconds, float(told.rsplit("seconds ", 1)[1])


def text_file(folder: Path, rows: int) -> Path:
    """A text file of some rows, no two alike."""
    file = folder / f"{rows}.txt"
    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            out.write(f"Row {number} says that {number * 7} is seven times as much as {number}.\n")
    return file


def full_size(folder: Path) -> Path:
    """A checkpoint of GPT-2's published size with random weights, and a tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from ftcheck.assets import model_dir

    shutil.copytree(model_dir(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    return folder


def table(title: str, rows: list[tuple[str, tuple[float, float]]]) -> None:
    """Print seconds, each beside the first."""
    print(f"\n{title}")
    print(f"{'':<44} {'prompt s':>9} {'after imports s':>16} {'ratio':>6}")
    for name, (whole, alone) in rows:
        print(f"{name:<44} {whole:>9.1f} {alone:>16.1f} {alone / rows[0][1][1]:>6.2f}")


def main() -> None:
    """Print the tables: levels, sizes of models, rows."""
    check("quickstart")  # fills the caches
    levels = ("static", "data", "step", "roundtrip", "memory")
    table(
        "levels, each with those before it: quickstart",
        [(level, check("quickstart", "--level", level)) for level in levels],
    )
    changes = [part for override in LLAMA for part in ("--set", override)]
    with tempfile.TemporaryDirectory() as place:
        given = (
            *("--set", f"model.name_or_path={full_size(Path(place) / 'gpt2')}"),
            *("--set", f"data.path={text_file(Path(place), 1000)}"),
        )
        table(
            "all levels",
            [
                ("gpt2-wikitext2", check("gpt2-wikitext2")),
                (
                    "gpt2-wikitext2, steps at full size",
                    check("gpt2-wikitext2", "--real-model", *given),
                ),
                ("gpt2-wikitext2-nf4", check("gpt2-wikitext2-nf4")),
                ("Llama 3.1 8B, nf4", check("gpt2-wikitext2-nf4", *changes)),
            ],
        )
    with tempfile.TemporaryDirectory() as place:
        found = []
        for rows in ROWS:
            given = ("--set", f"data.path={text_file(Path(place), rows)}", "--level", "data")
            first = check("text-file", *given)
            found += [
                (f"{rows:,} rows, static and data, file read anew", first),
                (f"{rows:,} rows, static and data", check("text-file", *given)),
            ]
        table("rows", found)


if __name__ == "__main__":
    main()
