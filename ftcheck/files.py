"""Files that are as before or complete: written beside, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ftcheck.errors import DiskError

__all__ = ["disk_error", "write_bytes", "write_text", "written_beside"]

_NEXT_STEPS = {
    errno.ENOSPC: "Free some space, or choose another place with --output-dir.",
    errno.EDQUOT: "Free some space, or choose another place with --output-dir.",
}
_OTHER_NEXT_STEP = "Choose a place that you may write to with --output-dir."


def write_text(file: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file beside and rename it: the file is as before, or complete.

    Raises:
        DiskError: No space, no permission, or another refusal of the operating system.
    """
    with written_beside(file) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def written_beside(file: Path, next_step: str = "") -> Iterator[Path]:
    """A place beside a file to write it to; it is renamed to the file at exit.

    Args:
        file: As it is to be called; its folder must exist.
        next_step: What to do if that is refused; that of `disk_error` where empty.

    Raises:
        DiskError: No space, no permission, or another refusal of the operating system.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise disk_error(error, file, next_step) from error


def disk_error(error: OSError, file: Path, next_step: str = "") -> DiskError:
    """The refusal of the operating system in one sentence."""
    return DiskError(
        f"{file} cannot be written: {error.strerror or error}.",
        next_step=next_step or _NEXT_STEPS.get(error.errno or 0, _OTHER_NEXT_STEP),
    )
