"""From a subject to what was seen of it, as far as the levels ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ftcheck.checks.facts import Failure
from ftcheck.checks.finding import Level
from ftcheck.checks.observe.isolation import Look, apart, cannot_fork
from ftcheck.checks.observe.learning import see_learning
from ftcheck.checks.observe.rows import in_part, see_batches, see_rows
from ftcheck.checks.observe.setup import other_task, see_setup, text_of
from ftcheck.checks.observe.subject import Subject, held_out
from ftcheck.checks.observe.training import see_losses, see_training
from ftcheck.checks.seen import Seen
from ftcheck.errors import FtcheckError

if TYPE_CHECKING:
    from ftcheck.recipe import Recipe

__all__ = ["Say", "look_at", "refused"]

Say = Callable[[str], None]

_TIMEOUT_S: Final = 300.0
_REPEATED_BELOW: Final = 20_000_000
"""Parameters up to which the steps are run a second time, to see whether they repeat."""
_NOT_ASKED: Final = "its level was not asked for"


def look_at(
    subject: Subject,
    levels: Collection[Level],
    *,
    say: Say = lambda _: None,
    timeout_s: float = _TIMEOUT_S,
) -> Seen:
    """Look at a subject.

    Args:
        subject: It is as before afterwards.
        levels: What may be looked at; static facts always are.
        say: Told what begins.
        timeout_s: Seconds that each look may take.
    """
    say("Looking at arguments and modules")
    seen = Seen(
        name=subject.name,
        kind=subject.kind,
        recipe=subject.recipe,
        text=text_of(subject.tokenizer),
        setup=see_setup(subject),
        record=subject.record,
        real_weights=subject.real_weights,
        real_data=subject.real_data,
        places=subject.places,
    )
    names, looks = _looks(subject, levels)
    found: dict[str, Any] = {}
    reasons = dict.fromkeys(_ALL, _NOT_ASKED)
    stop = cannot_fork()
    if stop:
        reasons |= dict.fromkeys(names, stop)
    elif looks:
        say(f"Looking at {_enumerated(names)}")
        for name, answer in zip(names, apart(looks, timeout_s=timeout_s), strict=True):
            if isinstance(answer, Failure) and name != "memory":
                reasons[name] = f"{answer.kind}: {answer.text}"
            else:
                found[name] = answer
    return _filled(seen, found, reasons, subject)


_ALL: Final = (
    "train",
    "evaluation",
    "batches",
    "eval_batches",
    "learning",
    "training",
    "reload",
    "memory",
)
_WORDS: Final = {
    "data": "rows and batches",
    "learning": "the loss of one batch",
    "training": "a few steps of training",
    "repeat": "the same steps again",
    "memory": "memory",
}


def _enumerated(names: list[str]) -> str:
    return ", ".join(_WORDS[name] for name in names)


def _looks(subject: Subject, levels: Collection[Level]) -> tuple[list[str], list[Look]]:
    looks: dict[str, Look] = {}
    if {Level.DATA, Level.STEP, Level.ROUNDTRIP}.intersection(levels):
        looks["data"] = partial(_see_data, subject)
    if Level.MEMORY in levels and subject.recipe is not None:
        looks["memory"] = partial(_see_memory, subject.recipe)
    if Level.STEP in levels or Level.ROUNDTRIP in levels:
        reload = Level.ROUNDTRIP in levels
        looks["training"] = partial(see_training, subject, reload=reload)
    if Level.STEP in levels:
        if not other_task(subject.trainer):
            looks["learning"] = partial(see_learning, subject)
        if sum(parameter.numel() for parameter in subject.model.parameters()) < _REPEATED_BELOW:
            looks["repeat"] = partial(see_losses, subject)
    return list(looks), list(looks.values())


def _see_data(subject: Subject, folder: Path) -> dict[str, Any]:
    del folder
    trainer = subject.trainer
    evaluation = held_out(trainer)
    found: dict[str, Any] = {
        "train": see_rows(trainer.train_dataset, subject.cut),
        "batches": see_batches(trainer.get_train_dataloader),
    }
    if evaluation is not None:
        found["evaluation"] = see_rows(evaluation)
        found["eval_batches"] = see_batches(lambda: trainer.get_eval_dataloader(evaluation))
    return found


def _see_memory(recipe: Recipe, folder: Path) -> Any:
    del folder
    from ftcheck.vram.prediction import predict

    try:
        report = predict(recipe)
    except FtcheckError as error:
        return Failure(kind=type(error).__name__, text=error.message, during="predicting memory")
    return dataclasses.replace(report, trace=None)


def _filled(seen: Seen, found: dict[str, Any], reasons: dict[str, str], subject: Subject) -> Seen:
    values: dict[str, Any] = dict(found.pop("data", {}))
    if "training" in found:
        values["training"], reload = found.pop("training")
        if reload is not None:
            values["reload"] = reload
    repeat = found.pop("repeat", ())
    if repeat and "training" in values:
        values["training"] = dataclasses.replace(values["training"], repeat=tuple(repeat))
    values |= found
    if subject.trainer.eval_dataset is None:
        reasons.pop("evaluation"), reasons.pop("eval_batches")
    if subject.recipe is None:
        reasons["memory"] = "of a trainer it is predicted by ftcheck.vram.predict"
    for name in values:
        reasons.pop(name, None)
    parts = tuple(_in_part(values, subject.trainer.eval_dataset))
    return dataclasses.replace(seen, reasons=reasons, in_part=parts, **values)


def _in_part(values: Mapping[str, Any], held_out: Any) -> Iterator[str]:
    if "train" in values:
        yield from in_part("training", values["train"], values["batches"])
    if "evaluation" in values:
        yield from in_part("evaluation", values["evaluation"], values["eval_batches"])
        if isinstance(held_out, dict) and len(held_out) > 1:
            yield f"data: of {len(held_out)} evaluation sets {next(iter(held_out))!r} was looked at"


def refused(name: str, kind: str, failure: Failure, **known: Any) -> Seen:
    """What was seen of a subject that could not be built: why."""
    reasons = dict.fromkeys((*_ALL, "setup"), "the subject could not be built")
    return Seen(name=name, kind=kind, refused=failure, reasons=reasons, **known)
