"""The import direction: a room imports from those above it, and from no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ftcheck

ROOT: Final = Path(ftcheck.__file__).parent
GROUND: Final = ("errors", "units", "environment", "files", "tables", "validated", "cards")
UP_TO_PIPELINE: Final = (*GROUND, "processes", "recipe", "assets", "sources", "pipeline")
UP_TO_VRAM: Final = (*UP_TO_PIPELINE, "allocator", "vgpu", "vram")
UP_TO_GATE: Final = (*UP_TO_VRAM, "properties", "strategies", "checks", "subjects", "gate")
ROOMS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(GROUND, GROUND),
    "processes": GROUND,
    "recipe": (*GROUND, "processes"),
    "assets": (*GROUND, "processes", "recipe"),
    "sources": (*GROUND, "processes", "recipe", "assets"),
    "pipeline": UP_TO_PIPELINE,
    "allocator": GROUND,
    "vgpu": (*GROUND, "processes", "allocator"),
    "vram": UP_TO_VRAM,
    "properties": UP_TO_PIPELINE,
    "strategies": UP_TO_PIPELINE,
    "checks": UP_TO_VRAM,
    "subjects": (*UP_TO_VRAM, "checks"),
    "gate": UP_TO_GATE,
    "report": (*GROUND, "pipeline", "allocator", "vram", "checks", "gate"),
    "cli": (*UP_TO_GATE, "report"),
    "pytest_plugin": (*UP_TO_GATE, "report"),
}
"""A room, which is a folder or a module of the ground, to the rooms that it may import from."""
PUBLIC: Final = ("__init__", "__main__")
"""The public names of the package and its command, which import whatever they hand on."""
HEAVY: Final = {
    *("torch", "transformers", "peft", "datasets", "accelerate", "bitsandbytes", "numpy"),
    *("matplotlib", "trl"),
}
HEAVY_ALLOWED: Final = ("pipeline/watch.py", "subjects/preflight.py", "vgpu/")
"""Callbacks are subclasses of transformers' own; the virtual GPU lives in a child process."""


def modules() -> list[Path]:
    found = sorted(ROOT.rglob("*.py"))
    assert len(found) > 30
    return found


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


def misplaced(file: Path, root: Path = ROOT) -> Iterator[str]:
    """What a module imports from rooms that it may not enter, a line each."""
    relative = file.relative_to(root)
    room = relative.parts[0].removesuffix(".py")
    if room in PUBLIC:
        return
    if room not in ROOMS:
        yield f"{relative}: {room} is not in the list of rooms"
        return
    for name in imports(file, top_level=False):
        if name == "ftcheck":
            yield f"{relative} imports ftcheck itself, through which it reaches every room"
        if not name.startswith("ftcheck.") or name == "ftcheck.__version__":
            continue
        entered = name.split(".")[1]
        if entered != room and entered not in ROOMS[room]:
            yield f"{relative} imports {name}"


def test_imports_point_upwards() -> None:
    assert [line for file in modules() for line in misplaced(file)] == []


def test_nothing_heavy_is_imported_at_module_level() -> None:
    heavy = {
        str(file.relative_to(ROOT)): sorted(names)
        for file in modules()
        if not str(file.relative_to(ROOT)).startswith(HEAVY_ALLOWED)
        and (names := {name.split(".")[0] for name in imports(file, top_level=True)} & HEAVY)
    }
    assert heavy == {}


def test_the_detector_sees_wrong_imports(tmp_path: Path) -> None:
    file = tmp_path / "recipe" / "wrong.py"
    file.parent.mkdir()
    file.write_text("import ftcheck\nfrom ftcheck import cli\nimport torch.nn\n", encoding="utf-8")
    assert list(imports(file, top_level=True)) == ["ftcheck", "ftcheck.cli", "torch.nn"]
    assert list(misplaced(file, tmp_path)) == [
        "recipe/wrong.py imports ftcheck itself, through which it reaches every room",
        "recipe/wrong.py imports ftcheck.cli",
    ]


def circles(imported: dict[str, set[str]]) -> dict[str, set[str]]:
    """Modules in a circle, and those that import such, with what they import of one another."""
    waiting = {name: names & imported.keys() - {name} for name, names in imported.items()}
    while ready := [name for name, names in waiting.items() if not names & waiting.keys()]:
        for name in ready:
            del waiting[name]
    return {name: names & waiting.keys() for name, names in waiting.items()}


def test_no_module_is_part_of_a_circle() -> None:
    names = {
        ".".join(("ftcheck", *file.relative_to(ROOT).with_suffix("").parts)): file
        for file in modules()
        if file.stem != "__init__"
    }
    assert (
        circles({name: set(imports(file, top_level=False)) for name, file in names.items()}) == {}
    )


def test_the_detector_sees_a_circle() -> None:
    imported = {"a": {"b", "os"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"os"}}
    assert circles(imported) == {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}


def test_modules_stay_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for file in modules()
        if (lines := file.read_text(encoding="utf-8").count("\n")) > 430
    }
    assert long == {}
