"""The sums of the stored files, with the versions and figures of how they were made."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from ftcheck.assets import manifest_file, model_dir, text_dir
from ftcheck.assets.tokenizer import write_json

PACKAGES = ("safetensors", "tokenizers", "torch", "transformers")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder_sums(folder: Path) -> dict[str, str]:
    """The sums of a folder's files by name, without the manifest itself and the model card."""
    left_out = {manifest_file().name, "README.md"}
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: sha256(path) for path in files if path.name not in left_out}


def versions() -> dict[str, str]:
    """The versions that the weights depend on, as installed here."""
    from importlib.metadata import version

    found = {name: version(name) for name in PACKAGES}
    return {"machine": platform.machine(), "python": platform.python_version(), **found}


def write_manifest(model: Path, losses: dict[str, float], steps: int) -> dict[str, Any]:
    """Writes MANIFEST.json about the stored texts and a model made from them.

    Args:
        model: The folder of the model.
        losses: Its held-out losses by kind of text.
        steps: Number of optimizer steps that it was pretrained for.

    Returns:
        What was written.
    """
    content = {
        "files": {
            model_dir().name: folder_sums(model),
            text_dir().name: folder_sums(text_dir()),
        },
        "held_out_loss": losses,
        "steps": steps,
        "text_from": "CPython 3.11.7 standard library",
        "versions": versions(),
    }
    write_json(manifest_file(), content)
    return content


def read_manifest() -> dict[str, Any]:
    """The content of MANIFEST.json."""
    content: dict[str, Any] = json.loads(manifest_file().read_text(encoding="utf-8"))
    return content


def differing(expected: dict[str, str], folder: Path) -> list[str]:
    """The names of the files that are missing in a folder or have another sum than expected."""
    found = folder_sums(folder)
    return [name for name, total in expected.items() if found.get(name) != total]
