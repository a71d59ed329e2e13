"""Peaks of many tests come together on the controller, which compares, records and fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

OURS = ("-p", "ftcheck.pytest_plugin.plugin")
"""Other plugins stay out, for they take longer to start than these tests to run."""
PLAIN = (*OURS, "-p", "no:cacheprovider")
TELLING = """\
import json
from pathlib import Path

import pytest
from ftcheck.pytest_plugin.benchmarks import tell_asked, tell_benchmark

@pytest.fixture
def told(request):
    "The recording function of vram_benchmark, with figures from a file."
    tell_asked(request.node)
    def tell(name):
        figures = json.loads(Path("figures.json").read_text())[name]
        return tell_benchmark(request.node, **{"kind": "predicted", "card": "L4", **figures})
    return tell
"""
TESTS = """\
import pytest

@pytest.mark.parametrize("name", {names!r})
def test_step(told, name):
    told(name)
"""
UPDATE = ("--ftcheck-baseline=b.json", "--ftcheck-update-baseline")
GATE = ("--ftcheck-baseline=b.json", "--ftcheck-compare-fail=allocated:2%,reserved:64MiB")
MIB = 2**20


class Suite:
    """A suite whose tests tell figures."""

    def __init__(self, pytester: pytest.Pytester, names: list[str]) -> None:
        self.pytester = pytester
        self.names = names
        self.figures: dict[str, dict[str, Any]] = {}
        for name in names:
            self.now(name)
        pytester.makeconftest(TELLING)
        pytester.makepyfile(test_peaks=TESTS.format(names=names))

    def now(self, name: str, allocated: float = 100 * MIB, **figures: Any) -> None:
        """What a test tells from here on."""
        self.figures[name] = {
            "allocated_bytes": [allocated, allocated],
            "reserved_bytes": [200 * MIB, 200 * MIB],
            **figures,
        }
        (self.pytester.path / "figures.json").write_text(json.dumps(self.figures))

    def run(self, *arguments: str, status: int = 0) -> pytest.RunResult:
        """Run it, with xdist in processes of its own, and see to the exit status."""
        if "-n" in arguments:
            found = self.pytester.runpytest_subprocess(*PLAIN, "-p", "xdist.plugin", *arguments)
        else:
            found = self.pytester.runpytest_inprocess(*PLAIN, *arguments)
        assert found.ret == status, found.stdout.str() + found.stderr.str()
        return found

    @property
    def file(self) -> Path:
        """The baseline."""
        return self.pytester.path / "b.json"

    def recorded(self) -> dict[str, Any]:
        """Tests of the baseline."""
        peaks: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))["peaks"]
        return peaks


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no plugin that is not named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """A suite of two tests."""
    return Suite(pytester, ["a", "b"])


def test_the_table(suite: Suite) -> None:
    suite.now("a", budget="8 GiB reserved")
    suite.now("b", kind="measured", card="NVIDIA L4", seconds=0.25)
    found = suite.run()
    found.stdout.fnmatch_lines(
        [
            "*- ftcheck: VRAM benchmarks -*",
            "measured on NVIDIA L4:",
            "  *allocated    reserved     time",
            "  test_peaks.py::test_step[[]b]  100.00 MiB  200.00 MiB  0.250 s",
            "predicted for L4:",
            "  *allocated    reserved          budget",
            "  test_peaks.py::test_step[[]a]  100.00 MiB  200.00 MiB  8 GiB reserved",
        ],
        consecutive=False,
    )


def test_recorded_and_compared(suite: Suite) -> None:
    found = suite.run(*UPDATE)
    found.stdout.fnmatch_lines(["2 of 2 benchmarks recorded in b.json"])
    assert list(suite.recorded()) == ["test_peaks.py::test_step[a]", "test_peaks.py::test_step[b]"]
    suite.now("a", 102 * MIB)
    suite.now("b", 50 * MIB)
    found = suite.run(*GATE)
    found.stdout.fnmatch_lines(["*[[]a]  102.00 MiB   +2.0 %*  =", "*[[]b]*50.00 MiB  -50.0 %*"])
    suite.now("a", 102 * MIB + 1)
    found = suite.run(*GATE, status=1)
    found.stdout.fnmatch_lines(
        [
            "The gate failed:",
            "*[[]a]: allocated grew by 2.00 MiB (+2.0 %), from 104,857,600 to "
            "106,954,753 bytes; 2% is allowed.",
            "To record what *is meant to be more, run pytest *",
        ]
    )


def test_the_other_kind_is_beside(suite: Suite) -> None:
    suite.now("a", 97 * MIB)
    suite.run(*UPDATE)
    suite.now("a", 98 * MIB, kind="measured", card="NVIDIA L4")
    found = suite.run("--ftcheck-baseline=b.json", "-k", "[a]")
    found.stdout.fnmatch_lines(
        [
            "  *allocated  predicted  *reserved   predicted",
            "  *  98.00 MiB  97.00 MiB  200.00 MiB  200.00 MiB",
            "  predicted, as the baseline has it: predicted for L4",
        ]
    )


def test_versions_that_differ_are_said(suite: Suite) -> None:
    suite.run(*UPDATE)
    text = suite.file.read_text(encoding="utf-8")
    plain = json.loads(text)
    torch = plain["peaks"]["test_peaks.py::test_step[a]"][0]["versions"]["torch"]
    suite.file.write_text(text.replace(f'"{torch}"', '"1.0"'), encoding="utf-8")
    found = suite.run(*GATE)
    found.stdout.fnmatch_lines([f"  2 of 2 compared across versions: torch 1.0 → {torch}"])
    suite.run(*UPDATE)
    assert all(len(entries) == 2 for entries in suite.recorded().values())


@pytest.mark.parametrize("other", [{"card": "H100"}, {"kind": "measured"}])
def test_a_baseline_of_something_else_does_not_pass(suite: Suite, other: dict[str, Any]) -> None:
    suite.run(*UPDATE)
    before = suite.recorded()
    suite.now("a", **other)
    found = suite.run(*GATE, status=1)
    found.stdout.fnmatch_lines(
        [
            "*[[]a]: what the baseline has of it (predicted for L4) cannot be compared with *",
            "To record what is missing, * run pytest --ftcheck-baseline=b.json --ftcheck-update-*",
        ]
    )
    suite.run(*UPDATE)
    after = suite.recorded()
    assert len(after["test_peaks.py::test_step[a]"]) == 2
    assert before["test_peaks.py::test_step[a]"][0] in after["test_peaks.py::test_step[a]"]


def test_no_baseline_does_not_pass(suite: Suite) -> None:
    found = suite.run(*GATE, status=1)
    found.stdout.fnmatch_lines(
        ["*[[]a]: the baseline has nothing of it.", "To record what is missing, *"]
    )
    assert not suite.file.exists()


@pytest.mark.parametrize("extra", [(), ("-n", "2")])
def test_a_gate_that_measured_nothing_does_not_pass(suite: Suite, extra: tuple[str, ...]) -> None:
    suite.run(*UPDATE)
    suite.pytester.makepyfile(test_other="def test_x(): pass")
    found = suite.run(*GATE, "test_other.py", *extra, status=1)
    found.stdout.fnmatch_lines(["No test used vram_benchmark, so nothing was compared."])
    suite.run(*GATE, "-k", "nothing_is_called_so", *extra, status=1)
    suite.run(*GATE, "test_other.py", "--collect-only")
    suite.run(*GATE, "--fixtures")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def test_x(told): pass", "asked for vram_benchmark and measured nothing."),
        ("def test_x(told): assert 0", "asked for vram_benchmark and measured nothing."),
        ("@pytest.mark.skip\ndef test_x(told): told('a')", "skipped before anything *"),
        ("@pytest.fixture\ndef x(): 1/0\ndef test_x(x, told): told('a')", "failed before any*"),
    ],
)
def test_what_was_not_measured_does_not_pass(
    suite: Suite, pytester: pytest.Pytester, body: str, said: str
) -> None:
    pytester.makepyfile(test_x="def test_x(told): told('a')")
    suite.run(*UPDATE)
    pytester.makepyfile(test_x=f"import pytest\n{body}")
    found = suite.run(*GATE, status=1)
    found.stdout.fnmatch_lines([f"test_x.py::test_x: {said}"])


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"allocated_bytes": [float("nan")] * 2}, "*: allocated: got nan, expected a whole *"),
        ({"reserved_bytes": [0, 0]}, "*: reserved: got 0, expected a whole number of bytes over*"),
        ({"allocated_bytes": [1000, 1001]}, "*: allocated does not repeat: got from 1,000 to*"),
    ],
)
def test_what_is_no_figure_is_not_recorded(
    suite: Suite, figures: dict[str, Any], said: str
) -> None:
    suite.now("a", **figures)
    found = suite.run(*UPDATE, status=1)
    found.stdout.fnmatch_lines(["1 of 2 benchmarks recorded*", "The recording failed:", said])
    assert list(suite.recorded()) == ["test_peaks.py::test_step[b]"]


def test_what_failed_is_not_recorded(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_x(told):\n    told('a')\n    assert 0")
    found = suite.run(*UPDATE, status=1)
    found.stdout.fnmatch_lines(["test_x.py::test_x: failed, so its peaks do not count."])
    assert len(suite.recorded()) == 2


def test_recording_sets_the_gate_aside(suite: Suite) -> None:
    suite.run(*UPDATE)
    suite.now("a", 200 * MIB)
    found = suite.run(*UPDATE, *GATE[1:])
    found.stdout.fnmatch_lines(
        ["*2 of 2 benchmarks recorded*; --ftcheck-compare-fail was not app*"]
    )
    suite.run(*GATE)


def test_recording_nothing_does_not_pass(suite: Suite) -> None:
    found = suite.run(*UPDATE, "-k", "nothing_is_called_so", status=1)
    found.stdout.fnmatch_lines(["No test used vram_benchmark, so nothing was recorded."])
    suite.run(*UPDATE, "--collect-only")
    assert not suite.file.exists()


def test_a_changed_tree_is_refused_before_any_test(suite: Suite) -> None:
    git(suite, "init", "-q")
    git(suite, "add", ".")
    git(suite, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x")
    suite.run(*UPDATE, "-p", "no:pycache")
    suite.pytester.makepyfile(test_more="def test_x(): pass")
    found = suite.run(*UPDATE, status=4)
    found.stderr.fnmatch_lines(["ERROR: * not committed (test_more.py)*", "Commit them, or *"])
    assert "passed" not in found.stdout.str()
    suite.run(*UPDATE, "--collect-only")
    suite.run(*GATE)


def test_a_tree_that_changed_meanwhile_is_refused(suite: Suite) -> None:
    git(suite, "init", "-q")
    suite.pytester.makepyfile(
        test_x="def test_x(told):\n    told('a')\n    open('new.py', 'w').close()"
    )
    git(suite, "add", ".")
    git(suite, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x")
    found = suite.run(*UPDATE, status=1)
    found.stdout.fnmatch_lines(["The recording failed:", "* not committed (new.py)*"])
    assert not suite.file.exists()


def git(suite: Suite, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=suite.pytester.path, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ftcheck-update-baseline",), "--ftcheck-update-baseline needs a file."),
        (("--ftcheck-compare-fail=allocated:1%",), "--ftcheck-compare-fail needs a file."),
        (("--ftcheck-baseline=",), "--ftcheck-baseline: got '', expected the name of a file"),
        ((GATE[0], "--ftcheck-compare-fail="), "--ftcheck-compare-fail: got '', expected *"),
        ((GATE[0], "--ftcheck-compare-fail=card:1%"), "--ftcheck-compare-fail: got 'card:1%'*"),
        (("--ftcheck-baseline=bad.json",), "*bad.json:1: got expecting value, expected JSON"),
    ],
)
@pytest.mark.parametrize("extra", [(), ("-n", "2")])
def test_options_that_are_wrong(
    suite: Suite, arguments: tuple[str, ...], said: str, extra: tuple[str, ...]
) -> None:
    (suite.pytester.path / "bad.json").write_text("<<<<", encoding="utf-8")
    found = suite.run(*arguments, *extra, status=4)
    found.stderr.fnmatch_lines([f"ERROR: {said}"])


def test_an_ini_file_names_the_baseline_from_its_own_folder(suite: Suite) -> None:
    suite.pytester.makeini(
        "[pytest]\nftcheck_baseline = b.json\nftcheck_compare_fail = reserved:0%"
    )
    (suite.pytester.path / "sub").mkdir()
    suite.run("--rootdir=.", "--ftcheck-update-baseline")
    assert suite.file.is_file()
    suite.run()
    suite.now("a", reserved_bytes=[300 * MIB] * 2)
    suite.run(status=1)


def test_a_disk_that_refuses_fails_the_session(suite: Suite) -> None:
    found = suite.run("--ftcheck-baseline=/proc/b.json", "--ftcheck-update-baseline", status=1)
    found.stdout.fnmatch_lines(["The recording failed:", "/proc/b.json cannot be written: *"])
    found.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_a_cleared_cache_changes_nothing(suite: Suite) -> None:
    pytester = suite.pytester
    pytester.runpytest_inprocess(*OURS, *UPDATE)
    suite.now("a", 110 * MIB)
    for extra in ((), ("--cache-clear",)):
        found = pytester.runpytest_inprocess(*OURS, *GATE, *extra)
        assert found.ret == 1
        found.stdout.fnmatch_lines(["*[[]a]: allocated grew by 10.00 MiB (+10.0 %)*"])


def test_failed_tests_keep_their_status(suite: Suite, pytester: pytest.Pytester) -> None:
    suite.run(*UPDATE)
    pytester.makepyfile(test_x="import pytest\ndef test_x(): pytest.exit('stop', 7)")
    suite.run(*GATE, status=7)


@pytest.mark.slow
def test_200_benchmarks_of_four_workers(pytester: pytest.Pytester) -> None:
    names = [f"n{number}" for number in range(200)]
    suite = Suite(pytester, names)
    for number, name in enumerate(names):
        suite.now(name, (100 + number) * MIB)
    suite.run(*UPDATE, "-n", "4")
    recorded = suite.recorded()
    assert len(recorded) == 200
    for number, name in enumerate(names):
        (one,) = recorded[f"test_peaks.py::test_step[{name}]"]
        assert one["allocated_bytes"] == (100 + number) * MIB
    text = suite.file.read_bytes()
    suite.run(*UPDATE)  # without workers: the same tests, the same file
    assert suite.file.read_bytes() == text
    for name in names:
        suite.now(name, 1000 * MIB)
    found = suite.run(*GATE, "-n", "4", status=1)
    assert found.stdout.str().count(": allocated grew by ") == 200


def test_groups_of_xdist_are_no_part_of_a_test(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="import pytest\n@pytest.mark.xdist_group('g')\ndef test_x(told): told('a')"
    )
    suite.run(*UPDATE, "-n", "2", "--dist", "loadgroup")
    assert "test_x.py::test_x" in suite.recorded()
    suite.run(*GATE)
    pytester.makepyfile(
        test_x="import pytest\n@pytest.mark.xdist_group('g')\n@pytest.mark.skip\ndef test_x(): 0"
    )
    found = suite.run(*GATE, "-n", "2", "--dist", "loadgroup", status=1)
    found.stdout.fnmatch_lines(["test_x.py::test_x*: skipped before anything was measured*"])


def test_without_the_plugin_nothing_is_read(pytester: pytest.Pytester) -> None:
    (pytester.path / "b.json").write_text("<<<<", encoding="utf-8")
    pytester.makeini("[pytest]\nftcheck_baseline = b.json")
    pytester.makepyfile(test_other="def test_x(): pass")
    assert pytester.runpytest_inprocess(*PLAIN).ret == 4
    found = pytester.runpytest_inprocess(*PLAIN, "-p", "no:ftcheck.pytest_plugin.plugin")
    found.assert_outcomes(passed=1)
