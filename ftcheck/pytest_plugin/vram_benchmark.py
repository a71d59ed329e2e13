"""The fixture `vram_benchmark`: peak memory of a function, and on a card its time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest

from ftcheck.errors import FtcheckError
from ftcheck.pytest_plugin.benchmarks import tell_asked, tell_benchmark
from ftcheck.pytest_plugin.meter import Measurement, Vram
from ftcheck.pytest_plugin.requirements import budgets_of

__all__ = ["VramBenchmark"]

T = TypeVar("T")


class VramBenchmark:
    """Benchmarks one function of a test: `vram_benchmark(step, batch)`.

    A card that has warmed up is measured, so that calls can be equal: what the function keeps
    (gradients, the state of an optimizer) is there from the second call on. A baseline is recorded
    only where they are.

    Args:
        vram: The meter.
        request: Of the test.

    Attributes:
        warm_ups: Calls before those that are measured.
        calls: Calls that are measured, 1 or more; what is to be recorded needs 2.
    """

    def __init__(self, vram: Vram, request: pytest.FixtureRequest) -> None:
        self.warm_ups = 1
        self.calls = 2
        self._vram = vram
        self._request = request
        self._used = False
        tell_asked(request.node)

    def __call__(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function some times, and tell its peaks to the summary, the gate and the baseline.

        On a card its time is taken, too: by pytest-benchmark where that is active, whose JSON has
        the peaks in `extra_info`; else over the measured calls. On the virtual GPU time means
        nothing.

        Args:
            function: Calls must be alike.
            args: Its arguments.
            kwargs: The same.

        Returns:
            What its last call returned.

        Raises:
            FtcheckError: The test has benchmarked already, or `calls` is none.
        """
        __tracebackhide__ = True
        if self._used:
            raise FtcheckError(
                "vram_benchmark was called twice in a test, which has one line in a baseline.",
                next_step="Make it two tests, or one function that does both.",
            )
        if self.calls < 1:
            raise FtcheckError(f"vram_benchmark.calls: got {self.calls}, expected 1 or more.")
        self._used = True
        timer = self._timer()

        def call() -> T:
            __tracebackhide__ = True
            result = function(*args, **kwargs)
            self._wait()
            return result

        for _ in range(self.warm_ups):
            call()
        peaks, seconds = [], []
        for _ in range(self.calls):
            result = None  # that of the call before would be counted, as what waits in cycles
            gc.collect()
            with self._vram.measure() as found:
                started = time.perf_counter()
                result = call()
                seconds.append(time.perf_counter() - started)
            peaks.append(found)
        if timer is not None:
            result = timer(call)
        self._tell(peaks, seconds, timer)
        return cast(T, result)

    def _timer(self) -> Any:
        """The fixture of pytest-benchmark, where it times anything here."""
        plugins = self._request.config.pluginmanager
        if self._vram.gpu.kind != "cuda" or not plugins.has_plugin("benchmark"):
            return None
        benchmark = self._request.getfixturevalue("benchmark")
        return benchmark if benchmark.enabled else None

    def _wait(self) -> None:
        """For what the card has still to do."""
        if self._vram.gpu.kind == "cuda":
            import torch

            torch.cuda.synchronize()

    def _tell(self, peaks: list[Measurement], seconds: list[float], timer: Any) -> None:
        took = None
        if timer is not None:
            took = float(timer.stats["median"])
        elif self._vram.gpu.kind == "cuda":
            took = statistics.median(seconds)
        facts = tell_benchmark(
            self._request.node,
            kind=self._vram.gpu.how,
            card=self._vram.gpu.name,
            allocated_bytes=[found.allocated_peak_bytes for found in peaks],
            reserved_bytes=[found.reserved_peak_bytes for found in peaks],
            seconds=took,
            budget=", ".join(f"{one.text} {one.of}" for one in budgets_of(self._request.node)),
        )
        if timer is not None:
            timer.extra_info["vram"] = facts
