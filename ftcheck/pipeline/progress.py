"""Where a run says what it does while it runs."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Where a run says what it does."""

    def stage(self, text: str) -> None:
        """A step of the pipeline begins."""

    def steps(self, done: int, total: int, loss: float | None) -> None:
        """Optimizer steps done of all, with the last logged loss."""

    def note(self, text: str) -> None:
        """Something that the reader should know now."""


class Silent:
    """Says nothing."""

    def stage(self, text: str) -> None:
        """Says nothing."""

    def steps(self, done: int, total: int, loss: float | None) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""
