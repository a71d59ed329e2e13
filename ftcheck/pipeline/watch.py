"""Callbacks that look on while a Trainer trains: metrics, progress, interruption.

The one module of the pipeline that imports transformers when it is imported: a callback has to be a
subclass of theirs.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ftcheck.files import write_text
from ftcheck.pipeline.progress import Progress

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

__all__ = ["Interruption", "MetricsFile", "ProgressCallback", "StepClock"]


class MetricsFile(TrainerCallback):
    """Appends each logged step to a file, a JSON object a line.

    Args:
        file: The file; lines beyond `step` are taken out of it, as they will be logged again.
        step: Step that the run goes on from.
    """

    def __init__(self, file: Path, step: int = 0) -> None:
        self._file = file
        kept = [line for line in _lines(file) if step and _holds_at(line, step)]
        write_text(file, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            with self._file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def _holds_at(line: dict[str, Any], step: int) -> bool:
    """Whether a line would be there had the run not stopped at `step`: totals would not."""
    return bool(line.get("step", 0) <= step and "train_runtime" not in line)


def _lines(file: Path) -> list[dict[str, Any]]:
    """Whole lines of a metrics file; a last one that was cut off is left out."""
    if not file.is_file():
        return []
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


class ProgressCallback(TrainerCallback):
    """Passes steps on to a `Progress`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loss: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the loss for the next step."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One optimizer step is done."""
        self._progress.steps(state.global_step, state.max_steps, self._loss)


class StepClock(TrainerCallback):
    """Times optimizer steps: wall seconds from the first micro-batch to the update.

    Attributes:
        seconds: One figure a step.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._start)


class Interruption(TrainerCallback):
    """Ctrl-C ends the run after the step in progress, with a checkpoint; twice, at once.

    Attributes:
        requested: Whether Ctrl-C was pressed.
    """

    def __init__(self, progress: Progress) -> None:
        self.requested = False
        self._progress = progress

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT over for a while; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._progress.note("Stopping after this step; a checkpoint is saved. Again: stop at once.")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the Trainer to save and to stop."""
        if self.requested:
            control.should_save = True
            control.should_training_stop = True
        return control
