"""ftcheck: is a Hugging Face fine-tuning recipe right, does it fit, what did a change do to it?

The public names are loaded on first use, so that `import ftcheck` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftcheck import properties as properties
    from ftcheck import strategies as strategies
    from ftcheck.checks.finding import CheckReport as CheckReport
    from ftcheck.errors import FtcheckError as FtcheckError
    from ftcheck.errors import RecipeError as RecipeError
    from ftcheck.pipeline import RunFolder as RunFolder
    from ftcheck.pipeline import RunResult as RunResult
    from ftcheck.pipeline import run as run
    from ftcheck.recipe import Recipe as Recipe
    from ftcheck.recipe import dump_recipe as dump_recipe
    from ftcheck.recipe import load_recipe as load_recipe
    from ftcheck.recipe import parse_recipe as parse_recipe
    from ftcheck.subjects.check import check as check
    from ftcheck.subjects.preflight import Preflight as Preflight

__version__ = "0.1.0"

_HOMES = {
    "CheckReport": "ftcheck.checks.finding",
    "FtcheckError": "ftcheck.errors",
    "Preflight": "ftcheck.subjects.preflight",
    "Recipe": "ftcheck.recipe",
    "RecipeError": "ftcheck.errors",
    "RunFolder": "ftcheck.pipeline",
    "RunResult": "ftcheck.pipeline",
    "check": "ftcheck.subjects.check",
    "dump_recipe": "ftcheck.recipe",
    "load_recipe": "ftcheck.recipe",
    "parse_recipe": "ftcheck.recipe",
    "run": "ftcheck.pipeline",
}

_MODULES = ("properties", "strategies")

__all__ = [
    "CheckReport",
    "FtcheckError",
    "Preflight",
    "Recipe",
    "RecipeError",
    "RunFolder",
    "RunResult",
    "check",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "properties",
    "run",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"ftcheck.{name}")
    raise AttributeError(f"module 'ftcheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
