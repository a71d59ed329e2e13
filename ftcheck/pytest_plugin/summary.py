"""What the controller does with what tests told: the summary, the report file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ftcheck.pytest_plugin.gpu_summary import left_behind, on_the_virtual_gpu
from ftcheck.pytest_plugin.state import RESULTS, SETTINGS, Results

if TYPE_CHECKING:
    from ftcheck.pytest_plugin.vram_gate import VramGate

__all__ = ["Controller"]


class Controller:
    """Registered where results come together: the only process, or that which has workers.

    Args:
        config: Of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results = config.stash[RESULTS] = Results()
        self.report_file: Path | None = None
        self.refused = ""
        settings = config.stash[SETTINGS]
        if settings["report"]:
            from ftcheck.pytest_plugin import report_file

            folder = config.invocation_params.dir
            self.report_file = report_file.check_name(settings["report"], folder)
        self.gated = False
        if any(map(settings.__getitem__, ("baseline", "update-baseline", "compare-fail"))):
            self._gate()

    def _gate(self) -> VramGate:
        """Have benchmarks of VRAM listed, compared and recorded, from here on."""
        from ftcheck.pytest_plugin.vram_gate import VramGate

        gate = VramGate(self.config)
        self.config.pluginmanager.register(gate, "ftcheck-vram-gate")
        self.gated = True
        return gate

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.results.take(report)
        if not self.gated and "vram_benchmark" in self.results.told.get(report.nodeid, ()):
            gate = self._gate()
            gate.ran = True
            gate.pytest_runtest_logreport(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.report_file is None or session.config.option.collectonly:
            return
        from ftcheck.errors import DiskError
        from ftcheck.pytest_plugin import report_file

        try:
            report_file.write(self.report_file, self.results.told)
        except DiskError as error:
            self.refused = str(error)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.refused:
            terminalreporter.line(f"ftcheck: error: {self.refused}", red=True)
        elif self.report_file is not None:
            terminalreporter.line(f"ftcheck: wrote {self.report_file}")
        told = self.results.told
        if not told:
            return
        unmeasured = [report.nodeid for report in terminalreporter.stats.get("unmeasured", [])]
        for title, lines in (
            ("ftcheck: on the virtual GPU", list(on_the_virtual_gpu(told))),
            ("ftcheck: memory that tests left on the card", list(left_behind(told))),
            ("ftcheck: not measured, so not passed", list(_with_reasons(unmeasured, told))),
        ):
            if lines:
                terminalreporter.section(title, sep="-")
                for line in lines:
                    terminalreporter.line(line)


def _with_reasons(tests: Iterable[str], told: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Tests and why they were not measured; those of one file for one reason in one line."""
    together: dict[tuple[str, str], list[str]] = {}
    for test in tests:
        reason = told.get(test, {}).get("reason", "")
        together.setdefault((test.partition("::")[0], reason), []).append(test)
    for (file, reason), some in together.items():
        yield f"{some[0] if len(some) == 1 else f'{file}: {len(some)} tests'}: {reason}"
