"""What runs in the child: `python -m ftcheck.vgpu.worker FOLDER`."""

from __future__ import annotations

import gc
import importlib.util
import os
import pickle
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from ftcheck.errors import InputError
from ftcheck.vgpu.child import Result
from ftcheck.vgpu.errors import ChildFailed, Unmeasured

__all__ = ["main"]


def main(place: str) -> None:
    """Fork for each call, some at once; each fork writes its answer."""
    folder = Path(place)
    job = pickle.loads((folder / "job").read_bytes())  # noqa: S301 - our parent wrote it
    sys.path[:] = job["path"]
    for name in job["preload"]:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    running: dict[int, int] = {}
    for number, packed in enumerate(job["calls"]):
        if len(running) >= job["at_once"]:
            _reap(folder, running)
        process = os.fork()
        if process == 0:
            _answer(folder, number, packed)
        running[process] = number
    while running:
        _reap(folder, running)


def _reap(folder: Path, running: dict[int, int]) -> None:
    """Wait for one fork; if it left no answer, its exit status is the answer."""
    process, status = os.wait()
    number = running.pop(process)
    if not (folder / f"answer-{number}").exists():
        _write(folder, number, os.waitstatus_to_exitcode(status))


def _write(folder: Path, number: int, answer: Any) -> None:
    partial = folder / f"answer-{number}.part"
    partial.write_bytes(pickle.dumps(answer))
    os.replace(partial, folder / f"answer-{number}")


def _answer(folder: Path, number: int, packed: bytes) -> NoReturn:
    """Make one call, write the answer, and leave without the interpreter's farewell.

    At exit torch destroys storages of a device whose guard is written in Python, which ends in
    "terminate called"; therefore `os._exit`.
    """
    (folder / f"began-{number}").write_text(str(os.getpid()), encoding="utf-8")
    said = os.open(folder / f"stderr-{number}", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    started = time.monotonic()
    answer: Any
    try:
        answer = _do(packed, started, folder / f"phase-{number}")
    except Unmeasured as error:
        answer = error
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must be told
        answer = _failed(error)
    _write(folder, number, answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _do(packed: bytes, started: float, phase_file: Path) -> Result:
    from ftcheck.vgpu.gpu import VirtualGpu

    capability, call = pickle.loads(packed)  # noqa: S301 - our parent wrote it
    gpu = VirtualGpu(tuple(capability))
    gpu.phase_file = phase_file
    function, args, kwargs = pickle.loads(call)  # noqa: S301 - our parent wrote it
    ready = time.monotonic()
    value = function(gpu, *args, **kwargs)
    done = time.monotonic()
    if gpu.kernels.unmeasured is not None:
        raise gpu.kernels.unmeasured
    gpu.workspaces.release()
    gc.collect()
    return Result(
        value=value,
        trace=gpu.trace(),
        assumptions=tuple(gpu.assumptions),
        alive_bytes=gpu.recorder.alive_bytes(),
        import_s=ready - started,
        run_s=done - ready,
        rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # KiB on Linux
    )


def _failed(error: BaseException) -> Exception:
    unmeasured = Unmeasured.within(error)
    if unmeasured is not None:
        return unmeasured
    if isinstance(error, InputError):  # its class may not come through a pickle
        return InputError(error.message, next_step=error.next_step)
    text = "".join(traceback.format_exception(error))
    return ChildFailed(type(error).__name__, str(error), text)


if __name__ == "__main__":
    main(*sys.argv[1:])
