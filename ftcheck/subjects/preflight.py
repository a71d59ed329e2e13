"""The callback that checks a trainer when its training begins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from ftcheck.checks.finding import CheckReport
from ftcheck.errors import InputError
from ftcheck.subjects.trainer import ChecksFailed, OnFinding, check_trainer, levels_up_to

__all__ = ["Preflight"]


class Preflight(TrainerCallback):  # type: ignore[misc] # transformers has no types for it
    """Checks the trainer that it is added to, when `train()` begins.

        trainer.add_callback(ftcheck.Preflight(trainer, level="data", on_finding="raise"))

    Without a trainer it finds the one whose `train()` is running.

    Attributes:
        report: What was found; `None` before training.

    Args:
        trainer: The trainer; `None` finds it.
        level: `static`, `data`, `step` or `roundtrip`.
        on_finding: `raise` stops training with `ChecksFailed`; `warn` warns, and goes on.
        select: As for `ftcheck.check`.
        ignore: As for `ftcheck.check`.
        accept: As for `ftcheck.check`.
    """

    def __init__(
        self,
        trainer: Any = None,
        *,
        level: str = "data",
        on_finding: OnFinding = "raise",
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        accept: Mapping[str, str] | None = None,
    ) -> None:
        levels_up_to(level)
        if on_finding not in ("raise", "warn"):
            raise InputError(
                f"on_finding: got {on_finding!r}, expected raise or warn", next_step="Choose one."
            )
        self.report: CheckReport | None = None
        self._trainer, self._on_finding = trainer, on_finding
        self._how: dict[str, Any] = {
            "level": level,
            "select": select,
            "ignore": ignore,
            "accept": accept,
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check once; a fork's own training, where this is called too, checks nothing."""
        if self.report is not None or state.global_step > 0:
            return
        trainer = self._trainer if self._trainer is not None else _running_trainer()
        self.report = CheckReport(subject="", outcomes=())  # forks see that it is under way
        self.report = check_trainer(_unstarted(trainer), **self._how)
        failed = ChecksFailed(self.report)
        if self.report.ok:
            return
        if self._on_finding == "raise":
            raise failed
        warnings.warn(str(failed), stacklevel=2)


def _running_trainer() -> Any:
    """The trainer whose `train()` calls this callback."""
    import sys

    from transformers import Trainer

    frame = sys._getframe()
    while frame is not None:
        own = frame.f_locals.get("self")
        if isinstance(own, Trainer):
            return own
        frame = frame.f_back  # type: ignore[assignment] # None ends it
    raise InputError(
        "Preflight found no trainer", next_step="Give it the trainer: Preflight(trainer)."
    )


def _unstarted(trainer: Any) -> Any:
    """A copy of a trainer that has begun to train, as it was before; the model is the same one."""
    import copy

    from transformers.trainer_callback import TrainerControl, TrainerState

    twin = copy.copy(trainer)
    twin.state, twin.control = TrainerState(), TrainerControl()
    twin.args = copy.copy(trainer.args)
    twin.optimizer, twin.lr_scheduler = None, None
    twin.callback_handler = copy.copy(trainer.callback_handler)
    twin.callback_handler.callbacks = [
        one for one in trainer.callback_handler.callbacks if not isinstance(one, Preflight)
    ]
    return twin
