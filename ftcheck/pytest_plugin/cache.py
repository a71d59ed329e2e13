"""What is built once a session, for all workers: files under one lock each."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftcheck.errors import FtcheckError
from ftcheck.files import write_bytes
from ftcheck.pytest_plugin.state import is_worker

__all__ = ["BuildFailed", "SessionCache"]


class BuildFailed(FtcheckError):
    """Something that tests share could not be built; each of them is told the same."""


class SessionCache:
    """Values by key, kept in files that the workers of a session share.

    A value is made by the first that asks for it; the others wait. So is a failure: nobody tries
    again what failed once.

    Args:
        folder: Of this session; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, request: pytest.FixtureRequest) -> SessionCache:
        """The cache of the session that a test runs in."""
        base: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
        return cls((base.parent if is_worker(request.config) else base) / "ftcheck")

    def get(self, key: object, make: Callable[[Path], Any]) -> Any:
        """The value of a key.

        Args:
            key: Its `repr` decides.
            make: Gets an empty folder that stays for the session, and returns something picklable.

        Raises:
            BuildFailed: `make` raised a `FtcheckError`, now or for another test.
        """
        from filelock import FileLock

        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        answer = self.folder / f"{name}.pickle"
        with FileLock(self.folder / f"{name}.lock"):
            if not answer.exists():
                place = self.folder / name
                place.mkdir(exist_ok=True)
                write_bytes(answer, pickle.dumps(_made(make, place)))
        found = pickle.loads(answer.read_bytes())  # noqa: S301 - a worker of this session wrote it
        if isinstance(found, _Failure):
            raise BuildFailed(found.message, next_step=found.next_step)
        return found


class _Failure:
    def __init__(self, error: FtcheckError) -> None:
        self.message, self.next_step = error.message, error.next_step


def _made(make: Callable[[Path], Any], place: Path) -> Any:
    try:
        return make(place)
    except FtcheckError as error:
        return _Failure(error)
