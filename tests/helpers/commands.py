"""`ftcheck` in this process: its exit status and what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ftcheck.cli import _status

__all__ = ["assert_refused", "status_and_message"]


def status_and_message(
    capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str]:
    status = _status([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


def assert_refused(status: int, message: str, expected: str, folder: Path) -> None:
    assert status == 2, message
    assert re.search(
        re.escape(expected) if "(" in expected or "[" in expected else expected,
        " ".join(message.split()),
    ), message
    assert "Traceback" not in message
    assert message.count("ftcheck: error:") == 1
    left = {path.name for path in folder.rglob("*") if path.name.startswith((".", "runs"))}
    assert not left, "something was left half written"
