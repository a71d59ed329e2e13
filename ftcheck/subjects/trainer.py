"""A live `Trainer` as a subject: `ftcheck.check(trainer)` and the `Preflight` callback."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ftcheck.checks.finding import CheckReport, Level
from ftcheck.checks.observe.looking import Say, look_at
from ftcheck.checks.observe.subject import Subject, processing_of
from ftcheck.checks.registry import selected, within
from ftcheck.checks.runner import judge
from ftcheck.errors import FtcheckError, InputError

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["ChecksFailed", "check_trainer", "levels_up_to", "trainer_subject"]

LEVELS = Level.ROUNDTRIP.up_to()
"""Levels of a live trainer, cheapest first."""


class ChecksFailed(FtcheckError):
    """A preflight found errors or warnings.

    Args:
        report: What was found.
    """

    exit_code = 1

    def __init__(self, report: CheckReport) -> None:
        failing = [found for found in report.findings if found.fails]
        lines = [f"{found.code} {found.slug}: {found.sentence}" for found in failing]
        super().__init__("\n".join(lines), next_step="ftcheck explain CODE says more of each.")
        self.report = report


def levels_up_to(name: str) -> tuple[Level, ...]:
    """The level of that name and the cheaper ones.

    Raises:
        InputError: There is no such level.
    """
    names = [level.value for level in LEVELS]
    if name not in names:
        raise InputError(
            f"level: got {name!r}, expected one of {', '.join(names)}",
            next_step="The later ones contain the earlier ones.",
        )
    return Level(name).up_to()


def trainer_subject(trainer: Trainer, name: str = "") -> Subject:
    """A subject from a trainer that has not started.

    Raises:
        InputError: It is no `transformers.Trainer`, or has no model.
    """
    if not hasattr(trainer, "args") or not hasattr(trainer, "train_dataset"):
        raise InputError(
            f"got a {type(trainer).__name__}, expected a transformers.Trainer",
            next_step="Pass the trainer itself, before train().",
        )
    if getattr(trainer, "train_dataset", None) is None:
        raise InputError(
            "the trainer has no training set", next_step="Give it one: train_dataset=..."
        )
    return Subject(
        name=name or type(trainer).__name__,
        kind="trainer",
        trainer=trainer,
        tokenizer=processing_of(trainer) or getattr(trainer.data_collator, "tokenizer", None),
    )


def check_trainer(
    trainer: Trainer,
    *,
    level: str = "roundtrip",
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    accept: Mapping[str, str] | None = None,
    tokenizer: Any = None,
    say: Say = lambda _: None,
) -> CheckReport:
    """Check a trainer before it trains. It is as before afterwards, bit for bit.

    Args:
        trainer: A `transformers.Trainer` or a subclass, ready to train.
        level: `static`, `data`, `step` or `roundtrip`; each contains those before it.
        select: Codes, prefixes or slugs of the checks to run; none runs all.
        ignore: The same, of those to leave out.
        accept: Code or slug of a finding that is meant, to the reason.
        tokenizer: Of its model, where the trainer was not given one.
        say: Told what begins.

    Raises:
        InputError: It is no trainer, or a level or a name is unknown.
    """
    levels = levels_up_to(level)
    checks = within(selected(select, ignore), levels)
    begun = time.monotonic()
    subject = trainer_subject(trainer)
    if tokenizer is not None:
        subject.tokenizer = tokenizer
    seen = look_at(subject, {one.level for one in checks}.intersection(levels), say=say)
    return judge(
        seen,
        checks,
        accept=accept,
        assumptions=subject.assumptions,
        seconds=time.monotonic() - begun,
    )


OnFinding = Literal["raise", "warn"]
