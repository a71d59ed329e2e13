"""GPU tests are known by their markers and fixtures, and run where they are told to."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftcheck.pytest_plugin.sharing import card_of, take_turn, visible_cards

pytest_plugins = ["pytester"]

PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider")
FOUR_KINDS = """
import pytest

@pytest.mark.gpu
def test_marked(): pass

@pytest.mark.vram_budget("1 GiB")
def test_budget(): pass

def test_fixture(gpu): pass

def test_meter(vram): pass

def test_plain(): pass
"""
TWO = """
import os
import pytest

def test_first(gpu):
    import torch
    assert torch.ones(2, 3, device=gpu.device).shape == (2, 3)

def test_second(gpu):
    assert gpu.kind == "cuda"

def test_third():
    assert True
"""


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    """Run a module of tests in a process of its own."""
    pytester.makepyfile(test_inner=source)
    return pytester.runpytest_subprocess(*PLAIN, *arguments)


# ------------------------------------------------------------------------------ without a card


def test_device_none_skips_them(pytester: pytest.Pytester) -> None:
    found = run(pytester, FOUR_KINDS, "--ftcheck-device=none", "-rs")
    found.assert_outcomes(passed=1, skipped=4)
    found.stdout.fnmatch_lines(
        ["SKIPPED [[]1] test_inner.py:*: --ftcheck-device=none: GPU tests are not run"]
    )


def test_a_test_that_must_run_and_does_not_fails(pytester: pytest.Pytester) -> None:
    found = run(pytester, FOUR_KINDS, "--ftcheck-device=none", "--ftcheck-require-gpu")
    found.assert_outcomes(passed=1, errors=4)
    found.stdout.fnmatch_lines(
        ["a GPU test must run (--ftcheck-require-gpu): *--ftcheck-device=none: *are not run"]
    )


@pytest.mark.slow
def test_without_a_card_cuda_is_unmeasured(pytester: pytest.Pytester) -> None:
    found = run(pytester, FOUR_KINDS, "--ftcheck-device=cuda", "-k", "marked or plain")
    found.stdout.fnmatch_lines(
        [
            "test_inner.py::test_marked: torch * finds no CUDA card here",
            "* 1 passed, * 1 unmeasured *",
        ]
    )
    found = run(
        pytester, FOUR_KINDS, "--ftcheck-device=cuda", "-k", "marked", "--ftcheck-require-gpu"
    )
    found.assert_outcomes(errors=1)


def test_without_torch_they_are_unmeasured(pytester: pytest.Pytester) -> None:
    (pytester.path / "torch.py").write_text("raise ImportError('no torch')", encoding="utf-8")
    found = run(pytester, FOUR_KINDS, "--ftcheck-device=virtual")
    found.stdout.fnmatch_lines(
        [
            "test_inner.py: 4 tests: torch cannot be imported: no torch",
            "* 1 passed, 4 unmeasured *",
        ]
    )


@pytest.mark.parametrize(
    "arguments", [("--collect-only",), ("-m", "not gpu", "-k", "plain"), ("--ftcheck-device=none",)]
)
def test_torch_is_imported_only_for_a_test_that_runs(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    (pytester.path / "torch.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    assert run(pytester, FOUR_KINDS, *arguments).ret == 0


def test_the_trap_for_imports_works(pytester: pytest.Pytester) -> None:
    (pytester.path / "torch.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    assert run(pytester, FOUR_KINDS, "--ftcheck-device=virtual").ret != 0


def test_a_fixture_that_nobody_saw_coming_says_what_to_do(pytester: pytest.Pytester) -> None:
    source = "def test_late(request):\n    request.getfixturevalue('gpu')\n"
    found = run(pytester, source, "--ftcheck-device=none")
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*mark it with @pytest.mark.gpu*"])


# ------------------------------------------------------------------------------------- markers


WRONG = [
    ('gpu("8GiB")', "got gpu('8GiB'), expected gpu(min_vram=*"),
    ("gpu(vram=8)", "got gpu(vram=8), expected gpu(min_vram=*"),
    ('gpu(min_vram="8")', "gpu: min_vram: got '8', expected a number with a unit*"),
    ("gpu(min_vram=-1)", "gpu: min_vram: got -1, expected memory such as '8 GiB'"),
    ("gpu(min_capability=8.0)", "gpu: min_capability: got 8.0, expected a pair such as (8, 0)"),
    ("ftcheck_gpu(count=0)", "ftcheck_gpu: count: got 0, expected 1 or more"),
    ("vram_budget()", "got vram_budget(), expected vram_budget(*"),
    ('vram_budget("8 GiB", on="card")', "got vram_budget('8 GiB', on='card'), expected *"),
    ('vram_budget("8 GiB", of="peak")', "*of: got 'peak', expected one of reserved, alloc*"),
    ('vram_budget("8 GiBs")', "vram budget: got '8 GiBs', expected a number with a unit*"),
]


def test_a_marker_that_cannot_be_is_refused_while_collecting(pytester: pytest.Pytester) -> None:
    for number, (marker, _) in enumerate(WRONG):
        text = f"import pytest\n@pytest.mark.{marker}\ndef test_it(): pass\n"
        (pytester.path / f"test_{number}.py").write_text(text, encoding="utf-8")
    found = pytester.runpytest_subprocess(*PLAIN)
    assert found.ret == pytest.ExitCode.INTERRUPTED
    found.assert_outcomes(errors=len(WRONG))
    found.stdout.fnmatch_lines(
        [f"test_{number}.py::test_it: {words}" for number, (_, words) in enumerate(WRONG)]
    )
    found.stdout.no_fnmatch_line("*Traceback*")


def test_a_suite_may_have_a_gpu_marker_and_fixture_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers =\n    gpu(index): a card of ours\n")
    source = """
import pytest

@pytest.fixture
def gpu():
    return "ours"

@pytest.mark.gpu(3)
def test_own(gpu):
    assert gpu == "ours"

@pytest.mark.ftcheck_gpu
def test_ftcheck(): pass

def test_fixture(ftcheck_gpu): pass
"""
    found = run(pytester, source, "--ftcheck-device=none", "--strict-markers")
    found.assert_outcomes(passed=1, skipped=2)


def test_markers_and_fixtures_are_explained(pytester: pytest.Pytester) -> None:
    found = pytester.runpytest_subprocess(*PLAIN, "--markers")
    found.stdout.fnmatch_lines(
        [
            "@pytest.mark.gpu(min_vram=*",
            "@pytest.mark.ftcheck_gpu(*",
            "@pytest.mark.vram_budget(limit, of=*",
        ]
    )


@pytest.mark.parametrize("option", ["--ftcheck-card=rtx9999", "--ftcheck-vram=8"])
def test_a_card_that_is_none_is_refused(pytester: pytest.Pytester, option: str) -> None:
    found = run(pytester, FOUR_KINDS, option)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["ERROR: --ftcheck-card, --ftcheck-vram: * got *, expected *"])


# ------------------------------------------------------------------------- on the virtual GPU


def test_it_takes_the_place_of_a_card(pytester: pytest.Pytester) -> None:
    found = run(pytester, TWO, "--ftcheck-device=virtual", "-x")
    found.assert_outcomes(passed=1, failed=1)  # the third was not run
    found.stdout.fnmatch_lines(["E * assert 'virtual' == 'cuda'"])


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("-n", "2"), ("-s",)])
def test_any_way_of_running_gives_the_same(
    pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    found = run(pytester, TWO, "--ftcheck-device=virtual", *arguments)
    found.assert_outcomes(passed=2, failed=1)


@pytest.mark.slow
def test_the_last_failed_come_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_inner=TWO)
    arguments = ("-p", "no:randomly", "--ftcheck-device=virtual")
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=2, failed=1)
    pytester.runpytest_subprocess(*arguments, "--lf").assert_outcomes(failed=1)


@pytest.mark.slow
def test_a_debugger_is_seen_and_heard(pytester: pytest.Pytester) -> None:
    source = "def test_it(gpu):\n    kind = gpu.kind\n    assert kind == 3\n"
    pytester.makepyfile(test_inner=source)
    found = pytester.run(
        sys.executable,
        "-m",
        "pytest",
        *PLAIN,
        "--ftcheck-device=virtual",
        "--pdb",
        stdin=b"print('it is', kind)\nc\n",
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*it is virtual*"])


@pytest.mark.slow
def test_exit_and_interrupts_end_the_session(pytester: pytest.Pytester) -> None:
    source = "import pytest\ndef test_it(gpu):\n    {}\ndef test_next(): pass\n"
    found = run(pytester, source.format("pytest.exit('enough', 5)"), "--ftcheck-device=virtual")
    assert found.ret == 5
    found.stdout.fnmatch_lines(["*Exit: enough*"])
    found = run(pytester, source.format("raise KeyboardInterrupt"), "--ftcheck-device=virtual")
    assert found.ret == pytest.ExitCode.INTERRUPTED
    assert "passed" not in found.parseoutcomes()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_fork_does_not_outlive_its_parent(
    pytester: pytest.Pytester, stop: signal.Signals
) -> None:
    source = """
def test_it(gpu):
    import os, pathlib, time
    pathlib.Path("partial").write_text(str(os.getpid()))
    os.replace("partial", "process")
    while True:
        time.sleep(0.1)
"""
    pytester.makepyfile(test_inner=source)
    command = [sys.executable, "-m", "pytest", *PLAIN, "--ftcheck-device=virtual"]
    process = pytester.path / "process"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        assert _soon(process.exists, 120)
        parent.send_signal(stop)
        parent.wait(60)
    fork = Path("/proc") / process.read_text(encoding="utf-8")
    assert _soon(lambda: not fork.exists() or " Z " in (fork / "stat").read_text(), 20)


def _soon(happens: object, within_s: float) -> bool:
    assert callable(happens)
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if happens():
            return True
        time.sleep(0.05)
    return False


# -------------------------------------------------------------------------------- cards by turns


def test_workers_take_cards_by_turns() -> None:
    assert [card_of(f"gw{number}", ["0", "2", "5"]) for number in range(4)] == ["0", "2", "5", "0"]
    assert card_of("gw1", ["0"]) is None
    assert card_of("gw1", []) is None
    assert card_of("master", ["0", "1"]) is None


def test_cards_are_counted_without_cuda(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_cards({}, tmp_path) == ["0", "1"]
    assert visible_cards({"CUDA_VISIBLE_DEVICES": "3, GPU-12ab"}, tmp_path) == ["3", "GPU-12ab"]
    assert visible_cards({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []


def test_a_worker_sees_its_card_alone() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,6", "PYTEST_XDIST_WORKER": "gw1"}
    take_turn(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "6"
    take_turn(environ)  # a worker of a worker has nothing to choose
    assert environ["CUDA_VISIBLE_DEVICES"] == "6"
