"""The error tree: every error that ftcheck raises on purpose derives from `FtcheckError`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "DiskError",
    "FtcheckError",
    "InputError",
    "Problem",
    "RecipeError",
    "ReloadMismatch",
    "ResumeRefused",
    "Unavailable",
    "chain",
]


class FtcheckError(Exception):
    """An error with a next step.

    Args:
        message: What was found and what was expected, in one or more sentences.
        next_step: What the reader can do about it; printed on a line of its own.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}\n{self.next_step}" if self.next_step else self.message


class InputError(FtcheckError):
    """Something that the user gave (a file, a folder, a model, a value) cannot be used."""

    exit_code = 2


class Unavailable(InputError):
    """A model or a data set could not be had from where it was asked for.

    Args:
        what: What was asked for, such as `model "gpt2"`.
        where: The place that was asked, such as a hub address or a folder.
        reason: What that place answered.
        next_step: The ways out.
    """

    def __init__(self, what: str, *, where: str, reason: str, next_step: str) -> None:
        super().__init__(f"{what} could not be had from {where}: {reason}", next_step=next_step)
        self.what = what
        self.where = where
        self.reason = reason


class DiskError(InputError):
    """The operating system refused a read or a write (no space, no permission, read-only)."""


class ResumeRefused(InputError):
    """A run cannot go on from its checkpoint, or not as it would have gone without a stop."""


class ReloadMismatch(FtcheckError):
    """What was loaded again does not compute what was trained.

    Args:
        difference: Largest absolute difference of the logits.
        tolerance: The largest difference that would have passed.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, difference: float, tolerance: float, next_step: str
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.difference = difference
        self.tolerance = tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a recipe.

    Attributes:
        file: The recipe file as the user named it.
        line: 1-based line of the key, or `None` where no line can be named.
        key: `section.key`, a section, or an empty string for the file as a whole.
        text: What was found and what was expected.
        hint: The nearest known name or another next step; may be empty.
    """

    file: str
    line: int | None
    key: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [place, *([self.key] if self.key else []), self.text]
        return ": ".join(parts) + (f" {self.hint}" if self.hint else "")


class RecipeError(InputError):
    """A recipe that cannot be used; carries every problem that was found, in file order.

    Args:
        problems: At least one problem.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a RecipeError needs at least one problem")
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it came from: a library may have wrapped the one that says why."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
