"""Files that are not where a script says, since what it saves goes beside."""

from __future__ import annotations

import builtins
import functools
import io
import os
from collections.abc import Callable
from typing import Any

__all__ = ["look_beside"]


def look_beside(where: Callable[[str], str]) -> None:
    """Let what is not there be looked for elsewhere; whatever is there is as it was.

    A script reads what it saved by `open`, `torch.load`, safetensors or `os.path`, too, and puts
    files of its own into the same folder.

    Args:
        where: Tells of a path that is not there where it is, or where it is to be made; itself for
            one that is nowhere.
    """
    import safetensors
    import safetensors.torch
    import torch

    busy = [False]

    def elsewhere(path: Any) -> Any:
        if busy[0] or not isinstance(path, (str, os.PathLike)) or not path:
            return path
        busy[0] = True  # asking looks at files, too
        try:
            return path if os.path.lexists(path) else where(os.fsdecode(path))
        finally:
            busy[0] = False

    for module, name in (
        (builtins, "open"),
        (io, "open"),
        (os, "listdir"),
        (os, "scandir"),
        (safetensors, "safe_open"),
        (safetensors.torch, "safe_open"),
        (torch, "load"),
    ):
        _answer(module, name, elsewhere, 0, "filename")
    _answer(torch, "save", elsewhere, 1, "f")
    _answer(safetensors.torch, "save_file", elsewhere, 1, "filename")
    _answer_stat(elsewhere)


def _answer(
    module: Any, name: str, elsewhere: Callable[[Any], Any], place: int, keyword: str
) -> None:
    """Let a function be given another path than the one it is called with."""
    inner = getattr(module, name)

    @functools.wraps(inner, updated=())
    def patched(*arguments: Any, **named: Any) -> Any:
        if len(arguments) > place:
            found = elsewhere(arguments[place])
            arguments = (*arguments[:place], found, *arguments[place + 1 :])
        elif keyword in named:
            named[keyword] = elsewhere(named[keyword])
        return inner(*arguments, **named)

    setattr(module, name, patched)
    _supports_the_same(inner, patched)


def _answer_stat(elsewhere: Callable[[Any], Any]) -> None:
    """The same of what `os.path` and `pathlib` ask, which comes often: only where it fails."""
    inner = os.stat

    @functools.wraps(inner)
    def stat(path: Any, **named: Any) -> os.stat_result:
        try:
            return inner(path, **named)
        except FileNotFoundError:
            found = path if named.get("dir_fd") is not None else elsewhere(path)
            if found is path:
                raise
            return inner(found, **named)

    os.stat = stat
    _supports_the_same(inner, stat)


def _supports_the_same(inner: Any, patched: Any) -> None:
    """`shutil` asks in these sets what a function of `os` takes."""
    for known in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
        if inner in known:
            known.add(patched)
