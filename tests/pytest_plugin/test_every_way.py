"""Each feature in every way that pytest is run: one project, many commands."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.pytest_plugin.test_recipe_items import PLAIN, SOUND

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

BROKEN = SOUND.replace("lora_alpha = 16", "lora_alpha = 0")
TESTS = """
import pytest

def test_fixture(ft_recipe):
    assert ft_recipe.name == "quickstart"

@pytest.mark.recipe("sound.recipe.toml", "broken.recipe.toml")
def test_two_recipes(ft_recipe):
    assert ft_recipe.lora["r"] == 8

def test_checked(ft_recipe, ft_check):
    ft_check(ft_recipe, level="static", select=["FT304"])

@pytest.mark.gpu
def test_on_a_card(gpu):
    import torch
    assert torch.ones(2, device=gpu.device).is_cuda

@pytest.mark.vram_budget("64 MiB")
def test_within_its_budget(gpu):
    import torch
    torch.ones(1024, 1024, device=gpu.device)

def test_peak(vram_benchmark, gpu):
    import torch
    vram_benchmark(lambda: torch.ones(1024, 1024, device=gpu.device))
"""
ALPHA = "adapter::FT304-adapter-scaled-to-nothing"
CHOSEN = ("--ftcheck-level=static", "--ftcheck-device=virtual", "-k", "test_ or FT304 or FT305")
ALL = {"passed": 10, "failed": 1}
"""Seven tests, and two checks of two recipes, one of which fails."""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Two recipes and tests of every kind."""
    (pytester.path / "sound.recipe.toml").write_text(SOUND, encoding="utf-8")
    (pytester.path / "broken.recipe.toml").write_text(BROKEN, encoding="utf-8")
    (pytester.path / "test_own.py").write_text(TESTS, encoding="utf-8")
    return pytester


def outcomes(found: pytest.RunResult) -> dict[str, int]:
    counts = found.parseoutcomes()
    return {name: count for name, count in counts.items() if name not in ("deselected", "warnings")}


@pytest.mark.parametrize("more", [(), ("-n", "2"), ("-n", "2", "--dist", "loadfile")])
def test_the_same_with_and_without_workers(project: pytest.Pytester, more: tuple[str, ...]) -> None:
    found = project.runpytest_subprocess(*PLAIN, *CHOSEN, *more, "--junitxml=out.xml")
    assert outcomes(found) == ALL
    found.stdout.fnmatch_lines(["broken.recipe.toml:18: error: FT304 *", "*VRAM benchmarks*"])
    cases = ET.parse(project.path / "out.xml").getroot().iter("testcase")
    failed = [case for case in cases if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["FT304-adapter-scaled-to-nothing"]
    failure = failed[0].find("failure")
    assert failure is not None
    assert "lora_alpha is 0" in (failure.text or "")


def test_collecting_runs_nothing(project: pytest.Pytester) -> None:
    found = project.runpytest_subprocess(*PLAIN, *CHOSEN, "--collect-only", "-q")
    assert found.ret == 0
    found.stdout.fnmatch_lines([f"broken.recipe.toml::{ALPHA}", "test_own.py::test_on_a_card"])


def test_without_the_plugin_recipes_are_no_tests(project: pytest.Pytester) -> None:
    found = project.runpytest_subprocess(*PLAIN, "-p", "no:ftcheck", "-q")
    found.stdout.fnmatch_lines(["*fixture 'ft_recipe' not found"])
    found.stdout.no_fnmatch_line("*recipe.toml::*")


def test_what_failed_last_is_run_again(project: pytest.Pytester) -> None:
    project.runpytest_subprocess("-p", "no:randomly", *CHOSEN)
    found = project.runpytest_subprocess("-p", "no:randomly", *CHOSEN, "--lf")
    assert outcomes(found) == {"failed": 1}
    (project.path / "broken.recipe.toml").write_text(SOUND, encoding="utf-8")
    mended = project.runpytest_subprocess("-p", "no:randomly", *CHOSEN, "--lf")
    assert outcomes(mended) == {"passed": 1}


def test_the_first_failure_stops(project: pytest.Pytester) -> None:
    found = project.runpytest_subprocess(*PLAIN, *CHOSEN, "-x", f"broken.recipe.toml::{ALPHA}")
    assert outcomes(found) == {"failed": 1}


def test_without_torch_nothing_passes_that_needs_it(project: pytest.Pytester) -> None:
    (project.path / "torch.py").write_text("raise ImportError('no torch')\n", encoding="utf-8")
    found = project.runpytest_subprocess(*PLAIN, *CHOSEN)
    counts = outcomes(found)
    assert counts["passed"] == 3  # the recipes are read, and nothing more
    assert counts["failed"] + counts.get("errors", 0) + counts["unmeasured"] == 8
    found.stdout.fnmatch_lines(
        ["a package is missing: no torch", "test_own.py: 3 tests: *no torch"]
    )


def test_without_a_card_and_without_a_virtual_one_they_are_skipped(
    project: pytest.Pytester,
) -> None:
    found = project.runpytest_subprocess(*PLAIN, *CHOSEN, "--ftcheck-device=none")
    assert outcomes(found) == {"passed": 7, "failed": 1, "skipped": 3}
