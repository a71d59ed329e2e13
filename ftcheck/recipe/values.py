"""Values against types, by pydantic: problems in the words of a recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from ftcheck.recipe.hf_fields import HFField
from ftcheck.recipe.limits import LIMITS

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Fault", "argument_faults", "did_you_mean", "range_faults", "section_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one value: its dotted key within the section, the finding, a hint."""

    key: str
    text: str
    hint: str = ""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`Did you mean X?` for the nearest known name; empty where none is near."""
    name = _SHORTHANDS.get(name, name)
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


def section_of(kind: type[Any], values: Mapping[str, Any]) -> tuple[Any, list[Fault]]:
    """Make one of our own sections from a TOML table.

    Args:
        kind: A dataclass of `ftcheck.recipe.schema`.
        values: The table as parsed.

    Returns:
        The section and no faults, or `None` and all faults.
    """
    known = kind.__dataclass_fields__
    types = get_type_hints(kind, include_extras=True)
    faults: list[Fault] = []
    for name, value in values.items():
        if name not in known:
            faults.append(Fault(key=name, text="unknown key.", hint=did_you_mean(name, known)))
        else:
            faults += _faults(name, types[name], _tuples(value))
    for name, field in known.items():
        required = field.default is MISSING and field.default_factory is MISSING
        if required and name not in values:
            faults.append(Fault(key=name, text="is missing, and has no default."))
    return (None, faults) if faults else (kind(**_tuples(values)), [])


def argument_faults(section: str, field: HFField, value: Any) -> Iterator[Fault]:
    """Faults of one Hugging Face argument: of its type, else of its range."""
    faults = _faults(field.name, field.annotation, value)
    yield from faults or range_faults(section, field.name, value)


def range_faults(section: str, name: str, value: Any) -> list[Fault]:
    """Faults of a number against the range of its argument, which need not be installed."""
    limit = LIMITS.get(f"{section}.{name}")
    return [] if limit is None else _faults(name, Annotated[float, limit], value)


def _faults(key: str, kind: Any, value: Any) -> list[Fault]:
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors()
        expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
        hint = did_you_mean(value, _choices(details)) if isinstance(value, str) else ""
        return [Fault(key=key, text=f"got {_shown(value)}, expected {expected}.", hint=hint)]
    return []


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(
        kind,
        config=ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False),
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _choices(details: list[Any]) -> list[str]:
    return [
        choice
        for detail in details
        if detail["type"] == "literal_error"
        for choice in detail["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    ]


_SHORTHANDS = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}

_TYPE_WORDS = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "a table",
    "none_required": "no value",
    "finite_number": "a finite number",
    "string_too_short": "a text that is not empty",
}


def _expected(detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return f"one of {context['expected']}".replace(" or ", ", ")
    bounds = {
        "greater_than": "a number above {gt}",
        "greater_than_equal": "{ge} or more",
        "less_than": "a number below {lt}",
        "less_than_equal": "{le} or less",
    }
    if kind in bounds:
        return bounds[kind].format(**{name: _number(value) for name, value in context.items()})
    return _TYPE_WORDS.get(kind, str(detail["msg"]).removeprefix("Input should be "))


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    text = ("false", "true")[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
