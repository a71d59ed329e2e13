"""What a result came from: versions, platform, device, commit. Standard library only."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["LIBRARIES", "Environment", "current", "installed_version"]

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
)
"""Distributions whose version can change what a recipe does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where a result was made.

    Attributes:
        versions: Distribution name to version, for every installed one of `LIBRARIES`, and ftcheck.
        python: Python version, such as `3.11.7`.
        platform: Operating system and machine, such as `Linux-x86_64`.
        commit: Commit of the git checkout that holds `folder`, with `+dirty` behind it where
            tracked files differ from it; `None` outside a checkout.
    """

    versions: dict[str, str]
    python: str
    platform: str
    commit: str | None

    def to_dict(self) -> dict[str, object]:
        """The same as plain JSON types."""
        return asdict(self)


@cache
def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or `None` where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def current(folder: Path | None = None) -> Environment:
    """The environment of this process.

    Args:
        folder: Folder whose git commit is recorded; the working directory where `None`.
    """
    folder = folder or Path.cwd()
    versions = {
        name: version
        for name in (*LIBRARIES, "pytest-ftcheck")
        if (version := installed_version(name)) is not None
    }
    commit = _git(folder, "rev-parse", "HEAD")
    if commit and _git(folder, "status", "--porcelain", "--untracked-files=no"):
        commit += "+dirty"
    return Environment(
        versions=versions,
        python=platform.python_version(),
        platform=f"{platform.system()}-{platform.machine()}",
        commit=commit or None,
    )
