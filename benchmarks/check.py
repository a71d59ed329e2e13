"""What a check costs: time from the prompt, and without imports.

    python -m benchmarks.check

Whole processes. Ratios are within one table of one run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.prediction import LLAMA

ROWS = (1_000, 1_000_000)


def check(recipe: str, *arguments: str) -> tuple[float, float]:
    """Seconds from the prompt, and those that the report counts: without imports."""
    begun = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-m", "ftcheck", "check", recipe, "--format", "json", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    if answer.returncode not in (0, 1):
        raise SystemExit(answer.stderr)
    return seconds, json.loads(answer.stdout)["seconds"]


def text_file(folder: Path, rows: int) -> Path:
    """A text file of some rows, no two alike."""
    file = folder / f"{rows}.txt"
    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            out.write(f"Row {number} says that {number * 7} is seven times as much as {number}.\n")
    return file


def table(title: str, rows: list[tuple[str, tuple[float, float]]]) -> None:
    """Print seconds, each beside the first."""
    print(f"\n{title}")
    print(f"{'':<44} {'prompt s':>9} {'check s':>9} {'ratio':>6}")
    for name, (whole, alone) in rows:
        print(f"{name:<44} {whole:>9.1f} {alone:>9.1f} {alone / rows[0][1][1]:>6.2f}")


def main() -> None:
    """Print the tables: levels, sizes of models, rows."""
    check("quickstart")  # fills the caches
    levels = ("static", "data", "step", "roundtrip", "memory")
    table(
        "levels, each with those before it: quickstart",
        [(level, check("quickstart", "--level", level)) for level in levels],
    )
    changes = [part for override in LLAMA for part in ("--set", override)]
    table(
        "all levels",
        [
            ("gpt2-wikitext2", check("gpt2-wikitext2")),
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
