"""What can go wrong on the virtual GPU, or with the child process that holds it."""

from __future__ import annotations

import re
from typing import ClassVar

from ftcheck.errors import FtcheckError, chain

__all__ = ["ChildDied", "ChildFailed", "ChildTimedOut", "Unmeasured"]

_FRAME = re.compile(r'  File ".+", line \d+, in ')


class Unmeasured(FtcheckError):
    """The virtual GPU cannot run something, so there is no number.

    Args:
        what: The operation, library or feature by name, such as `aten::nonzero`.
        reason: Why it cannot be run, as a clause.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, reason: str, *, next_step: str = "") -> None:
        super().__init__(f"unmeasured: {what}: {reason}", next_step=next_step)
        self.what = what
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _unmeasured, (self.what, self.reason, self.next_step)

    @classmethod
    def within(cls, error: BaseException) -> Unmeasured | None:
        """What an error is or came from: a library may have wrapped it."""
        return next((one for one in chain(error) if isinstance(one, cls)), None)


def _unmeasured(what: str, reason: str, next_step: str) -> Unmeasured:
    return Unmeasured(what, reason, next_step=next_step)


class ChildFailed(FtcheckError):
    """The callable raised in the child.

    Args:
        kind: Name of the exception's class.
        text: Its message.
        traceback: The child's traceback, as text.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, kind: str, text: str, traceback: str) -> None:
        places = [line.strip() for line in traceback.splitlines() if _FRAME.match(line)]
        super().__init__(
            f"on the virtual GPU: {kind}: {text}",
            next_step=f"It was raised in {places[-1]}." if places else "",
        )
        self.kind = kind
        self.text = text
        self.traceback = traceback

    def __reduce__(self) -> tuple[object, ...]:
        return ChildFailed, (self.kind, self.text, self.traceback)


class ChildDied(FtcheckError):
    """The child ended without a result: killed, out of host memory, or crashed.

    Args:
        returncode: Exit status; negative is the number of the signal.
        stderr: The last lines that it wrote.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, returncode: int, stderr: str, next_step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.returncode = returncode
        self.stderr = stderr


class ChildTimedOut(FtcheckError):
    """The child was stopped because it took longer than it was given."""

    exit_code: ClassVar[int] = 3

    def __init__(self, timeout_s: float, phase: str) -> None:
        super().__init__(
            f"the virtual GPU was stopped after {timeout_s:g} s, in the phase {phase or 'start'}",
            next_step="Give it more time, fewer steps, or a smaller model.",
        )
        self.timeout_s = timeout_s
        self.phase = phase
