"""The run folder: everything that a run leaves behind, never overwritten.

```
runs/quickstart-1/
  recipe.toml         the recipe with every default filled in; loads as the same recipe
  environment.json    versions, platform, commit, seed
  metrics.jsonl       one JSON object a logged step
  loss.png            the loss curve
  generated.json      prompts and texts, before and after
  checkpoints/        of the Trainer
  adapter/            the adapter and the tokenizer (or the model, without [lora])
  summary.json        written last: a folder without it is not finished
```
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftcheck.errors import InputError, ResumeRefused
from ftcheck.files import disk_error, write_text

__all__ = ["Checkpoint", "RunFolder"]

_PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint of a Trainer."""

    folder: Path
    step: int


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths in a run folder.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def recipe(self) -> Path:
        """The recipe with every default filled in."""
        return self.root / "recipe.toml"

    @property
    def metrics(self) -> Path:
        """Logged steps, one JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def loss_curve(self) -> Path:
        """Picture of the loss."""
        return self.root / "loss.png"

    @property
    def checkpoints(self) -> Path:
        """`output_dir` of the Trainer."""
        return self.root / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The adapter with its tokenizer, or the model where there is no adapter."""
        return self.root / "adapter"

    @property
    def summary(self) -> Path:
        """The result; its presence says that the run is finished."""
        return self.root / "summary.json"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary.is_file()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write `name` as JSON; not-a-number and infinity as Python has them there."""
        write_text(self.root / name, json.dumps(content, indent=2, default=str) + "\n")

    def read_json(self, name: str) -> Any:
        """Read what `write_json` wrote; `None` where it is not there or not whole."""
        try:
            return json.loads((self.root / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @classmethod
    def new(cls, parent: str | os.PathLike[str], name: str) -> RunFolder:
        """Make `parent/name-N` with the first free N.

        Raises:
            DiskError: The folder cannot be made.
        """
        parent = Path(parent)
        number = 1 + max(
            (_number(path.name, f"{name}-") for path in parent.glob(f"{name}-*")), default=0
        )
        while True:
            try:
                return cls._made(parent / f"{name}-{number}")
            except FileExistsError:  # another run took the number
                number += 1

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> RunFolder:
        """Make exactly this folder.

        Raises:
            InputError: There is something in it.
            DiskError: The folder cannot be made.
        """
        root = Path(root)
        if root.is_dir() and not any(root.iterdir()):
            return cls(root)
        try:
            return cls._made(root)
        except FileExistsError as error:
            raise InputError(
                f"{root} exists, and a run folder is never overwritten.",
                next_step="Choose another --output-dir, or go on with it: ftcheck run --resume",
            ) from error

    @classmethod
    def _made(cls, root: Path) -> RunFolder:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            root.mkdir()
        except FileExistsError:
            raise
        except OSError as error:
            raise disk_error(error, root) from error
        return cls(root)

    @classmethod
    def existing(cls, root: str | os.PathLike[str]) -> RunFolder:
        """A run folder to resume.

        Raises:
            ResumeRefused: It is finished, or it is no run folder.
        """
        folder = cls(Path(root))
        if folder.finished:
            raise ResumeRefused(
                f"{root} is finished; there is nothing to resume.",
                next_step="Start another run without --resume.",
            )
        if not folder.recipe.is_file():
            raise ResumeRefused(
                f"{root} is no run folder: it has no recipe.toml.",
                next_step="Name the folder that ftcheck run printed.",
            )
        return folder

    @classmethod
    def unfinished(cls, parent: Path, name: str) -> RunFolder:
        """The latest unfinished `parent/name-N`.

        Raises:
            ResumeRefused: There is none.
        """
        folders = sorted(
            (cls(path) for path in parent.glob(f"{name}-*") if _number(path.name, f"{name}-")),
            key=lambda folder: _number(folder.root.name, f"{name}-"),
        )
        open_ones = [folder for folder in folders if not folder.finished]
        if not open_ones:
            found = f"{len(folders)} finished" if folders else "no"
            raise ResumeRefused(
                f"There is nothing to resume: {found} run of {name} in {parent}.",
                next_step=f"Start one with: ftcheck run {name}",
            )
        return open_ones[-1]

    def discard(self) -> None:
        """Take a folder away that a run made and never trained in; any other stays."""
        if self.finished or self.adapter.exists() or any(self.checkpoints.glob("*")):
            return
        shutil.rmtree(self.root, ignore_errors=True)
        with contextlib.suppress(OSError):  # `runs` itself, where nothing else is in it
            self.root.parent.rmdir()

    def last_checkpoint(self) -> Checkpoint | None:
        """The last complete checkpoint; one that was cut off in the writing is passed over."""
        found = [
            Checkpoint(folder=path, step=step)
            for path in self.checkpoints.glob(f"{_PREFIX}*")
            if (step := _number(path.name, _PREFIX)) and is_complete(path)
        ]
        return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def _number(name: str, prefix: str) -> int:
    digits = name.removeprefix(prefix)
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def is_complete(checkpoint: Path) -> bool:
    """Whether every part of a checkpoint is there and can be read to its end.

    The Trainer writes the weights first and `trainer_state.json` last. A file that was cut off
    cannot pass: safetensors names its own length, torch's files are zip archives with their
    directory at the end, JSON does not parse.
    """
    weights = list(checkpoint.glob("*.safetensors"))
    parts = [checkpoint / name for name in ("optimizer.pt", "scheduler.pt")]
    rng = list(checkpoint.glob("rng_state*.pth"))
    state = checkpoint / "trainer_state.json"
    if not (weights and rng and state.is_file() and all(part.is_file() for part in parts)):
        return False
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(_is_whole_safetensors(file) for file in weights) and all(
        _is_whole_zip(file) for file in (*parts, *rng)
    )


def _is_whole_safetensors(file: Path) -> bool:
    """Format: 8 bytes little-endian header length, a JSON header with offsets, the data."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_whole_zip(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
