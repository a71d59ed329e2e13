"""The hooks: the only module that pytest loads of itself.

Nothing heavy is imported here, no card is asked for, no fixture is automatic.
"""

from __future__ import annotations

from collections.abc import Generator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from ftcheck.pytest_plugin.settings import OPTIONS, Settings
from ftcheck.pytest_plugin.state import SETTINGS, is_worker, told

_MARKERS = (
    "recipe(*recipes): the ft_ fixtures of the test are those of these recipes (files or built-in "
    "names); it runs once for each",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ftcheck", "ftcheck: fine-tuning recipes under test")
    group.addoption(
        "--ftcheck",
        action="store_true",
        help="Check the training scripts (.py, .ipynb) that are named, instead of importing them",
    )
    for option in OPTIONS:
        if option.flag:
            group.addoption(
                option.argument, dest=option.ini, action="store_true", default=None,
                help=option.help,
            )  # fmt: skip
        else:
            group.addoption(
                option.argument, dest=option.ini, default=None, metavar=option.metavar,
                choices=option.choices or None, help=option.help,
            )  # fmt: skip
        parser.addini(
            option.ini, f"See {option.argument}; FTCHECK_ variables win over it.", default=""
        )
    parser.addini(
        "ftcheck_recipes",
        "Patterns of file names that are collected as recipes (default: *.recipe.toml)",
        type="args",
        default=["*.recipe.toml"],
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[SETTINGS] = Settings.of(config)
    if not is_worker(config):
        from ftcheck.pytest_plugin.summary import Controller
        from ftcheck.pytest_plugin.vram_gate import VramGate

        config.pluginmanager.register(Controller(config), "ftcheck-controller")
        config.pluginmanager.register(VramGate(config), "ftcheck-vram-gate")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".toml" and _is_recipe(file_path, parent):
        from ftcheck.pytest_plugin.collecting import RecipeFile

        recipe: pytest.Collector = RecipeFile.from_parent(parent, path=file_path)
        return recipe
    if file_path.suffix == ".ipynb" and _is_script(file_path, parent):
        from ftcheck.pytest_plugin.collecting import ScriptFile

        script: pytest.Collector = ScriptFile.from_parent(parent, path=file_path)
        return script
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """A script is never imported, which would train."""
    if not _is_script(module_path, parent):
        return None
    from ftcheck.pytest_plugin.collecting import ScriptFile

    return ScriptFile.from_parent(parent, path=module_path)


def _is_recipe(file: Path, parent: pytest.Collector) -> bool:
    if parent.session.isinitpath(file):
        return True
    return any(fnmatch(file.name, pattern) for pattern in parent.config.getini("ftcheck_recipes"))


def _is_script(file: Path, parent: pytest.Collector) -> bool:
    config = parent.config
    if not config.getoption("ftcheck") or not parent.session.isinitpath(file):
        return False
    patterns = config.getini("python_files")
    return not any(fnmatch(file.name, pattern) for pattern in patterns)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what was skipped stand at its line of the recipe, not at one of this package."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and hasattr(item, "ftcheck_place"):
        path, line = item.ftcheck_place
        report.longrepr = (str(path), line, report.longrepr[2].removeprefix("Skipped: "))
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    if report.skipped and told(report).get("status") == "unmeasured":
        return "unmeasured", "u", "UNMEASURED"
    return None
