"""Recipes as people write them: the smallest change to a sound one that a check finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftcheck.checks.finding import CheckReport, Level
from ftcheck.checks.registry import find
from ftcheck.recipe import load_recipe
from ftcheck.subjects.check import check_recipe

__all__ = ["Case", "Changes", "checked", "place_of", "write"]

Changes = tuple[str, ...]
"""`section.key = value` in TOML; `- section.key` and `- section` take one out."""

_SOUND = """\
[model]
name_or_path = "ftcheck:tiny-gpt2"
loss_type = "ForCausalLM"

[data]
path = "ftcheck:python-functions"
rows = 64
eval_split = "eval"
eval_rows = 16

[tokenization]
pad_token = "eos_token"
padding = "longest"
max_length = 48
labels = "pads_masked"
append_eos = true

[lora]
r = 8
lora_alpha = 16
target_modules = ["c_attn"]
task_type = "CAUSAL_LM"

[training]
per_device_train_batch_size = 4
gradient_accumulation_steps = 2
num_train_epochs = 2
learning_rate = 1e-2

[generation]
prompts = ["def"]
max_new_tokens = 8
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one check finds in recipes, and what it leaves alone.

    Attributes:
        wrong: Changes to the sound recipe that make it wrong.
        at: Key, or section, whose line the finding names.
        near: Changes that make recipes which are nearly wrong, each.
        severity: Of the finding.
        files: Writes files and folders beside the recipe.
        also: Codes of other errors that the same mistake has.
        applies: Whether the check has something to look at in what it leaves alone.
    """

    wrong: Changes
    at: str
    near: tuple[Changes, ...]
    severity: str = "error"
    files: Callable[[Path], None] | None = None
    also: tuple[str, ...] = ()
    applies: bool = True


def write(folder: Path, changes: Changes) -> Path:
    """Write a recipe with some changes."""
    sections: dict[str, dict[str, str]] = {}
    here: dict[str, str] = {}
    for line in _SOUND.splitlines():
        if line.startswith("["):
            here = sections.setdefault(line.strip("[]"), {})
        elif line:
            key, _, value = line.partition(" = ")
            here[key] = value
    for change in changes:
        name, _, value = change.removeprefix("- ").partition(" = ")
        section, _, key = name.partition(".")
        if not change.startswith("- "):
            sections.setdefault(section, {})[key] = value
        elif key:
            del sections[section][key]
        else:
            del sections[section]
    file = folder / "my.toml"
    file.write_text(
        "\n\n".join(
            "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in held.items())])
            for name, held in sections.items()
        ),
        encoding="utf-8",
    )
    return file


def place_of(file: Path, name: str) -> str:
    """`file:line` of a key, or of a section, found without ftcheck."""
    section, _, key = name.partition(".")
    here = ""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        here = line.strip("[]") if line.startswith("[") else here
        if here == section and (not key or re.match(rf"{key} =", line)):
            return f"{file}:{number}"
    raise AssertionError(f"{name} is not in {file}")


def checked(file: Path, code: str) -> CheckReport:
    """Check a recipe file as far as one check needs, with every check of those levels."""
    level = find(code).level
    levels = (level,) if level is Level.MEMORY else level.up_to()
    return check_recipe(load_recipe(str(file)), levels=levels)
