"""A script on the virtual GPU: whether tensors on different devices meet in it."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from ftcheck.checks.facts import Failure
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.errors import FtcheckError
from ftcheck.pipeline.training import cut_short
from ftcheck.subjects.places import Places
from ftcheck.vgpu import run

__all__ = ["see_devices"]

_STEPS: Final = 2
_BEFORE: Final = ("transformers.trainer", "accelerate", "datasets", "bitsandbytes", "peft")


def see_devices(
    script: str, arguments: tuple[str, ...], stand_ins: dict[str, str], timeout_s: float
) -> Failure | None:
    """Run a script to its end on the virtual GPU, with two steps of training; one with a loop of
    its own, through two of its steps.

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
    from ftcheck.subjects.worker import run_file

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
        except (SystemExit, _Enough):
            return None
        except Exception as error:  # noqa: BLE001 - whatever a script raises is a result
            return failure_of(error, "running it on the virtual GPU")
    return None


class _Enough(BaseException):
    """Ends a script with a loop of its own, which has made some steps."""


def _train_in_small(places: Places) -> None:
    """Cut short what a `Trainer` does, and end what a loop of the script's own does."""
    import transformers
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    inner = transformers.Trainer.train
    training, own = [False], [0]

    def train(trainer: Any, *_: Any, **__: Any) -> Any:
        cut_short(trainer, _STEPS)
        trainer.args.output_dir = places.beside(trainer.args.output_dir)
        training[0] = True
        try:
            return inner(trainer)
        finally:
            training[0] = False

    def stepping(*_: Any) -> None:
        own[0] += not training[0]
        if own[0] > _STEPS:
            raise _Enough

    transformers.Trainer.train = train
    register_optimizer_step_pre_hook(stepping)
