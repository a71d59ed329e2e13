"""Small recipes for tests: the built-in quickstart, cut down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ftcheck.recipe import Recipe, load_recipe

__all__ = ["FAST", "ftcheck_command", "small_recipe"]

FAST = (
    "data.rows=48",
    "data.eval_rows=16",
    "tokenization.max_length=48",
    "training.max_steps=4",
    "training.per_device_train_batch_size=4",
    "training.logging_steps=1",
    "generation.max_new_tokens=8",
    "generation.do_sample=false",
)
"""Overrides that make any recipe on the embedded text a matter of a second."""


def small_recipe(*overrides: str, base: str | Path = "quickstart") -> Recipe:
    """A recipe that runs in about a second, with more overrides on top."""
    return load_recipe(base, overrides=(*FAST, *overrides))


def ftcheck_command(
    *arguments: str | Path,
    cwd: Path,
    environment: dict[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `ftcheck` as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ftcheck", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def with_overrides(overrides: Sequence[str]) -> list[str]:
    """`--set` before each override."""
    return [part for override in overrides for part in ("--set", override)]
