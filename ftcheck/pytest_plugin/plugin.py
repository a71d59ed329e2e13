"""The hooks: the only module that pytest loads of itself.

Nothing heavy is imported here, no card is asked for, no fixture is automatic.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from ftcheck.pytest_plugin import fixtures
from ftcheck.pytest_plugin.requirements import SUITES_OWN, WrongMarker, is_gpu_test, validate
from ftcheck.pytest_plugin.settings import OPTIONS, Settings
from ftcheck.pytest_plugin.state import SETTINGS, is_worker, told

_MARKERS = (
    "ftcheck_gpu(min_vram, min_capability, count): as gpu, for suites where that has a meaning of "
    "its own",
    'vram_budget(limit, of="reserved"): the call of the test may take this much VRAM, such as '
    '"8 GiB"; of: "reserved", "allocated" or "card"',
    "recipe(*recipes): the ft_ fixtures of the test are those of these recipes (files or built-in "
    "names); it runs once for each",
)


_GPU = (
    'gpu(min_vram="8GiB", min_capability=(8, 0), count=1): the test needs a card; where there is '
    "none it runs on the virtual GPU (--ftcheck-device)"
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
                option.argument,
                dest=option.ini,
                action="store_true",
                default=None,
                help=option.help,
            )
        else:
            group.addoption(
                option.argument,
                dest=option.ini,
                default=None,
                metavar=option.metavar,
                choices=option.choices or None,
                help=option.help,
            )
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
    config.pluginmanager.register(fixtures, "ftcheck-fixtures")
    names = (line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers"))
    taken = "gpu" in names
    config.stash[SUITES_OWN] = taken
    for marker in _MARKERS if taken else (_GPU, *_MARKERS):
        config.addinivalue_line("markers", marker)
    settings = config.stash[SETTINGS] = Settings.of(config)
    if settings["card"] or settings["vram"]:
        from ftcheck.pytest_plugin.devices import stood_in_for

        stood_in_for(settings)
    if is_worker(config):
        from ftcheck.pytest_plugin.sharing import take_turn

        take_turn(os.environ)
    if not is_worker(config):
        from ftcheck.pytest_plugin.summary import Controller

        config.pluginmanager.register(Controller(config), "ftcheck-controller")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each recipe of its marker."""
    marker = metafunc.definition.get_closest_marker("recipe")
    if marker is None:
        return
    name = metafunc.definition.nodeid
    if marker.kwargs or not marker.args or not all(isinstance(one, str) for one in marker.args):
        raise pytest.Collector.CollectError(
            f"{name}: @pytest.mark.recipe takes files or names of built-in recipes, "
            f"got {marker.args!r} {marker.kwargs!r}"
        )
    if "ft_recipe" not in metafunc.fixturenames:
        raise pytest.Collector.CollectError(
            f"{name}: @pytest.mark.recipe has no effect on a test without an ft_ fixture"
        )
    ids = [Path(one).name.split(".")[0] for one in marker.args]
    metafunc.parametrize("ft_recipe", marker.args, indirect=True, ids=ids, scope="session")


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
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Refuse markers of ours that say what they cannot say."""
    made = yield
    for item in made if isinstance(made, list) else ():
        if isinstance(item, pytest.Item):
            try:
                validate(item)
            except WrongMarker as error:
                raise collector.CollectError(f"{item.nodeid}: {error}") from error
    return made


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Let pytest-benchmark take `vram_benchmark` for a benchmark: --benchmark-only, -skip.

    It asks for the name of its own fixture, which these tests ask for only where time counts.
    """
    lent: list[list[str]] = []
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if "vram_benchmark" in names and "benchmark" not in names:
            names.append("benchmark")
            lent.append(names)
    yield
    for names in lent:
        names.remove("benchmark")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for a card only where a test that was selected needs one."""
    config = session.config
    if not config.getoption("collectonly") and any(map(is_gpu_test, session.items)):
        from ftcheck.pytest_plugin.gpu_tests import register

        register(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what was skipped stand at the line of the test, not at one of this package."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        if hasattr(item, "ftcheck_place"):
            path, line = item.ftcheck_place
            report.longrepr = (str(path), line, report.longrepr[2].removeprefix("Skipped: "))
        elif Path(report.longrepr[0]).parent == Path(__file__).parent:
            path, line, _ = item.reportinfo()
            report.longrepr = (str(path), (line or 0) + 1, report.longrepr[2])
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    if report.skipped and told(report).get("status") == "unmeasured":
        return "unmeasured", "u", "UNMEASURED"
    return None
