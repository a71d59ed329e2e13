"""The child process: started, watched, heard out, and never left behind.

The device type cannot be unregistered, so it lives in a process of its own, one a run: a fork of
one that has imported what they need.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftcheck.allocator.trace import Trace
from ftcheck.errors import InputError
from ftcheck.vgpu.errors import ChildDied, ChildTimedOut

__all__ = ["Call", "Result", "python_path", "run", "run_many"]

_SHOWN_LINES = 15
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run on the virtual GPU gave.

    Attributes:
        value: What the callable returned.
        trace: Every allocation and free, in order.
        assumptions: One line each.
        alive_bytes: What was still alive when the callable had returned, after garbage collection.
        import_s: Seconds from the start of the child until the device was there.
        run_s: Seconds that the callable took.
        rss_bytes: Largest resident set of the child.
    """

    value: Any
    trace: Trace
    assumptions: tuple[str, ...]
    alive_bytes: int
    import_s: float
    run_s: float
    rss_bytes: int


def run(
    function: Callable[..., Any],
    *args: Any,
    capability: tuple[int, int] = (8, 9),
    timeout_s: float = 600.0,
    env: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Result:
    """Call `function(gpu, *args, **kwargs)` in a child process that has a virtual GPU.

    Args:
        function: Of a module that the child can import; `gpu` is a `VirtualGpu`. What it returns
            must be picklable, and must hold no tensor of the device.
        args: Picklable.
        capability: Compute capability of the card that is stood in for.
        timeout_s: Seconds after which the child is stopped.
        env: Variables that the child gets beside those of this process.
        kwargs: Picklable.

    Raises:
        Unmeasured: Something cannot be run on the virtual GPU.
        ChildFailed: The function raised; its words are in the message.
        ChildTimedOut: It took too long.
        ChildDied: The child ended without a word.
        InputError: The function or its arguments cannot be sent to another process.
    """
    outcome = next(
        run_many(
            [Call(function, args, kwargs, capability)],
            timeout_s=timeout_s,
            env=env,
        )
    )[1]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@dataclass(frozen=True, slots=True)
class Call:
    """A call for `run_many`; the arguments of `run` have the same names."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    capability: tuple[int, int] = (8, 9)


def run_many(
    calls: Sequence[Call],
    *,
    timeout_s: float = 600.0,
    env: Mapping[str, str] | None = None,
    preload: Sequence[str] = (),
    at_once: int | None = None,
) -> Iterator[tuple[int, Result | Exception]]:
    """Make calls, each on a virtual GPU of its own; as they end, give their numbers and results.

    One process imports what they need and is forked for each, which saves the imports.

    Args:
        calls: What to call.
        timeout_s: Seconds that each may take.
        env: Variables that the children get beside those of this process.
        preload: Modules to import before the first call.
        at_once: Calls that run side by side; `None`: as many as there are processors.

    Yields:
        The position in `calls`, and a `Result`, or the error that `run` would raise.
    """
    with tempfile.TemporaryDirectory(prefix="ftcheck-vgpu-") as place:
        folder = Path(place)
        job = {
            "path": sys.path,
            "calls": [_pack(call) for call in calls],
            "preload": list(preload),
            "at_once": at_once or len(os.sched_getaffinity(0)),
        }
        (folder / "job").write_bytes(pickle.dumps(job))
        with _child(folder, env or {}) as child:
            yield from _answers(child, folder, len(calls), timeout_s)


def _answers(
    child: subprocess.Popen[bytes], folder: Path, count: int, timeout_s: float
) -> Iterator[tuple[int, Result | Exception]]:
    """Answers in the order in which they come."""
    waiting = set(range(count))
    while waiting:
        ended = child.poll()  # before looking: what it wrote before it ended is there
        for number in sorted(waiting):
            if (folder / f"answer-{number}").exists():
                waiting.discard(number)
                yield number, _read_answer(folder, number)
                break
            overdue = _overdue(folder / f"began-{number}", timeout_s)
            if overdue or ended is not None:
                waiting.discard(number)
                _end(_process_of(folder, number))
                yield number, _no_answer(folder, number, ended, timeout_s, overdue=overdue)
                break
        else:
            time.sleep(_POLL_S)


def _read_answer(folder: Path, number: int) -> Result | Exception:
    answer = pickle.loads((folder / f"answer-{number}").read_bytes())  # noqa: S301 - ours
    if isinstance(answer, int):  # it ended without an answer: the status that it had
        return _died(answer, _said(folder, number))
    assert isinstance(answer, (Result, Exception))
    return answer


def _no_answer(
    folder: Path, number: int, ended: int | None, timeout_s: float, *, overdue: bool
) -> Exception:
    if overdue:
        phase = folder / f"phase-{number}"
        name = phase.read_text(encoding="utf-8") if phase.exists() else ""
        return ChildTimedOut(timeout_s, name)
    return _died(ended or 0, _said(folder, number))


def _overdue(began: Path, timeout_s: float) -> bool:
    return began.exists() and time.time() - began.stat().st_mtime > timeout_s


def _process_of(folder: Path, number: int) -> int | None:
    began = folder / f"began-{number}"
    text = began.read_text(encoding="utf-8") if began.exists() else ""
    return int(text) if text else None


def _end(process: int | None) -> None:
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _said(folder: Path, number: int) -> str:
    texts = [folder / "stderr", folder / f"stderr-{number}"]
    return "".join(
        text.read_text(encoding="utf-8", errors="replace") for text in texts if text.exists()
    )


def _pack(call: Call) -> bytes:
    name = getattr(call.function, "__qualname__", call.function)
    if getattr(call.function, "__module__", None) == "__main__":
        raise InputError(
            f"{name} is defined in the script that is being run, where a child process cannot "
            "import it from",
            next_step="Move it to a module.",
        )
    try:
        packed = pickle.dumps((call.function, call.args, dict(call.kwargs)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"{name} cannot be sent to a child process: {error}",
            next_step="Give a function of a module, with arguments that can be pickled.",
        ) from error
    return pickle.dumps((call.capability, packed))


@contextlib.contextmanager
def _child(folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process that forks; with its own children it never outlives this."""
    with (folder / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "ftcheck.vgpu.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": python_path(), **env},
            start_new_session=True,  # Ctrl-C reaches this process; the child is ours to end
        )
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def python_path() -> str:
    """Where the child finds ftcheck itself, before it is told the rest of `sys.path`."""
    root = str(Path(__file__).parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH", "")])])


def _died(status: int, said: str) -> ChildDied:
    last = "\n".join(said.strip().splitlines()[-_SHOWN_LINES:])
    if status < 0:
        name = signal.Signals(-status).name
        how = f"was ended by {name}"
        next_step = (
            "SIGKILL is often the system, out of host memory: close other programs."
            if name == "SIGKILL"
            else "Run it again; if it ends the same way, report what is above."
        )
    else:
        how = f"ended with exit status {status} and no result"
        next_step = "Report what is above."
    message = f"the process of the virtual GPU {how}" + (f":\n{last}" if last else "")
    return ChildDied(message, returncode=status, stderr=said, next_step=next_step)
