"""The import direction: a room imports from those above it, and from no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ftcheck

ROOT = Path(ftcheck.__file__).parent
BASE = ["errors", "units", "environment", "files"]
RUNS = [*BASE, "recipe", "assets", "pipeline", "memory", "memory.vgpu"]
ROOMS: dict[str, list[str]] = {
    "errors": [],
    "units": [],
    "environment": [],
    "files": ["errors"],
    "recipe": BASE,
    "assets": [*BASE, "recipe"],
    "pipeline": [*BASE, "recipe", "assets"],
    "strategies": ["errors", "recipe"],
    "properties": [*BASE, "recipe", "pipeline"],
    "memory": ["errors", "units"],
    "memory.vgpu": ["errors", "memory.trace", "memory.categories"],
    "memory.__init__": ["memory", "memory.prediction", "memory.measurement"],
    "memory.budget": [*BASE, "recipe", "memory"],
    "memory.baseline": [*BASE, "memory"],
    "memory.growth": [*BASE, "memory.baseline"],
    "memory.recording": [*BASE, "memory.baseline"],
    "memory.stand_in": RUNS,
    "memory.representative": RUNS,
    "memory.workload": RUNS,
    "memory.prediction": RUNS,
    "memory.measurement": RUNS,
    "memory.what_if": RUNS,
    "memory.max_batch": RUNS,
    "memory.validation": RUNS,
    "checks": RUNS,
    "checks.observe": [*RUNS, "memory.prediction", "checks"],
    "audit": [
        *RUNS,
        "memory.stand_in",
        "memory.published",
        "memory.budget",
        "checks",
        "checks.observe",
    ],
    "report": [*BASE, "pipeline.result", "memory", "checks.finding"],
    "pytest_plugin": [
        *BASE,
        "recipe",
        "assets",
        "pipeline",
        "memory",
        "memory.vgpu",
        "checks",
        "audit",
        "report",
        "strategies",
        "properties",
    ],
    "cli": [*BASE, "recipe", "assets", "pipeline", "memory", "checks", "audit", "report"],
}
"""Room to the rooms that it may import from; `room.module` allows that module alone."""
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate", "bitsandbytes", "numpy"}
HEAVY_ALLOWED = ("pipeline/watch.py", "audit/preflight.py", "memory/vgpu/")
"""Callbacks are subclasses of transformers' own; the virtual GPU lives in a child process."""


def modules() -> list[Path]:
    found = sorted(ROOT.rglob("*.py"))
    assert len(found) > 30
    return found


def room_of(name: str) -> str:
    """The innermost room that a dotted name lies in."""
    inner = ".".join(name.split(".")[:2])
    return inner if inner in ROOMS else name.partition(".")[0]


def imports(file: Path, *, top_level: bool) -> Iterator[str]:
    """Dotted names that a file imports; with `top_level`, only those that run at its import."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = top_level_nodes(tree) if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module == "ftcheck":
                yield from (f"ftcheck.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def top_level_nodes(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_upwards(file: Path) -> None:
    relative = file.relative_to(ROOT)
    if len(relative.parts) == 1 and relative.stem in ("__init__", "__main__"):
        return  # the door of the package, and that of its command
    room = room_of(".".join(relative.with_suffix("").parts))
    assert room in ROOMS, f"{room} has no place in the list of rooms"
    for name in imports(file, top_level=False):
        if not name.startswith("ftcheck.") or name == "ftcheck.__version__":
            continue
        target = name.removeprefix("ftcheck.")
        allowed = room_of(target) == room or any(
            target == other or target.startswith(f"{other}.") for other in ROOMS[room]
        )
        assert allowed, f"{relative} imports {name}"


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_heavy_is_imported_at_module_level(file: Path) -> None:
    if str(file.relative_to(ROOT)).startswith(HEAVY_ALLOWED):
        return
    heavy = {name.split(".")[0] for name in imports(file, top_level=True)} & HEAVY
    assert not heavy


def test_the_detector_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("from ftcheck import cli\nimport torch.nn\n", encoding="utf-8")
    assert list(imports(file, top_level=True)) == ["ftcheck.cli", "torch.nn"]


def test_modules_stay_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in modules()
        if (lines := file.read_text(encoding="utf-8").count("\n")) > 420
    }
    assert not long
