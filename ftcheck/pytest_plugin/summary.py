"""What the controller does with what tests told: the summary, the report file."""

from __future__ import annotations

import pytest

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
        unmeasured = terminalreporter.stats.get("unmeasured", [])
        if not unmeasured:
            return
        terminalreporter.section("ftcheck: not measured, so not passed", sep="-")
        for report in unmeasured:
            reason = self.results.told.get(report.nodeid, {}).get("reason", "")
            terminalreporter.line(f"{report.nodeid}: {reason}")
