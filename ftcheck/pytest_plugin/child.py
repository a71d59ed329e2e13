"""A process of its own for what loads models: `python -m ftcheck.pytest_plugin.child FOLDER`.

The process of the tests keeps its modules, warning filters, environment and random generators.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftcheck.errors import FtcheckError
from ftcheck.files import write_bytes

__all__ = ["ChildFailed", "call_apart"]

_SHOWN_LINES = 15


class ChildFailed(FtcheckError):
    """The process ended without an answer, or what it called raised."""


def call_apart(folder: Path, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in a new process and return what it returns.

    Args:
        folder: For the job, the answer and what the process says; empty.
        function: Of a module of this package.
        args: Picklable, as is what it returns.
        kwargs: The same.

    Raises:
        ChildFailed: It raised or died; the message is that of a `FtcheckError`, else the last lines
            that it said.
    """
    (folder / "job").write_bytes(pickle.dumps((function, args, kwargs)))
    said = folder / "said"
    with said.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "ftcheck.pytest_plugin.child", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches this process; the child is ours to end
        )
        try:
            child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    answer = folder / "answer"
    if not answer.is_file():
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ChildFailed(
            f"the process that was to look ended with status {child.returncode}:\n"
            + "\n".join(lines[-_SHOWN_LINES:])
        )
    value, failure = pickle.loads(answer.read_bytes())  # noqa: S301 - our child wrote it
    if failure is not None:
        message, next_step = failure
        raise ChildFailed(message, next_step=next_step)
    return value


def main(place: str) -> None:
    """Do the job of a folder and write the answer."""
    folder = Path(place)
    function, args, kwargs = pickle.loads((folder / "job").read_bytes())  # noqa: S301
    value, failure = None, None
    try:
        value = function(*args, **kwargs)
    except FtcheckError as error:
        failure = (error.message, error.next_step)
    except ImportError as error:
        failure = (
            f"a package is missing: {error}",
            "Install torch, transformers, datasets, accelerate and peft beside pytest-ftcheck.",
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the test must be told
        text = "".join(traceback.format_exception(error)[-3:])
        failure = (f"ftcheck itself failed: {type(error).__name__}: {error}\n{text}", "")
    write_bytes(folder / "answer", pickle.dumps((value, failure)))


if __name__ == "__main__":
    main(*sys.argv[1:])
