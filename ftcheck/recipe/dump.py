"""From a `Recipe` to TOML that loads as the same recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ftcheck.recipe.schema import Arguments, Recipe

__all__ = ["dump_recipe"]

_SECTIONS = (
    "model",
    "data",
    "tokenization",
    "quantization",
    "lora",
    "training",
    "generation",
    "budget",
    "checks",
)


def dump_recipe(recipe: Recipe, *, unset: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Write a recipe as TOML.

    Args:
        recipe: Any recipe.
        unset: Section to the arguments that the recipe leaves open, with the values that the
            libraries give them; written as comments, so that the text loads as the same recipe.

    Returns:
        TOML. What is `None` has no value in TOML and is written as a comment.
    """
    import tomlkit

    document = tomlkit.document()
    if recipe.description:
        document.add("description", tomlkit.item(recipe.description))
    for section in _SECTIONS:
        values = _values(getattr(recipe, section))
        if values is None:
            continue
        table = tomlkit.table()
        for name, value in values.items():
            if value is None:
                table.add(tomlkit.comment(f"{name} is not set"))
            else:
                table.add(name, tomlkit.item(_plain(value)))
        for name, value in (unset or {}).get(section, {}).items():
            table.add(tomlkit.comment(_comment(name, value)))
        document.add(section, table)
    return tomlkit.dumps(document)


def _values(section: Any) -> dict[str, Any] | None:
    if section is None:
        return None
    if isinstance(section, Arguments):
        return dict(section)
    assert is_dataclass(section)
    values = {field.name: getattr(section, field.name) for field in fields(section)}
    if "arguments" in values:  # [generation]: the prompts beside GenerationConfig's own
        values = {"prompts": values["prompts"], **values["arguments"]}
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _comment(name: str, value: Any) -> str:
    import tomlkit

    if value is None:
        return f"{name} is not set (default)"
    try:
        text = tomlkit.item(_plain(value)).as_string()
    except (ValueError, TypeError):  # a value with no form in TOML: its text will do
        text = str(value)
    return f"{name} = {' '.join(text.split())} (default)"
