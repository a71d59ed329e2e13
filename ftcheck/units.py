"""Bytes, durations and foreign text: parsed exactly, printed with the unit that was meant.

Units are those of IEC 80000-13: `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024; `kB`, `MB`, `GB`,
`TB` are powers of 1000. GPU makers print "8 GB" on the box for 8 GiB of memory: ftcheck does not
guess, it takes the unit that is written.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["format_bytes", "format_count", "format_seconds", "parse_bytes", "printable"]

_UNIT_BYTES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[kKMGT]?i?B)", re.ASCII)


def parse_bytes(text: str) -> int:
    """Read an amount of memory such as `8GiB`, `8 GiB`, `7.5 GB` or `512 B`.

    Returns:
        Whole bytes, rounded down.

    Raises:
        ValueError: The text is not one number with one known unit.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match["unit"] not in _UNIT_BYTES:
        raise ValueError(
            f"got {text!r}, expected a number with a unit, such as '8 GiB' (1024-based) or "
            "'8 GB' (1000-based)"
        )
    return int(Fraction(match["number"]) * _UNIT_BYTES[match["unit"]])


def format_bytes(amount_bytes: int) -> str:
    """Print bytes in the largest 1024-based unit that keeps the number at 1 or more."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(amount_bytes) >= _UNIT_BYTES[unit]:
            return f"{amount_bytes / _UNIT_BYTES[unit]:,.2f} {unit}"
    return f"{amount_bytes} B"


def format_count(count: int) -> str:
    """Print a count with thousands separators, such as `125,250,816`."""
    return f"{count:,}"


def format_seconds(seconds: float) -> str:
    """Print a duration: `0.031 s`, `12.3 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def printable(text: str) -> str:
    """Escape what would not show as text, such as control characters: `\\x1b[2J`."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
