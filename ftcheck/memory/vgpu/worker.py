"""What runs in the child: `python -m ftcheck.memory.vgpu.worker JOB ANSWER`."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ftcheck.memory.vgpu.child import Result
from ftcheck.memory.vgpu.errors import ChildFailed, Unmeasured

__all__ = ["main"]


def main(job_file: str, answer_file: str) -> None:
    """Do the job, write the answer, and leave without the interpreter's farewell.

    At exit torch destroys storages of a device whose guard is written in Python, which ends in
    "terminate called"; therefore `os._exit`.
    """
    started = time.monotonic()
    job = pickle.loads(Path(job_file).read_bytes())  # noqa: S301 - our parent wrote it
    sys.path[:] = job["path"]
    answer: Any
    try:
        answer = _do(job, started, Path(answer_file).with_name("phase"))
    except Unmeasured as error:
        answer = error
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must be told
        answer = _failed(error)
    partial = Path(answer_file + ".part")
    partial.write_bytes(pickle.dumps(answer))
    os.replace(partial, answer_file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _do(job: dict[str, Any], started: float, phase_file: Path) -> Result:
    from ftcheck.memory.vgpu.gpu import VirtualGpu

    gpu = VirtualGpu(tuple(job["capability"]))
    gpu.phase_file = phase_file
    function, args, kwargs = pickle.loads(job["call"])  # noqa: S301 - our parent wrote it
    ready = time.monotonic()
    value = function(gpu, *args, **kwargs)
    done = time.monotonic()
    if gpu.kernels.unmeasured is not None:
        raise gpu.kernels.unmeasured
    gc.collect()
    gpu.labels.name_gradients()
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
    cause: BaseException | None = error
    while cause is not None:  # a library may have wrapped it
        if isinstance(cause, Unmeasured):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = "".join(traceback.format_exception(error))
    return ChildFailed(type(error).__name__, str(error), text)


if __name__ == "__main__":
    main(*sys.argv[1:])
