"""Lines of keys in a TOML text that has been parsed already.

`tomllib` gives values and no positions. As the text is known to be valid, keys can be found by
skipping values: brackets and strings are all that has to be understood.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["key_lines", "parse"]

_STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


def parse(text: str) -> dict[str, Any]:
    """Parse TOML; raises `tomllib.TOMLDecodeError` (a `ValueError`), or `RecursionError`."""
    return tomllib.loads(text)


def key_lines(text: str) -> Mapping[str, int]:
    """1-based lines of `section` and `section.key` in valid TOML; nested keys joined by dots.

    Keys inside inline tables and arrays have no line of their own.
    """
    lines: dict[str, int] = {}
    section = ""
    position, line = 0, 1
    while position < len(text):
        end = _statement_end(text, position)
        statement = text[position:end]
        key = statement.strip()
        if key.startswith("["):
            section = _dotted(_between_brackets(key))
            lines.setdefault(section, line)
        elif key and not key.startswith("#"):
            name = _dotted(_before_equals(key))
            lines.setdefault(f"{section}.{name}" if section else name, line)
        line += statement.count("\n")
        position = end
    return lines


def _statement_end(text: str, position: int) -> int:
    """Index behind the newline that ends the statement at `position`."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character in "\"'" and (match := _STRINGS.match(text, position)):
            position = match.end()
            continue
        if character == "#":
            newline = text.find("\n", position)
            position = len(text) if newline < 0 else newline
            continue
        if character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "\n" and depth == 0:
            return position + 1
        position += 1
    return position


def _between_brackets(statement: str) -> str:
    inner = statement.lstrip("[")
    position = 0
    while position < len(inner) and inner[position] != "]":
        match = _STRINGS.match(inner, position)
        position = match.end() if match else position + 1
    return inner[:position]


def _before_equals(statement: str) -> str:
    position = 0
    while position < len(statement) and statement[position] != "=":
        match = _STRINGS.match(statement, position)
        position = match.end() if match else position + 1
    return statement[:position]


def _dotted(key: str) -> str:
    """A TOML key in its plain form: parsed by the TOML parser itself, joined by dots."""
    try:
        table: Any = parse(f"{key} = 0")
    except ValueError:
        return key.strip()
    names: list[str] = []
    while isinstance(table, dict) and table:
        name, table = next(iter(table.items()))
        names.append(name)
    return ".".join(names)
