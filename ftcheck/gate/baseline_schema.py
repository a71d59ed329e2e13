"""What may stand in a file of recorded peaks, and every place where one differs from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from ftcheck.units import format_bytes

__all__ = ["SCHEMA", "problems_in"]

SCHEMA: Final = 1
_SIZES: Final = ("allocated", "reserved")
_TOO_LARGE_BYTES: Final = 2**63
_KEYS: Final = frozenset(
    {"card", "kind", "versions", *_SIZES, *(f"{name}_bytes" for name in _SIZES)}
)


def problems_in(text: str) -> tuple[Any, list[str]]:
    """The content of a file, and all that is wrong with it.

    Returns:
        Plain data, and problems such as `: peaks["a.py::test"][0].kind: got …, expected …`.
    """
    try:
        plain = json.loads(text, object_pairs_hook=_without_twins)
    except json.JSONDecodeError as error:
        return None, [f":{error.lineno}: got {error.msg.lower()}, expected JSON"]
    except _Twins as error:
        return None, [f": got the key {error.args[0]!r} twice in one object, expected it once"]
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all measure
        return None, [f": got {error}, expected recorded peaks"]
    return plain, [f": {place}: {words}" for place, words in _of_file(plain)]


class _Twins(Exception):
    """A key stands twice, as after a merge; JSON would keep the last one without a word."""


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twins(key)
        found[key] = value
    return found


_Problems = Iterator[tuple[str, str]]
"""Place and words."""


def _of_file(plain: Any) -> _Problems:
    if not isinstance(plain, dict):
        yield "the file", f"got {_shown(plain)}, expected an object with schema and peaks"
        return
    if plain.get("schema") != SCHEMA or isinstance(plain.get("schema"), bool):
        yield "schema", f"got {_shown(plain.get('schema'))}, expected {SCHEMA}"
        return
    yield from _other_keys("the file", plain, frozenset({"schema", "peaks"}))
    peaks = plain.get("peaks")
    if not isinstance(peaks, dict):
        yield "peaks", f"got {_shown(peaks)}, expected an object from tests to lists"
        return
    for test, some in peaks.items():
        place = f"peaks[{json.dumps(test)}]"
        if not isinstance(some, list) or not some:
            yield place, f"got {_shown(some)}, expected a list of recorded peaks"
            continue
        for number, one in enumerate(some):
            yield from _of_entry(f"{place}[{number}]", one)
        yield from _recorded_twice(place, some)


def _of_entry(place: str, one: Any) -> _Problems:
    if not isinstance(one, dict):
        yield place, f"got {_shown(one)}, expected an object"
        return
    yield from _other_keys(place, one, _KEYS)
    if one.get("kind") not in ("measured", "predicted"):
        yield f"{place}.kind", f"got {_shown(one.get('kind'))}, expected measured or predicted"
    if not _is_text(one.get("card")):
        yield f"{place}.card", f"got {_shown(one.get('card'))}, expected the name of a card"
    versions = one.get("versions")
    if not isinstance(versions, dict) or not all(map(_is_text, versions.values())):
        yield f"{place}.versions", f"got {_shown(versions)}, expected an object from names to text"
    for name in _SIZES:
        size, twin = one.get(f"{name}_bytes"), one.get(name)
        if type(size) is not int or not 0 < size < _TOO_LARGE_BYTES:
            yield (
                f"{place}.{name}_bytes",
                f"got {_shown(size)}, expected a whole number of bytes over 0",
            )
        elif twin != format_bytes(size):
            yield (
                f"{place}.{name}",
                f"got {_shown(twin)}, expected {format_bytes(size)!r}, as {name}_bytes says",
            )


def _other_keys(place: str, found: dict[str, Any], expected: frozenset[str]) -> _Problems:
    for key in found.keys() - expected:
        yield place, f"got the key {key!r}, expected only {', '.join(sorted(expected))}"


def _recorded_twice(place: str, some: list[Any]) -> _Problems:
    seen = []
    for number, one in enumerate(some):
        if not isinstance(one, dict):
            continue
        key = [one.get("kind"), one.get("card"), one.get("versions")]
        if key in seen:
            yield f"{place}[{number}]", "got the card, kind and versions of an earlier one again"
        seen.append(key)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
