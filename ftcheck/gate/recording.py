"""What may be recorded in a baseline: figures that repeat, of a tree that is in version control."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftcheck.errors import InputError
from ftcheck.files import disk_error, write_text
from ftcheck.gate.baseline import FIGURES, Baseline, Entry, Kind

__all__ = ["REPEATABLE", "Repeats", "entry_of", "record", "require_clean_tree"]

REPEATABLE: Final = 0.01
"""Largest spread of measured peaks, as a share of the largest; predicted ones must be equal."""
_CODE: Final = (".py", ".toml")
_CANNOT_TELL: Final = "Run git status there and see to what it says."


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """The peaks of a test in each of some equal calls.

    Attributes:
        test: Node id, from the root of the tests on.
        kind: Measured on the card, or predicted for it.
        card: Name of the card.
        versions: Distribution to version.
        allocated_bytes: One a call.
        reserved_bytes: One a call.
    """

    test: str
    kind: Kind
    card: str
    versions: Mapping[str, str]
    allocated_bytes: tuple[float, ...]
    reserved_bytes: tuple[float, ...]


def entry_of(repeats: Repeats, *, repeatable: bool) -> Entry:
    """The largest peaks.

    Args:
        repeats: Of one test.
        repeatable: Whether they must repeat.

    Raises:
        InputError: A figure is no number of bytes over 0, or does not repeat though it must.
    """
    largest: dict[str, int] = {}
    for name in FIGURES:
        peaks: tuple[float, ...] = getattr(repeats, f"{name}_bytes")
        for peak in peaks:
            if not math.isfinite(peak) or peak <= 0 or peak != int(peak):
                raise InputError(
                    f"{repeats.test}: {name}: got {peak}, expected a whole number of bytes over 0."
                )
        if not peaks:
            raise InputError(f"{repeats.test}: {name}: got nothing, expected a peak for each call.")
        if repeatable:
            _require_repeatable(f"{repeats.test}: {name}", peaks, repeats.kind)
        largest[f"{name}_bytes"] = int(max(peaks))
    return Entry(
        test=repeats.test,
        kind=repeats.kind,
        card=repeats.card,
        versions=repeats.versions,
        **largest,
    )


def _require_repeatable(what: str, peaks: tuple[float, ...], kind: Kind) -> None:
    if len(peaks) < 2:
        raise InputError(f"{what}: got one call, expected two or more, to see whether it repeats.")
    low, high = min(peaks), max(peaks)
    allowed = REPEATABLE if kind == "measured" else 0
    if high - low > allowed * high:
        raise InputError(
            f"{what} does not repeat: got from {low:,.0f} to {high:,.0f} bytes in "
            f"{len(peaks)} calls, expected "
            + (f"at most {allowed:.0%} between them." if allowed else "the same in each.")
        )


def record(file: Path, entries: Iterable[Entry]) -> Baseline:
    """Put entries into the file of a baseline; whatever else it holds by then stays.

    Returns:
        What the file holds now.

    Raises:
        InputError: The file holds anything but a baseline.
        DiskError: It cannot be written.
    """
    file = file.resolve()  # a link stays one
    with _alone_in(file):
        before = Baseline.read(file)
        now = before.merged(entries)
        if now.text() != before.text() or not file.exists():
            write_text(file, now.text())
    return now


@contextlib.contextmanager
def _alone_in(file: Path) -> Iterator[None]:
    """Wait for other sessions that record beside this one; leaves no file behind."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise disk_error(error, file, "Name another file with --ftcheck-baseline.") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def require_clean_tree(folder: Path, baseline: Path) -> None:
    """Refuse what nobody could find again in version control.

    Tracked files must be as they were committed. Of untracked ones, code and recipes (`.py`,
    `.toml`) count, since they may be what was measured; the rest (reports, logs, adapters) does
    not, nor does the baseline itself. A folder outside of any checkout passes.

    Args:
        folder: Of the tests; its whole checkout counts.
        baseline: File that is recorded to.

    Raises:
        InputError: Something is not committed, or git does not answer.
    """
    folder = folder.resolve()
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return
    top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    _git(folder, "rev-parse", "--verify", "HEAD")
    status = _git(
        folder, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", str(top)
    )
    changed = [
        line[3:]
        for line in status.split("\0")
        if line
        and (not line.startswith("??") or line.endswith(_CODE))
        and (top / line[3:]).resolve() != baseline.resolve()
    ]
    if changed:
        rest = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{top} has changes that are not committed ({', '.join(changed[:3])}{rest}), and a "
            "baseline is recorded from committed files only.",
            next_step="Commit them, or put them aside with git stash -u.",
        )


def _git(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", os.fspath(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"git cannot say whether {folder} is committed: {error}", next_step=_CANNOT_TELL
        ) from error
    if answer.returncode:
        said = answer.stderr.strip().partition("\n")[0] or f"status {answer.returncode}"
        raise InputError(
            f"git cannot say whether {folder} is committed: {said}", next_step=_CANNOT_TELL
        )
    return answer.stdout
