"""Tests that were not written in Python: a file that holds a subject, and an item about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ftcheck.errors import FtcheckError
from ftcheck.pytest_plugin.words import FindingsFailed

__all__ = ["SubjectFile", "SubjectItem"]


class SubjectFile(pytest.File):
    """A file that holds a subject: a recipe, a script or a notebook."""


class SubjectItem(pytest.Function):
    """A test that was not written in Python: its place is in the subject, and so are its words."""

    @property
    def subject_file(self) -> SubjectFile:
        """The file that it is about."""
        return next(node for node in self.listchain() if isinstance(node, SubjectFile))

    @property
    def ftcheck_place(self) -> tuple[Path, int]:
        """File and 0-based line."""
        return self.subject_file.path, 0

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Where it stands, and its name."""
        path, line = self.ftcheck_place
        below = len(self.subject_file.listchain())
        return path, line, "::".join(node.name for node in self.listchain()[below:])

    def repr_failure(  # type: ignore[override]  # as pytest.Function has it
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> Any:
        """Words alone, where the error is meant for people; paths as from where pytest began."""
        if isinstance(excinfo.value, (FindingsFailed, FtcheckError)):
            return self.words(str(excinfo.value))
        return super().repr_failure(excinfo)

    def words(self, text: str) -> str:
        """A text with its paths as from where pytest began."""
        return text.replace(f"{self.config.invocation_params.dir}{os.sep}", "")
