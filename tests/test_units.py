from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcheck.units import format_bytes, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8 GiB", 8 * 1024**3),
        ("8GiB", 8 * 1024**3),
        ("8 GB", 8_000_000_000),
        ("8 KB", 8000),
        ("8 kB", 8000),
        ("1.5 MiB", 1_572_864),
        ("0.1 KiB", 102),
        ("512 B", 512),
        (" 2 TiB ", 2 * 1024**4),
    ],
)
def test_parse_bytes_is_exact(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["8", "GiB", "8 gib", "8 Gib", "100 MBfoo", "-1 MiB", "1e3 MiB", "8  GiB", "", "٨ GiB", "8 iB"],
)
def test_parse_bytes_refuses_what_is_not_one_amount(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number with a unit"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_printed_bytes_are_read_back_within_their_precision(amount: int) -> None:
    again = parse_bytes(format_bytes(amount).replace(",", ""))
    assert abs(again - amount) <= amount * 0.005 + 1


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (8 * 1024**3, "8.00 GiB")],
)
def test_format_bytes_changes_unit_at_1024(amount: int, expected: str) -> None:
    assert format_bytes(amount) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0312, "0.031 s"),
        (1, "1.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 00 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_format_seconds(seconds: float, expected: str) -> None:
    assert format_seconds(seconds) == expected
