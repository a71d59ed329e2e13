"""One test on the virtual GPU: in a fork of the process of the tests, which gives its reports back.

The device type cannot be taken back, so every such test has a process of its own. It begins with
what the process of the tests has: modules, fixtures of wider scopes, options. What it makes is gone
when it ends: its function-scoped fixtures, and those of wider scopes that it made, are torn down in
it; those that it found are left to the process that made them.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final, Literal, NoReturn

import pytest

__all__ = ["run_apart"]

_KIN: Final = (
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "transformers.trainer",
)
"""Slow to import; once a test has imported one of them, the others get it from its parent."""
_DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl.h
_GRACE_S: Final = 5.0


@dataclass(slots=True)
class Answer:
    """What a fork has to say.

    Attributes:
        reports: Of setup, call and teardown, as pytest sends them.
        warned: Text, category, file and line.
        imported: Those of the slow modules that it has.
        left: How it asked the session to end: by Ctrl-C, or by `pytest.exit` with these words.
        status: The exit status that came with these.
    """

    reports: list[dict[str, Any]] = field(default_factory=list)
    warned: list[tuple[str, type[Warning], str, int]] = field(default_factory=list)
    imported: tuple[str, ...] = ()
    left: Literal["", "interrupted", "exit"] = ""
    words: str = ""
    status: int | None = None


def run_apart(
    item: pytest.Item,
    nextitem: pytest.Item | None,
    *,
    begin: Callable[[], None],
    imports: set[str],
) -> None:
    """Run a test in a fork, and report what came of it.

    Args:
        item: The test.
        nextitem: That which comes after it.
        begin: Makes the virtual GPU; called in the fork.
        imports: Slow modules to import before it; those that the test imported are added.

    Raises:
        KeyboardInterrupt: As in any test.
        pytest.exit.Exception: The test called `pytest.exit`.
    """
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    _prepare(item.config, imports)
    started = time.time()
    with tempfile.TemporaryFile() as file:
        failure = _wait(_fork(item, begin, file))
        file.seek(0)
        packed = file.read()
    if failure or not packed:
        reports = [_failed(item, failure or "ended without a report", started)]
        answer = Answer()
    else:
        answer = pickle.loads(packed)  # noqa: S301 - our fork wrote it
        reports = [
            hook.pytest_report_from_serializable(config=item.config, data=data)
            for data in answer.reports
        ]
    imports.update(answer.imported)
    for text, category, source, line in answer.warned:
        warnings.warn_explicit(text, category, source, line)
    for report in [*reports, *_torn_down(item, nextitem)]:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if answer.left == "interrupted":
        raise KeyboardInterrupt
    if answer.left == "exit":
        pytest.exit(answer.words, answer.status)


# ------------------------------------------------------------------ in the process of the tests


def _prepare(config: pytest.Config, imports: set[str]) -> None:
    """Import what forks need, and make what they must share."""
    with _untimed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch", "ftcheck.vgpu.gpu", *sorted(imports)):
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None:  # else every fork makes a numbered folder, which nobody deletes
        factory.getbasetemp()


@contextlib.contextmanager
def _untimed() -> Iterator[None]:
    """Let a timer of the test stand still while something is done that is not the test's."""
    left = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)


def _fork(item: pytest.Item, begin: Callable[[], None], file: IO[bytes]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    item.config.get_terminal_writer().flush()
    drawn, left = random.getstate(), signal.getitimer(signal.ITIMER_REAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads that wait do not come along
        process = os.fork()
    if process:
        if left[0]:  # the fork has the timer now; this one is for a fork that does not hear it
            signal.setitimer(signal.ITIMER_REAL, left[0] + _GRACE_S, left[1])
        return process
    random.setstate(drawn)  # Python seeds it anew in every fork
    signal.setitimer(signal.ITIMER_REAL, *left)
    return _alone(item, begin, file)


def _wait(process: int) -> str:
    """Why there is no answer; empty where there is one."""
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    except KeyboardInterrupt:
        _end(process)
        raise
    except pytest.fail.Exception as error:  # a timer of pytest-timeout
        _end(process)
        return str(error)
    if status >= 0:
        return f"ended with exit status {status}" if status else ""
    return f"was ended by {signal.Signals(-status).name}"


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _failed(item: pytest.Item, failure: str, started: float) -> pytest.TestReport:
    """The report of a fork that gave none."""
    sections = []
    capture: Any = item.config.pluginmanager.get_plugin("capturemanager")
    if capture is not None:
        out, err = capture.read_global_capture()
        sections = [
            (f"Captured {name} call", text)
            for name, text in (("stdout", out), ("stderr", err))
            if text
        ]
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=f"{item.nodeid}: its process, which had the virtual GPU, {failure}",
        when="call",
        sections=sections,
        duration=time.time() - started,
        start=started,
        stop=time.time(),
        user_properties=item.user_properties,
    )


def _torn_down(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
    """Tear down what this process has and the next test does not need; report what went wrong."""
    runner: Any = item.config.pluginmanager.get_plugin("runner")
    call = pytest.CallInfo.from_call(
        lambda: runner.pytest_runtest_teardown(item=item, nextitem=nextitem),
        when="teardown",
        reraise=(pytest.exit.Exception, KeyboardInterrupt),
    )
    if call.excinfo is not None:
        report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
        yield report


# ------------------------------------------------------------------------------- in the fork


def _alone(item: pytest.Item, begin: Callable[[], None], file: IO[bytes]) -> NoReturn:
    """Run the test, write the answer, and leave without the interpreter's farewell.

    At exit torch destroys storages of a device whose guard is written in Python, which ends in
    "terminate called"; and handlers of the parent's are not ours to run.
    """
    status = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        answer = _answer(item, begin)
        _save_coverage()
        file.write(pickle.dumps(answer))
        file.flush()
        status = 0
    except BaseException:  # noqa: BLE001 - the parent reads what is written
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr, item.config.get_terminal_writer()):
            stream.flush()
        os._exit(status)


def _answer(item: pytest.Item, begin: Callable[[], None]) -> Answer:
    answer = Answer()
    with warnings.catch_warnings(record=True) as warned:
        try:
            for report in _Phases(item, begin).run():
                answer.reports.append(
                    item.config.hook.pytest_report_to_serializable(
                        config=item.config, report=report
                    )
                )
        except KeyboardInterrupt:
            answer.left = "interrupted"
        except pytest.exit.Exception as error:
            answer.left, answer.words, answer.status = "exit", error.msg, error.returncode
    answer.imported = tuple(name for name in _KIN if name in sys.modules)
    answer.warned = [
        (str(one.message), _known(one.category), one.filename, one.lineno) for one in warned
    ]
    return answer


def _known(category: type[Warning]) -> type[Warning]:
    """The category, or what of it the parent knows."""
    try:
        pickle.dumps(category)
    except (pickle.PicklingError, AttributeError):
        return next(kind for kind in category.__mro__ if kind.__module__ == "builtins")
    return category


class _Phases:
    """Setup, call and teardown, as pytest runs them."""

    def __init__(self, item: pytest.Item, begin: Callable[[], None]) -> None:
        self.item = item
        self.begin = begin
        self.made: list[tuple[Any, pytest.FixtureRequest]] = []

    def run(self) -> Iterator[pytest.TestReport]:
        item, hook = self.item, self.item.ihook
        item.config.pluginmanager.register(self, "ftcheck-phases")
        setup = self._phase("setup", lambda: hook.pytest_runtest_setup(item=item))
        yield setup
        if setup.passed and not item.config.getoption("setuponly", False):
            yield self._phase("call", lambda: hook.pytest_runtest_call(item=item))
        yield self._phase("teardown", self._tear_down)

    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> None:
        """Note what was made here."""
        if fixturedef.scope != "function":
            self.made.append((fixturedef, request))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Make the virtual GPU, before anything looks for it."""
        import torch

        torch.set_num_threads(1)  # threads of OpenMP did not come along
        with _untimed():
            self.begin()

    def _tear_down(self) -> None:
        """All that was made here, and nothing else: the next test is the parent's."""
        self.item.ihook.pytest_runtest_teardown(item=self.item, nextitem=self.item.parent)
        for fixturedef, request in reversed(self.made):
            fixturedef.finish(request)

    def _phase(
        self, when: Literal["setup", "call", "teardown"], run: Callable[[], None]
    ) -> pytest.TestReport:
        item, hook = self.item, self.item.ihook
        leaving: tuple[type[BaseException], ...] = (pytest.exit.Exception,)
        if not item.config.getoption("usepdb", False):
            leaving += (KeyboardInterrupt,)
        call = pytest.CallInfo.from_call(run, when=when, reraise=leaving)
        report: pytest.TestReport = hook.pytest_runtest_makereport(item=item, call=call)
        if call.excinfo is not None and report.failed:
            hook.pytest_exception_interact(node=item, call=call, report=report)
        return report


def _save_coverage() -> None:
    """Let coverage.py keep what it saw; it makes a file of its own in a fork."""
    coverage: Any = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is not None:
        current.stop()
        current.save()
