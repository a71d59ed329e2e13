"""What every test stands on: no network, no GPU unless asked for, one thread, caches of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before any library is imported: they read these once. Subprocesses of tests inherit them.
_CACHE = tempfile.TemporaryDirectory(prefix="ftcheck-tests-")
os.environ.update(
    HF_HOME=str(Path(_CACHE.name) / "hf"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)


def pytest_configure(config: pytest.Config) -> None:
    """Hide the cards from tests that did not ask for one."""
    if config.getoption("markexpr", "") not in ("gpu", "gpu or slow"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """A folder of the whole test process, for what is expensive to make."""
    with tempfile.TemporaryDirectory(prefix="ftcheck-session-") as folder:
        yield Path(folder)
