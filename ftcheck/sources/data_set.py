"""Where rows come from, and reading them: the embedded text, a file, a folder, or the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.assets import eval_file, train_file
from ftcheck.errors import DiskError
from ftcheck.recipe import Recipe
from ftcheck.sources.hub import ask_for_dataset, disk_refusals, hub_refusals

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["EMBEDDED_DATA", "load_rows"]

EMBEDDED_DATA = "ftcheck:python-functions"
"""`data.path` of the embedded text."""

_BUILDERS = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
"""File suffix to the builder of `datasets` that reads it."""

_MOVED = {
    "ag_news": "fancyzhang/ag_news",
    "c4": "allenai/c4",
    "glue": "nyu-mll/glue",
    "imdb": "stanfordnlp/imdb",
    "openwebtext": "Skylion007/openwebtext",
    "squad": "rajpurkar/squad",
    "wikitext": "Salesforce/wikitext",
}
"""Data sets that the hub knew by a bare name, to where they lie now. huggingface_hub 2 refuses a
name without a namespace ("Repository id must be 'namespace/name'") before it asks the hub, which
would have redirected it."""

_SNIFFED_BYTES = 8192  # as git does: a NUL byte in the first 8,000 makes a file binary


def load_rows(recipe: Recipe, path: str, split: str, key: str) -> Dataset:
    """Read the rows of a data set, with all of their columns.

    Args:
        recipe: Names the configuration, the revision and the unit of text.
        path: As in the recipe.
        split: Of the data set.
        key: `section.key` that names the path or the split, for messages.

    Raises:
        InputError: There is no such file or split, or the file is not what its suffix says.
        Unavailable: The hub, the network or the cache does not have the data set.
    """
    if path == EMBEDDED_DATA:
        files = {"train": train_file(), "eval": eval_file()}
        if split not in files:
            raise recipe.fault(
                key, f"{path} has no split {split!r}", "Its splits are train and eval."
            )
        return _from_file(recipe, files[split], "train", key)
    local = recipe.resolve(path)
    if local.is_file():
        return _from_file(recipe, local, split, key)
    if local.suffix.lower() in _BUILDERS:
        raise recipe.fault(
            key, f"there is no file {local}", "Paths start from the recipe's folder."
        )
    return _from_hub(recipe, str(local) if local.is_dir() else path, split, key)


def _from_file(recipe: Recipe, file: Path, split: str, key: str) -> Dataset:
    from datasets import load_dataset

    builder = _BUILDERS.get(file.suffix.lower())
    if builder is None:
        raise recipe.fault(
            key,
            f"{file} has the suffix {file.suffix or '(none)'!r}",
            f"Files are read by suffix: {', '.join(_BUILDERS)}.",
        )
    _check_readable(recipe, file, builder, key)
    options = {"sample_by": recipe.data.text_unit} if builder == "text" else {}
    return _built(
        recipe,
        key,
        file,
        lambda: load_dataset(builder, data_files=str(file), split=split, **options),
    )


def _built(recipe: Recipe, key: str, file: Path, load: Callable[[], Any]) -> Dataset:
    """Run a builder of `datasets`; what it cannot parse is the file's fault."""
    from datasets.exceptions import DatasetGenerationError

    try:
        with disk_refusals():
            rows: Dataset = load()
            return rows
    except (DatasetGenerationError, ValueError, KeyError, TypeError) as error:
        reason = str(error.__cause__ or error).split("\n")[0] or type(error).__name__
        raise recipe.fault(
            key,
            f"{file} cannot be read as {file.suffix.lower().removeprefix('.')}: {reason}",
            "Check the file; each row must have the same columns.",
        ) from error


def _check_readable(recipe: Recipe, file: Path, builder: str, key: str) -> None:
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(_SNIFFED_BYTES)
        if size == 0:
            raise recipe.fault(key, f"{file} is empty", "Give a file with rows.")
        if builder == "parquet":
            return
        if b"\0" in head:
            raise recipe.fault(
                key,
                f"{file} holds binary data, expected text in UTF-8",
                "Convert it to text, or name it by what it is (.parquet).",
            )
        _check_utf8(recipe, file, key)
    except OSError as error:
        raise DiskError(f"{file} cannot be read: {error.strerror}.") from error


def _check_utf8(recipe: Recipe, file: Path, key: str) -> None:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise recipe.fault(
                    key,
                    f"{file}:{number}: byte 0x{line[error.start]:02x} at column "
                    f"{error.start + 1} is not UTF-8",
                    "Convert the file, for example with: iconv -f latin1 -t utf-8",
                ) from error


def _from_hub(recipe: Recipe, path: str, split: str, key: str) -> Dataset:
    from datasets import load_dataset

    data = recipe.data
    path = _MOVED.get(path, path)
    ask = None if Path(path).is_dir() else ask_for_dataset(path, data.revision)
    with hub_refusals(f'data set "{path}"', recipe.place(key), ask):
        rows: Dataset = load_dataset(path, data.name, split=split, revision=data.revision)
    return rows
