"""Real cards under xdist: one each by turns, and one test at a time on each."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ftcheck.pytest_plugin.state import is_worker

__all__ = ["card_of", "lock_of", "take_turn", "visible_cards"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_cards(environ: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Cards that this process may use, without asking CUDA, which would make a context.

    Returns:
        What to write into `CUDA_VISIBLE_DEVICES`; empty where nothing is known.
    """
    if _VISIBLE in environ:
        return [name.strip() for name in environ[_VISIBLE].split(",") if name.strip()]
    nodes = [node for node in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", node.name)]
    return [str(number) for number in range(len(nodes))]


def card_of(worker: str, cards: list[str]) -> str | None:
    """The card of a worker such as `gw3`; `None` where there is no choice."""
    number = re.search(r"\d+$", worker)
    if len(cards) < 2 or number is None:
        return None
    return cards[int(number[0]) % len(cards)]


def take_turn(environ: MutableMapping[str, str]) -> None:
    """Let a worker see its card alone; call it before anything asks CUDA."""
    card = card_of(environ.get("PYTEST_XDIST_WORKER", ""), visible_cards(environ))
    if card is not None:
        environ[_VISIBLE] = card


def lock_of(config: pytest.Config) -> AbstractContextManager[object]:
    """Held while a test is on the card, where workers may share it."""
    if not is_worker(config):
        return contextlib.nullcontext()
    from filelock import FileLock

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    card = re.sub(r"\W", "-", os.environ.get(_VISIBLE, "0"))
    return FileLock(Path(tempfile.gettempdir()) / f"ftcheck-{run}-card-{card}.lock")
