"""The child process: started, watched, heard out, and never left behind.

The device type cannot be unregistered, so it lives in a process of its own: one a run.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftcheck.errors import InputError
from ftcheck.memory.trace import Trace
from ftcheck.memory.vgpu.errors import ChildDied, ChildTimedOut

__all__ = ["Result", "run"]

_SHOWN_LINES = 15


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
    with tempfile.TemporaryDirectory(prefix="ftcheck-vgpu-") as folder:
        job, answer = Path(folder, "job"), Path(folder, "answer")
        job.write_bytes(_pack(function, args, kwargs, capability))
        errors = Path(folder, "stderr")
        status = _watch([str(job), str(answer)], errors, timeout_s, env or {})
        said = errors.read_text(encoding="utf-8", errors="replace")
        if status is None:
            raise ChildTimedOut(timeout_s, _read_phase(answer))
        if status != 0 or not answer.exists():
            raise _died(status, said)
        result = pickle.loads(answer.read_bytes())  # noqa: S301 - our own child wrote it
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, Result)
    return result


def _pack(
    function: Callable[..., Any], args: Any, kwargs: Any, capability: tuple[int, int]
) -> bytes:
    if getattr(function, "__module__", None) == "__main__":
        raise InputError(
            f"{getattr(function, '__qualname__', function)} is defined in the script that is being "
            "run, where a child process cannot import it from",
            next_step="Move it to a module.",
        )
    try:
        call = pickle.dumps((function, args, kwargs))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"{getattr(function, '__qualname__', function)} cannot be sent to a child process: "
            f"{error}",
            next_step="Give a function of a module, with arguments that can be pickled.",
        ) from error
    return pickle.dumps({"path": sys.path, "capability": capability, "call": call})


def _watch(
    arguments: list[str], errors: Path, timeout_s: float, env: Mapping[str, str]
) -> int | None:
    """Run the child to its end; `None` if it was stopped. It never outlives this call."""
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "ftcheck.memory.vgpu.worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": _python_path(), **env},
            start_new_session=True,  # Ctrl-C reaches this process; the child is ours to end
        )
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _python_path() -> str:
    """Where the child finds ftcheck itself, before it is told the rest of `sys.path`."""
    root = str(Path(__file__).parents[3])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH", "")])])


def _read_phase(answer: Path) -> str:
    phase = answer.with_name("phase")
    return phase.read_text(encoding="utf-8") if phase.exists() else ""


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
