"""GPUs as budgets: what can really be used of each, with the source of every figure."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ftcheck.errors import InputError
from ftcheck.units import format_bytes, parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Card", "Sources", "card", "cards", "from_vram", "load_cards"]

_TABLE: Final = Path(__file__).with_name("cards.toml")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9.-]*", re.ASCII)
_CAPABILITY: Final = re.compile(r"(\d{1,2})\.(\d)", re.ASCII)
_UNKNOWN_CAPABILITY: Final = (8, 6)
_UNKNOWN_OVERHEAD_BYTES: Final = 300 * 1024**2
_KEYS: Final = ("title", "capacity", "compute_capability", "context_overhead", "sources")
_FIGURES: Final = ("capacity", "compute_capability", "context_overhead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the figures of a card come from; text that begins with "estimate" is one."""

    capacity: str
    compute_capability: str
    context_overhead: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU as a budget.

    Raises:
        ValueError: The context alone fills the card.
    """

    name: str
    """Slug, such as `rtx4070-laptop-8gb`."""
    title: str
    """As the maker writes it."""
    capacity_bytes: int
    """Total that `torch.cuda.mem_get_info` reports: less than is printed on the box."""
    compute_capability: tuple[int, int]
    """Major and minor: decides which attention kernels and which dtypes there are."""
    context_overhead_bytes: int
    """What a CUDA context and the loaded kernels take from the card, outside the allocator."""
    sources: Sources

    def __post_init__(self) -> None:
        if not 0 <= self.context_overhead_bytes < self.capacity_bytes:
            raise ValueError(
                f"{self.name}: context_overhead: got {format_bytes(self.context_overhead_bytes)}, "
                f"expected 0 or more and less than the {format_bytes(self.capacity_bytes)} of "
                "the card"
            )

    @property
    def allocator_bytes(self) -> int:
        """What is left for PyTorch's allocator when nothing else uses the card."""
        return self.capacity_bytes - self.context_overhead_bytes


def cards() -> tuple[Card, ...]:
    """Every card of the built-in table, by memory, then by name."""
    return tuple(sorted(_built_in().values(), key=lambda entry: (entry.capacity_bytes, entry.name)))


def card(name: str, extra: Mapping[str, Card] | None = None) -> Card:
    """A card by its slug; upper case, blanks and underscores are forgiven.

    Args:
        name: Such as `rtx4070-laptop-8gb`.
        extra: Cards from `load_cards`; they come before the built-in ones.

    Raises:
        InputError: There is none; the nearest names are given.
    """
    known = {**_built_in(), **(extra or {})}
    slug = re.sub(r"[\s_]+", "-", name.strip().lower())
    if slug in known:
        return known[slug]
    nearest = difflib.get_close_matches(slug, known, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(nearest)}?" if nearest else ""
    raise InputError(
        f"card: got {name!r}, expected one of {len(known)} known cards.{hint}",
        next_step="Name the memory itself, such as --vram 8GiB, or describe the card in TOML.",
    )


def from_vram(vram_bytes: int) -> Card:
    """A card of which only the memory is known; the rest is assumed, and says so.

    Args:
        vram_bytes: Total memory, as `torch.cuda.mem_get_info` gives it.

    Raises:
        InputError: No more than a CUDA context takes.
    """
    if vram_bytes <= _UNKNOWN_OVERHEAD_BYTES:
        raise InputError(
            f"vram: got {format_bytes(vram_bytes)}, expected more than the "
            f"{format_bytes(_UNKNOWN_OVERHEAD_BYTES)} that a CUDA context is assumed to take",
            next_step="Give the memory of the card with its unit, such as 8GiB.",
        )
    size = format_bytes(vram_bytes)
    return Card(
        name=f"vram-{vram_bytes // 1024**2}mib",
        title=f"a card with {size}",
        capacity_bytes=vram_bytes,
        compute_capability=_UNKNOWN_CAPABILITY,
        context_overhead_bytes=_UNKNOWN_OVERHEAD_BYTES,
        sources=Sources(
            capacity="as given",
            compute_capability="estimate: that of RTX 30 cards, as no card was named",
            context_overhead="estimate: in the middle of the cards in the table",
        ),
    )


def load_cards(path: Path) -> dict[str, Card]:
    """Read cards from a TOML file, one table a card, named by its slug.

    Every table has `capacity` and `context_overhead` (such as `"7806 MiB"`) and
    `compute_capability` (such as `"8.9"`), and may have a `title` and a table `sources`.

    Returns:
        Slug to card, in the order of the file.

    Raises:
        InputError: The file cannot be read, or entries are wrong; all of them are named, each as
            `file: card: key: got, expected`.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as a table of cards: {error}",
            next_step="Each card is a TOML table such as [my-card] with capacity = '8 GiB'.",
        ) from error
    problems: list[str] = []
    found = {}
    for name, table in tables.items():
        entry = _read_card(name, table, problems)
        if entry is not None:
            found[name] = entry
    if problems:
        raise InputError(
            "\n".join(f"{path}: {problem}" for problem in problems),
            next_step=f"Keys of a card: {', '.join(_KEYS)}.",
        )
    return found


@cache
def _built_in() -> dict[str, Card]:
    return load_cards(_TABLE)


def _read_card(name: str, table: object, problems: list[str]) -> Card | None:
    before = len(problems)
    if not isinstance(table, dict):
        problems.append(f"{name}: got {table!r}, expected a table of figures")
        return None
    if not _SLUG.fullmatch(name):
        problems.append(f"{name}: expected a name of a-z, 0-9, dots and dashes")
    for key in sorted(table.keys() - set(_KEYS)):
        nearest = difflib.get_close_matches(key, _KEYS, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        problems.append(f"{name}: {key}: unknown key, expected one of {', '.join(_KEYS)}.{hint}")
    title = table.get("title", name)
    if not isinstance(title, str):
        problems.append(f"{name}: title: got {title!r}, expected text")
    capacity = _read_bytes(name, "capacity", table, problems)
    overhead = _read_bytes(name, "context_overhead", table, problems)
    capability = _read_capability(name, table, problems)
    sources = _read_sources(name, table.get("sources", {}), problems)
    if len(problems) > before:
        return None
    try:
        return Card(
            name=name,
            title=title,
            capacity_bytes=capacity,
            compute_capability=capability,
            context_overhead_bytes=overhead,
            sources=sources,
        )
    except ValueError as error:
        problems.append(str(error))
        return None


def _read_bytes(name: str, key: str, table: dict[str, Any], problems: list[str]) -> int:
    value = table.get(key)
    if value is None:
        problems.append(f"{name}: {key}: missing, expected memory with a unit, such as '8 GiB'")
    elif not isinstance(value, str):
        problems.append(f"{name}: {key}: got {value!r}, expected text such as '8 GiB'")
    else:
        try:
            return parse_bytes(value)
        except ValueError as error:
            problems.append(f"{name}: {key}: {error}")
    return 0


def _read_capability(name: str, table: dict[str, Any], problems: list[str]) -> tuple[int, int]:
    value = table.get("compute_capability")
    match = _CAPABILITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        got = "missing" if value is None else f"got {value!r}"
        problems.append(f"{name}: compute_capability: {got}, expected text such as '8.9'")
        return (0, 0)
    return int(match[1]), int(match[2])


def _read_sources(name: str, table: object, problems: list[str]) -> Sources:
    if not isinstance(table, dict):
        problems.append(f"{name}: sources: got {table!r}, expected a table")
        table = {}
    for key in sorted(table.keys() - set(_FIGURES)):
        expected = ", ".join(_FIGURES)
        problems.append(f"{name}: sources.{key}: unknown key, expected one of {expected}")
    texts = dict.fromkeys(_FIGURES, "not stated")
    for key in sorted(table.keys() & set(_FIGURES)):
        if isinstance(table[key], str):
            texts[key] = table[key]
        else:
            problems.append(f"{name}: sources.{key}: got {table[key]!r}, expected text")
    return Sources(**texts)
