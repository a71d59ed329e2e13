"""GPU tests on a real card: one at a time on each, and what they leave behind."""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any

import pytest

from ftcheck.pytest_plugin.devices import HANDLE
from ftcheck.pytest_plugin.requirements import is_gpu_test
from ftcheck.pytest_plugin.sharing import lock_of
from ftcheck.pytest_plugin.state import tell

__all__ = ["OnCuda"]


class OnCuda:
    """Parts tests on a card from one another.

    Args:
        config: Of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._before = 0
        self._kept = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Have the card alone."""
        if not is_gpu_test(item):
            return (yield)
        with lock_of(self._config):
            self._before, self._kept = self._allocated(), 0
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        """What a fixture of a wider scope puts on the card is meant to stay."""
        before = self._allocated()
        made = yield
        if fixturedef.scope != "function":
            self._kept += max(0, self._allocated() - before)
        return made

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Tell what the test left behind, and give back what nobody uses."""
        ended = yield
        if is_gpu_test(item) and HANDLE in self._config.stash:
            gc.collect()
            left = self._allocated() - self._before - self._kept
            if left > 0:
                tell(item, {"left_bytes": left})
            self._config.stash[HANDLE].empty_cache()
        return ended

    def _allocated(self) -> int:
        if HANDLE not in self._config.stash:
            return 0
        return self._config.stash[HANDLE].allocated_bytes
