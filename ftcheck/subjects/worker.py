"""The child process of an audit: runs a script up to its training, looks, judges, and stops.

Started as `python -m ftcheck.subjects.worker FOLDER`, where `job` is a pickled `Job`; the report
goes to `report`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import runpy
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ftcheck.checks.facts import Failure
from ftcheck.checks.finding import Level
from ftcheck.checks.seen import Seen
from ftcheck.files import write_bytes

__all__ = ["Job", "Outcome", "main", "run_file"]

_THROUGH_STEPS: Final = 5
_LOOP_STEPS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    Attributes:
        script: A `.py` file or a notebook.
        arguments: Of the script.
        levels: To look at.
        through: Whether to go on behind training, with a few steps.
        stand_ins: Names on the hub to folders.
        select: Of the checks.
        ignore: Of the checks.
        accept: Of findings.
        on_card: What the script raised on the virtual GPU; `None` for nothing.
    """

    script: str
    arguments: tuple[str, ...]
    levels: tuple[Level, ...]
    through: bool
    stand_ins: dict[str, str] = field(default_factory=dict)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    accept: dict[str, str] = field(default_factory=dict)
    on_card: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it: a report, or why there is none and what to do."""

    report: Any = None
    error: str = ""
    next_step: str = "Give a script that trains; its arguments come behind --."


class _Stop(BaseException):
    """Ends a script whose training has been reached."""


class _Audit:
    """One script, followed."""

    def __init__(self, job: Job, folder: Path) -> None:
        from ftcheck.subjects.places import Places
        from ftcheck.subjects.recorder import Recorder

        self.job, self.folder = job, folder
        self.assumptions: list[str] = []
        self.recorder = Recorder(Path(job.script).resolve().parent)
        self.places = Places(
            folder / "beside", job.stand_ins, self.assumptions.append, self.recorder.loaded_adapter
        )
        self.seen: Seen | None = None
        self.loop: Any = None
        self.trainers = 0
        self.in_loop = False

    def install(self) -> None:
        import transformers

        from ftcheck.subjects.loop import Loop

        self.places.install()  # below the recorder, which notes what is not done, too
        self.recorder.install()
        self.loop = Loop(self._reached_loop, _LOOP_STEPS)
        self.loop.install()
        inner, audit = transformers.Trainer.train, self
        init = transformers.Trainer.__init__

        def train(trainer: Any, *arguments: Any, **named: Any) -> Any:
            return audit._reached(trainer, inner, arguments, named)

        def made(trainer: Any, *arguments: Any, **named: Any) -> None:
            init(trainer, *arguments, **named)
            place = audit.recorder.place()
            if place:
                audit.recorder.places["trainer"] = place
                audit.trainers += 1

        transformers.Trainer.train = train
        transformers.Trainer.__init__ = made
        tokenizer = transformers.PreTrainedTokenizerBase
        loaded = tokenizer.from_pretrained.__func__

        def from_pretrained(cls: Any, *arguments: Any, **named: Any) -> Any:
            self.recorder.tokenizer = loaded(cls, *arguments, **named)
            return self.recorder.tokenizer

        tokenizer.from_pretrained = classmethod(from_pretrained)

    def _reached(self, trainer: Any, inner: Any, arguments: Any, named: Any) -> Any:
        """`train()` was called: look, and stop or go on in small."""
        if self.recorder.in_training:
            return inner(trainer, *arguments, **named)
        self.loop.off = True
        if self.seen is not None:
            self._assume(f"the first train() was looked at, not that at {self.recorder.place()}")
        else:
            if self.trainers > 1:
                self._assume(f"of {self.trainers} trainers the one that trains first was looked at")
            self.seen = self._look(trainer)
            if not self.job.through:
                raise _Stop
        return self._in_small(trainer, inner)

    def _assume(self, sentence: str) -> None:
        if f"training: {sentence}" not in self.assumptions:
            self.assumptions.append(f"training: {sentence}")

    def _look(self, trainer: Any) -> Seen:
        from ftcheck.checks.observe.looking import look_at
        from ftcheck.subjects.trainer import trainer_subject

        print("ftcheck: training was reached", file=sys.stderr)
        subject = trainer_subject(trainer, Path(self.job.script).name)
        subject.kind = "script"
        if subject.tokenizer is None:
            subject.tokenizer = self.recorder.tokenizer
        subject.places = {
            "training": self.recorder.places.get("trainer", ""),
            "data": "",
            **self.recorder.places,
        }
        subject.record = self.recorder.record(through=False)
        subject.real_weights = not self.places.stand_ins.used["model"]
        subject.real_data = not self.places.stand_ins.used["data"]
        self.recorder.in_training = self.places.off = True
        try:
            return look_at(subject, set(self.job.levels))
        finally:
            self.recorder.in_training = self.places.off = False

    def _in_small(self, trainer: Any, inner: Any) -> Any:
        from ftcheck.pipeline.training import cut_short
        from ftcheck.subjects.recorder import base_sample

        wanted = trainer.args.max_steps
        cut_short(trainer, min(_THROUGH_STEPS, wanted) if wanted > 0 else _THROUGH_STEPS)
        if hasattr(trainer.model, "peft_config"):
            self.recorder.base = base_sample(trainer.model)
        self.recorder.in_training = True
        try:
            return inner(trainer)
        finally:
            self.recorder.in_training, self.recorder.trained = False, True

    def _reached_loop(self, trainer: Any) -> None:
        """A loop of the script's own has made a few steps."""
        self.in_loop = True
        self.seen = self._look(trainer)
        raise _Stop

    # ------------------------------------------------------------------ the script

    def run(self) -> Failure | None:
        """Run the script; what it raised."""
        from ftcheck.checks.observe.isolation import failure_of

        script = Path(self.job.script).resolve()
        sys.argv = [str(self.job.script), *self.job.arguments]
        try:
            run_file(script)
        except _Stop:
            return None
        except SystemExit as error:
            if error.code in (None, 0):
                return None
            return Failure(
                kind="SystemExit",
                text=f"the script ended with {error.code}",
                during="running the script",
            )
        except BaseException as error:  # noqa: BLE001 - whatever a script raises is a result
            return failure_of(error, "running the script")
        return None

    def judged(self, failure: Failure | None) -> Outcome:
        from ftcheck.checks.observe.looking import refused
        from ftcheck.checks.registry import selected, within
        from ftcheck.checks.runner import judge

        job, name = self.job, Path(self.job.script).name
        through = job.through and failure is None and not self.in_loop
        record = self.recorder.record(through=through, failure=failure)
        if self.in_loop:
            record = dataclasses.replace(
                record, loop=True, rates=tuple(self.loop.rates), kept_gradients=self.loop.kept
            )
        if self.seen is None and failure is None:
            return Outcome(error=_NOTHING.format(name=name))
        if self.seen is None and failure is not None and _UNREACHABLE.search(failure.text):
            return Outcome(
                error=f"{failure.place or name}: {failure.text.splitlines()[0]}",
                next_step="Answer the name with a folder or a file (--stand-in NAME=PATH), or load "
                "it once with a network.",
            )
        if self.seen is None:
            assert failure is not None
            seen = refused(
                name,
                "script",
                failure,
                record=dataclasses.replace(record, failure=None),
                real_weights=not self.places.stand_ins.used["model"],
                real_data=not self.places.stand_ins.used["data"],
            )
        else:
            seen = dataclasses.replace(self.seen, record=record)
        if job.on_card is not None:
            seen = dataclasses.replace(seen, memory=job.on_card)
        checks = within(selected(job.select, job.ignore), (*job.levels, Level.MEMORY))
        return Outcome(report=judge(seen, checks, accept=job.accept, assumptions=self.assumptions))


_UNREACHABLE: Final = re.compile(
    r"couldn't connect to|Couldn't reach|[Oo]ffline mode is enabled|OfflineModeIsEnabled|"
    r"outgoing traffic has been disabled|Max retries exceeded|Name or service not known"
)
"""What the libraries say where there is no network; it is no fault of the script."""

_NOTHING: Final = (
    "{name} ended without training: no Trainer.train() was called, and no optimizer made steps on "
    "a model of transformers"
)


def run_file(script: Path) -> None:
    """Run a script or a notebook as `python` would, in this process."""
    sys.path.insert(0, str(script.parent))
    if script.suffix == ".ipynb":
        _run_notebook(script)
    else:
        runpy.run_path(str(script), run_name="__main__")


def _run_notebook(file: Path) -> None:
    """Run the cells of a notebook, one after the other, without its magics."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(file)}
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for number, code in enumerate(codes, 1):
        if code.lstrip().startswith("%%") and not code.lstrip().startswith(("%%time", "%%capture")):
            continue
        lines = [
            f"{line[: len(line) - len(line.lstrip())]}pass  # {line.lstrip()}"
            if line.lstrip().startswith(("%", "!", "?"))
            else line
            for line in code.splitlines()
        ]
        exec(compile("\n".join(lines), f"{file}#cell{number}", "exec"), names)  # noqa: S102 - the user's own


def transformers_quiet() -> None:
    """Keep bars and hints of the libraries out of what is shown when something fails."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def main() -> None:
    """Do the job of a folder."""
    folder = Path(sys.argv[1])
    job: Job = pickle.loads((folder / "job").read_bytes())  # noqa: S301 - written by the parent
    began = time.monotonic()
    transformers_quiet()
    audit = _Audit(job, folder)
    audit.install()
    failure = audit.run()
    outcome = audit.judged(failure)
    if outcome.report is not None:
        report = dataclasses.replace(outcome.report, seconds=time.monotonic() - began)
        outcome = Outcome(report=report)
    write_bytes(folder / "report", pickle.dumps(outcome))
    sys.stdout.flush()
    os._exit(0)  # threads of the script's are not ours to wait for


if __name__ == "__main__":
    import importlib

    # Classes of `__main__` could not be read by the parent.
    importlib.import_module("ftcheck.subjects.worker").main()
