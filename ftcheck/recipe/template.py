"""A commented recipe to start from."""

from __future__ import annotations

import ast
import inspect
import itertools
from dataclasses import MISSING
from typing import Any

from ftcheck.recipe.load import load_recipe
from ftcheck.recipe.schema import OWN_SECTIONS

__all__ = ["commented_recipe"]

_THEIRS = {
    "quantization": "Fields of transformers.BitsAndBytesConfig. Leave the section out for weights "
    "that are not quantized.",
    "lora": "Fields of peft.LoraConfig. Leave the section out to train every parameter.",
    "training": "Fields of transformers.TrainingArguments.",
    "generation": "prompts, and fields of transformers.GenerationConfig.",
}
_EXAMPLES = {"quantization": "load_in_8bit = true"}


def commented_recipe(builtin: str) -> str:
    """TOML of a built-in recipe with every key of our own sections explained.

    Args:
        builtin: Name of a built-in recipe.

    Returns:
        TOML that loads as that recipe.
    """
    import tomlkit

    recipe = load_recipe(builtin)
    document = tomlkit.document()
    document.add("description", tomlkit.item(recipe.description))
    for section in ("model", "data", "tokenization", "quantization", "lora", "training"):
        _add(document, section, getattr(recipe, section))
    generation = {"prompts": list(recipe.generation.prompts), **recipe.generation.arguments}
    _add(document, "generation", generation)
    for section in ("budget", "checks"):
        _add(document, section, getattr(recipe, section))
    return tomlkit.dumps(document)


def _add(document: Any, section: str, values: Any) -> None:
    import tomlkit

    if values is None:
        document.add(tomlkit.comment(_THEIRS[section]))
        document.add(tomlkit.comment(f"[{section}]"))
        document.add(tomlkit.comment(_EXAMPLES.get(section, "")))
        document.add(tomlkit.nl())
        return
    table = tomlkit.table()
    if section in _THEIRS:
        table.add(tomlkit.comment(_THEIRS[section]))
        for name, value in values.items():
            table.add(name, tomlkit.item(value))
    else:
        _add_own(table, OWN_SECTIONS[section], values)
    document.add(section, table)


def _add_own(table: Any, kind: type[Any], values: Any) -> None:
    import tomlkit

    explanations = _explanations(kind)
    for name, field in kind.__dataclass_fields__.items():
        for line in explanations[name]:
            table.add(tomlkit.comment(line))
        value = getattr(values, name)
        default = field.default if field.default is not MISSING else None
        if value is None or (value == default and field.default is not MISSING):
            shown = "" if default is None else tomlkit.item(default).as_string()
            table.add(tomlkit.comment(f"{name} = {shown}".rstrip()))
        elif value not in ((), {}):
            table.add(name, tomlkit.item(value))


def _explanations(kind: type[Any]) -> dict[str, list[str]]:
    """Field of one of our sections to the lines of the text under it."""
    tree = ast.parse(inspect.getsource(kind))
    body = tree.body[0].body  # type: ignore[attr-defined]
    found: dict[str, list[str]] = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            lines = str(ast.literal_eval(text.value)).split("\n")
            found[ast.unparse(field.target)] = [line.strip() for line in lines]
    return found
