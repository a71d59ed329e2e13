"""ftcheck: is a Hugging Face fine-tuning recipe right, does it fit, what did a change do to it?

The public names are loaded on first use, so that `import ftcheck` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftcheck.errors import FtcheckError as FtcheckError
    from ftcheck.errors import RecipeError as RecipeError
    from ftcheck.pipeline import RunFolder as RunFolder
    from ftcheck.pipeline import RunResult as RunResult
    from ftcheck.pipeline import run as run
    from ftcheck.recipe import Recipe as Recipe
    from ftcheck.recipe import dump_recipe as dump_recipe
    from ftcheck.recipe import load_recipe as load_recipe
    from ftcheck.recipe import parse_recipe as parse_recipe

__version__ = "0.1.0"

_HOMES = {
    "FtcheckError": "ftcheck.errors",
    "Recipe": "ftcheck.recipe",
    "RecipeError": "ftcheck.errors",
    "RunFolder": "ftcheck.pipeline",
    "RunResult": "ftcheck.pipeline",
    "dump_recipe": "ftcheck.recipe",
    "load_recipe": "ftcheck.recipe",
    "parse_recipe": "ftcheck.recipe",
    "run": "ftcheck.pipeline",
}

__all__ = [
    "FtcheckError",
    "Recipe",
    "RecipeError",
    "RunFolder",
    "RunResult",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ftcheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
