"""A script on the virtual GPU: whether tensors on different devices meet in it."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from ftcheck.audit.places import Places
from ftcheck.checks.facts import Failure
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.errors import FtcheckError
from ftcheck.memory.vgpu import run
from ftcheck.pipeline.training import cut_short

__all__ = ["see_devices"]

_STEPS: Final = 2
_BEFORE: Final = ("transformers.trainer", "accelerate", "datasets", "bitsandbytes", "peft")


def see_devices(
    script: str, arguments: tuple[str, ...], stand_ins: dict[str, str], timeout_s: float
) -> Failure | None:
    """Run a script to its end on the virtual GPU, with two steps of training.

    Returns:
        What it raised there; `None` where it ran, and a failure of the kind `Unmeasured` where it
        could not be run.
    """
    try:
        result = run(_follow, script, arguments, stand_ins, timeout_s=timeout_s)
    except FtcheckError as error:
        return Failure(
            kind="Unmeasured", text=error.message, during="running it on the virtual GPU"
        )
    failure: Failure | None = result.value
    return failure


def _follow(
    gpu: Any, script: str, arguments: tuple[str, ...], stand_ins: dict[str, str]
) -> Failure | None:
    """In the process that has the virtual GPU."""
    from ftcheck.audit.worker import run_file

    for name in _BEFORE:  # as they are without a card: what they import for one is not here
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gpu.as_cuda()
    gpu.phase("script")
    with tempfile.TemporaryDirectory(prefix="ftcheck-device-") as place:
        places = Places(
            Path(place), stand_ins, lambda _: None, lambda _: None, device=str(gpu.device)
        )
        places.install()
        _train_in_small(places)
        sys.argv = [script, *arguments]
        try:
            run_file(Path(script).resolve())
        except SystemExit:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a script raises is a result
            return failure_of(error, "running it on the virtual GPU")
    return None


def _train_in_small(places: Places) -> None:
    import transformers

    inner = transformers.Trainer.train

    def train(trainer: Any, *_: Any, **__: Any) -> Any:
        cut_short(trainer, _STEPS)
        trainer.args.output_dir = places.beside(trainer.args.output_dir)
        return inner(trainer)

    transformers.Trainer.train = train
