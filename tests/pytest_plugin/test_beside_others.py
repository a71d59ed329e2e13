"""Beside the plugins that people have: nothing of theirs is lost, and nothing of ours."""

from __future__ import annotations

import importlib.util

import pytest

from tests.pytest_plugin.test_recipe_items import SOUND

pytest_plugins = ["pytester"]

NEEDED = ("pytest_cov", "pytest_rerunfailures")
absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")

CODE = "def double(x):\n    return 2 * x\n"
FLAKY = """\
from pathlib import Path

import pytest

from code_of_theirs import double

@pytest.mark.flaky(reruns=2)
def test_flaky():
    tries = Path("tries")
    tries.write_text(tries.read_text() + "." if tries.exists() else ".")
    assert double(len(tries.read_text())) == 4
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A sound recipe, one that is broken, and a test of code of their own that needs two tries."""
    for name, text in (
        ("sound.recipe.toml", SOUND),
        ("broken.recipe.toml", SOUND.replace("lora_alpha = 16", "lora_alpha = 0")),
        ("code_of_theirs.py", CODE),
        ("test_theirs.py", FLAKY),
    ):
        (pytester.path / name).write_text(text, encoding="utf-8")
    return pytester


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["plain", "two workers"])
def test_all_together(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    found = project.runpytest_subprocess(
        "--ftcheck-level=static",
        "-k",
        "schema or FT304 or flaky",
        "--cov=code_of_theirs",
        "--cov-report=term-missing",
        "--reruns=1",
        "--timeout=200",
        "--randomly-seed=1",
        *workers,
    )
    outcomes = found.parseoutcomes()
    # The finding is there at its second try, too; the flaky test passes at its own.
    assert outcomes["passed"] == 4
    assert outcomes["failed"] == 1
    assert outcomes["rerun"] == 2
    found.stdout.fnmatch_lines(["*broken.recipe.toml:18: error: FT304 *"])
    found.stdout.fnmatch_lines(["code_of_theirs.py * 100%*"])
    found.stdout.no_fnmatch_line("*INTERNALERROR*")
