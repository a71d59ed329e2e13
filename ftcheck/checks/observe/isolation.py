"""Looking without a trace: in a fork of the process, which has the subject as it is, and is thrown
away afterwards.

Parameters, buffers, optimizer, random generators, arguments, hooks, warning filters, environment
and caches in memory of the subject's own process are never touched. Files that are written go to a
folder that is deleted.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ftcheck.checks.facts import Failure
from ftcheck.files import write_bytes

__all__ = ["Look", "apart", "cannot_fork", "failure_of"]

Look = Callable[[Path], Any]
"""Looks at a subject that it closes over; gets an empty folder to write to."""

_POLL_S = 0.01


def cannot_fork() -> str:
    """Why this process cannot be forked and go on computing; empty where it can."""
    if not hasattr(os, "fork"):
        return "this system cannot fork processes"
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return (
            "the process has begun to use a CUDA card, and a fork of it cannot; "
            "hide the card (CUDA_VISIBLE_DEVICES=) to have it checked on the CPU"
        )
    return ""


def apart(looks: Sequence[Look], *, timeout_s: float) -> list[Any]:
    """Look in forks of this process, side by side.

    Args:
        looks: Each gets a fork and an empty folder of its own; what they return must be picklable.
        timeout_s: Seconds after which a fork is ended.

    Returns:
        What each returned, or a `Failure`.
    """
    with tempfile.TemporaryDirectory(prefix="ftcheck-look-") as place:
        folders = [Path(place) / str(number) for number in range(len(looks))]
        for folder in folders:
            folder.mkdir()
        children: dict[int, int] = {}
        try:
            return _run(looks, folders, children, timeout_s)
        finally:
            for process in children:
                _kill(process)


def _run(
    looks: Sequence[Look], folders: Sequence[Path], children: dict[int, int], timeout_s: float
) -> list[Any]:
    answers: list[Any] = [None] * len(looks)
    waiting = list(range(len(looks)))
    began: dict[int, float] = {}
    at_once = max(1, len(os.sched_getaffinity(0)))
    while waiting or children:
        while waiting and len(children) < at_once:
            number = waiting.pop(0)
            process = _fork(looks[number], folders[number])
            children[process], began[process] = number, time.monotonic()
        for process, number in list(children.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                answers[number] = _answer(folders[number], status)
            elif time.monotonic() - began[process] > timeout_s:
                _kill(process)
                answers[number] = Failure(
                    kind="Timeout", text=f"took longer than {timeout_s:.0f} s", during="looking"
                )
            else:
                continue
            del children[process]
        time.sleep(_POLL_S)
    return answers


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _fork(look: Look, folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    drawn = random.getstate()
    process = os.fork()
    if process:
        return process
    random.setstate(drawn)  # Python seeds it anew in every fork
    status = 1
    try:
        _alone(folder)
        try:
            answer = look(folder / "files")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - `sys.exit` in the subject is a result, too
            answer = failure_of(error, "looking")
        write_bytes(folder / "answer", pickle.dumps(answer))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent reads what is written
        traceback.print_exc()
    finally:
        os._exit(status)  # no handlers of the parent's: they are not ours to run


def _alone(folder: Path) -> None:
    """Make the fork one that can compute, and cannot be heard."""
    (folder / "files").mkdir()
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the fork
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its forks
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")  # a filter of "error" is meant for the subject's own code
    import torch

    # The threads of OpenMP did not come along; waiting for them would never end.
    torch.set_num_threads(1)
    threading.excepthook = threading.__excepthook__


def _answer(folder: Path, status: int) -> Any:
    answer = folder / "answer"
    if answer.is_file():
        return pickle.loads(answer.read_bytes())  # noqa: S301 - ours
    said = (folder / "said").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    code = os.waitstatus_to_exitcode(status)
    text = said[-1] if said else "it said nothing"
    return Failure(kind="Died", text=f"ended with status {code}: {text}", during="looking")


def failure_of(error: BaseException, during: str) -> Failure:
    """An exception as plain data."""
    return Failure(
        kind=type(error).__name__,
        text=str(error).strip() or type(error).__name__,
        during=during,
        place=_place(error),
    )


def _place(error: BaseException) -> str:
    """The innermost frame that is neither a library's nor ours."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        file = frame.filename
        if "site-packages" in file or "/ftcheck/" in file or file.startswith("<"):
            continue
        if file.startswith((sys.base_prefix, str(Path(os.__file__).parent))):
            continue
        place = f"{file}:{frame.lineno}"
    return place
