"""What the controller does with what tests told: the summary, the report file."""

from __future__ import annotations

import pytest

from ftcheck.pytest_plugin.gpu_summary import left_behind, on_the_virtual_gpu
from ftcheck.pytest_plugin.state import RESULTS, Results

__all__ = ["Controller"]


class Controller:
    """Registered where results come together: the only process, or that which has workers.

    Args:
        config: Of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results = config.stash[RESULTS] = Results()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.results.take(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        told = self.results.told
        unmeasured = [
            f"{report.nodeid}: {told.get(report.nodeid, {}).get('reason', '')}"
            for report in terminalreporter.stats.get("unmeasured", [])
        ]
        for title, lines in (
            ("ftcheck: on the virtual GPU", list(on_the_virtual_gpu(told))),
            ("ftcheck: memory that tests left on the card", list(left_behind(told))),
            ("ftcheck: not measured, so not passed", unmeasured),
        ):
            if lines:
                terminalreporter.section(title, sep="-")
                for line in lines:
                    terminalreporter.line(line)
