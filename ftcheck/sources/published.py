"""Published sizes of models, for those whose configuration is not on this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["PublishedModel", "published_model", "published_models"]

_TABLE: Final = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """One entry of the table.

    Attributes:
        slug: Its name in the table.
        names: Repositories on the hub that have this architecture in this size.
        model_type: As `AutoConfig.for_model` takes it.
        dtype: Of the published weights: `float32`, `float16` or `bfloat16`.
        parameters: How many there are, tied ones once.
        config: Arguments of the configuration class.
    """

    slug: str
    names: tuple[str, ...]
    model_type: str
    dtype: str
    parameters: int
    config: Mapping[str, Any]


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """The table, in its order."""
    tables = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return tuple(
        PublishedModel(
            slug=slug,
            names=tuple(entry["names"]),
            model_type=entry["model_type"],
            dtype=entry["dtype"],
            parameters=entry["parameters"],
            # TOML has no null: `none` lists the arguments that are None.
            config={**entry.get("config", {}), **dict.fromkeys(entry.get("none", ()))},
        )
        for slug, entry in tables.items()
    )


def published_model(name: str) -> PublishedModel | None:
    """The entry of a repository on the hub, whatever its upper and lower case."""
    wanted = name.lower()
    for entry in published_models():
        if wanted in (known.lower() for known in entry.names):
            return entry
    return None
