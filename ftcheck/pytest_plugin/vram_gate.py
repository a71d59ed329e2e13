"""What the controller does with peaks of memory: compare, record, and let the session fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ftcheck.errors import FtcheckError, InputError
from ftcheck.pytest_plugin.benchmarks import Benchmark, benchmark_of
from ftcheck.pytest_plugin.settings import Settings
from ftcheck.pytest_plugin.state import RESULTS, SETTINGS, told

if TYPE_CHECKING:
    from ftcheck.gate.baseline import Baseline, Entry
    from ftcheck.gate.growth import Limit
    from ftcheck.gate.recording import Repeats

__all__ = ["VramGate"]


class VramGate:
    """Registered where results come together. It says in the summary what it did, and why it fails.

    Args:
        config: Of the session.

    Raises:
        pytest.UsageError: Options that do not go together, a limit that is none, a baseline that
            cannot be read, or one that may not be recorded now.
    """

    def __init__(self, config: pytest.Config) -> None:
        settings = config.stash[SETTINGS]
        self.config = config
        self.updates: bool = settings["update-baseline"]
        self.file = _file_of(settings, config)
        self.baseline: Baseline | None = None
        self.limits: tuple[Limit, ...] = ()
        self.ran = False
        self.not_passed: dict[str, str] = {}
        self.lines: list[str] = []
        self.problems: list[str] = []
        try:
            self._read(settings)
        except InputError as error:
            raise pytest.UsageError(str(error)) from error

    def _read(self, settings: Settings) -> None:
        limits = settings["compare-fail"]
        if self.file is None:
            for option, given in (
                ("--ftcheck-update-baseline", self.updates),
                ("--ftcheck-compare-fail", limits is not None),
            ):
                if given:
                    raise InputError(
                        f"{option} needs a file.", next_step="Name it with --ftcheck-baseline=FILE."
                    )
            return
        from ftcheck.gate.baseline import Baseline

        self.baseline = Baseline.read(self.file)
        if limits is not None:
            from ftcheck.gate.growth import parse_limits

            try:
                self.limits = parse_limits(limits)
            except InputError as error:
                raise InputError(f"--ftcheck-compare-fail: {error}") from error
        if self.updates and not self.config.getoption("collectonly"):
            self._require_clean_tree()

    def _require_clean_tree(self) -> None:
        from ftcheck.gate.recording import require_clean_tree

        assert self.file is not None
        require_clean_tree(self.config.rootpath, self.file)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """From here on, a session that measures nothing is one that should have."""
        self.ran = not self.config.getoption("collectonly")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome in ("failed", "skipped"):
            outcome = str(told(report).get("status", report.outcome))
            self.not_passed.setdefault(report.nodeid, outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.ran:
            return
        found = {
            test: benchmark
            for test, facts in self.config.stash[RESULTS].told.items()
            if (benchmark := benchmark_of(facts)) is not None
        }
        if found:
            from ftcheck.pytest_plugin.vram_table import table

            self.lines = table(list(found.values()), self.baseline)
        if self.updates:
            self._record(found)
        elif self.limits:
            self.problems = list(self._gate(found))
        if self.problems and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _record(self, found: dict[str, Benchmark]) -> None:
        from ftcheck.gate.recording import entry_of, record

        assert self.file is not None
        if not found:
            self.problems.append("No test used vram_benchmark, so nothing was recorded.")
            return
        entries: list[Entry] = []
        for test, benchmark in found.items():
            try:
                entries.append(entry_of(self._repeats(test, benchmark), repeatable=True))
            except InputError as error:
                self.problems.append(str(error))
        try:
            self._require_clean_tree()
            if entries:
                record(self.file, entries)
        except FtcheckError as error:
            self.problems.append(str(error))
            return
        self.lines.append(
            f"{len(entries)} of {len(found)} benchmarks recorded in {self._shown}"
            + ("; --ftcheck-compare-fail was not applied" if self.limits else "")
        )

    def _gate(self, found: dict[str, Benchmark]) -> Iterator[str]:
        from ftcheck.gate.growth import problems_of
        from ftcheck.gate.recording import entry_of

        assert self.baseline is not None
        if not found:
            yield "No test used vram_benchmark, so nothing was compared."
        recordable = False
        for test, benchmark in found.items():
            try:
                entry = entry_of(self._repeats(test, benchmark), repeatable=False)
            except InputError as error:
                yield str(error)
                continue
            match = self.baseline.nearest(
                test=entry.test, kind=entry.kind, card=entry.card, versions=entry.versions
            )
            problems = problems_of(entry, match, self.baseline, self.limits)
            recordable |= bool(problems)
            yield from problems
        for test, outcome in self.not_passed.items():
            if test not in found and _ungrouped(test) & self.baseline.tests:
                yield f"{test}: {outcome} before anything was measured, and the baseline has it."
        if recordable:
            yield (
                "To record what is missing, or is meant to be more, run pytest "
                f"--ftcheck-baseline={self._shown} "
                "--ftcheck-update-baseline on this card, with everything committed, and commit "
                f"{self._shown}."
            )

    def _repeats(self, test: str, benchmark: Benchmark) -> Repeats:
        """The peaks of a test that passed."""
        if benchmark.repeats is None:
            raise InputError(f"{test}: asked for vram_benchmark and measured nothing.")
        if test in self.not_passed:
            raise InputError(f"{test}: {self.not_passed[test]}, so its peaks do not count.")
        return benchmark.repeats

    @property
    def _shown(self) -> str:
        """The file, as from where pytest began."""
        assert self.file is not None
        here = self.config.invocation_params.dir
        return str(self.file.relative_to(here) if self.file.is_relative_to(here) else self.file)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.lines and not self.problems:
            return
        terminalreporter.section("ftcheck: VRAM benchmarks", sep="-")
        for line in self.lines:
            terminalreporter.line(line)
        if self.problems:
            what = "recording" if self.updates else "gate"
            terminalreporter.line(f"The {what} failed:", red=True, bold=True)
        for problem in self.problems:
            terminalreporter.line(problem, red=True)


def _ungrouped(test: str) -> set[str]:
    """A test with and without the group that xdist may have added to its name."""
    return {test, test.rpartition("@")[0]}


def _file_of(settings: Settings, config: pytest.Config) -> Path | None:
    """The baseline: in the ini file from that on, else from where pytest began."""
    setting = settings.values["baseline"]
    if setting.value is None:
        return None
    if not setting.value:
        raise pytest.UsageError("--ftcheck-baseline: got '', expected the name of a file")
    ini = config.inipath.parent if config.inipath else config.rootpath
    base = ini if setting.source == "ini" else config.invocation_params.dir
    return Path(base / setting.value)
