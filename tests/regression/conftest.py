"""What one test leaves in the process is not there for the next."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """`TrainingArguments` of transformers 4 leave theirs in the environment."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
