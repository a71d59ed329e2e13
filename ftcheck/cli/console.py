"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import rich.progress

__all__ = ["ConsoleProgress", "quiet_libraries"]

_SECONDS_BETWEEN_LINES = 10.0


class ConsoleProgress:
    """A `Progress` for people: the stages of a run, and a bar for its steps."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._bars: rich.progress.Progress | None = None
        self._stage: rich.progress.TaskID | None = None
        self._steps: rich.progress.TaskID | None = None
        self._last_line = 0.0

    def __enter__(self) -> ConsoleProgress:
        if self._terminal:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[loss]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def stage(self, text: str) -> None:
        """Say which step of the pipeline begins."""
        if self._bars is None:
            click.echo(f"{text} …", err=True)
            return
        for task in (self._stage, self._steps):
            if task is not None:
                self._bars.remove_task(task)
        self._steps = None
        self._stage = self._bars.add_task(f"{text} …", total=None, loss="")

    def steps(self, done: int, total: int, loss: float | None) -> None:
        """Say how far the training is."""
        shown = "" if loss is None else f"loss {loss:.4f}"
        if self._bars is None:
            now = time.monotonic()
            if now - self._last_line >= _SECONDS_BETWEEN_LINES or done == total:
                self._last_line = now
                click.echo(f"  step {done}/{total} {shown}".rstrip(), err=True)
            return
        if self._steps is None:
            if self._stage is not None:
                self._bars.remove_task(self._stage)
                self._stage = None
            self._steps = self._bars.add_task("Training", total=total, loss="")
        self._bars.update(self._steps, completed=done, loss=shown)

    def note(self, text: str) -> None:
        """Say something that the reader should know now."""
        if self._bars is None:
            click.echo(text, err=True)
        else:
            self._bars.console.print(text, highlight=False, markup=False)


def quiet_libraries() -> None:
    """Keep the libraries' own bars, hints and warnings off the screen.

    What matters of them is in the summary: the active library bugs and the notices.
    """
    import logging
    import os
    import warnings

    warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # it logs tracebacks as errors
    datasets.disable_progress_bars()
    for name in ("huggingface_hub", "bitsandbytes", "accelerate", "peft", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
