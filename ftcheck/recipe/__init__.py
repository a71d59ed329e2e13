"""The recipe: typed, loaded from TOML with line numbers, written back."""

from ftcheck.recipe.dump import dump_recipe
from ftcheck.recipe.load import builtin_names, load_recipe, parse_recipe
from ftcheck.recipe.schema import (
    Arguments,
    Budget,
    Checks,
    Data,
    Generation,
    Model,
    Recipe,
    Source,
    Tokenization,
)

__all__ = [
    "Arguments",
    "Budget",
    "Checks",
    "Data",
    "Generation",
    "Model",
    "Recipe",
    "Source",
    "Tokenization",
    "builtin_names",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]
