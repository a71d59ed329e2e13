"""Tables of what a check catches, with its severity, and of near misses that it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.checks.coverage import CATCHES, LEAVES_ALONE
from tests.checks.toys import found

__all__ = ["Build", "Cases", "both_sides", "covered"]

Build = Callable[[Path], Any]
"""Makes a trainer that writes to a folder."""
Cases = Mapping[str, tuple[Any, str, tuple[Any, ...]]]
"""Code to what it catches, the severity of the one finding, and what it leaves alone."""


def covered(cases: Cases, module: str) -> None:
    """Note that a module tests these checks from both sides."""
    for code in cases:
        CATCHES[code].append(module)
        LEAVES_ALONE[code].append(module)


def both_sides(cases: Cases, module: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Two tests over a table of trainers: of what is caught, and of what is left alone."""
    covered(cases, module)

    @pytest.mark.parametrize("code", cases)
    def catches(tmp_path: Path, code: str) -> None:
        build, severity, _ = cases[code]
        (finding,) = found(build(tmp_path), code)
        assert finding.severity.value == severity
        assert finding.code == code
        assert finding.sentence

    @pytest.mark.parametrize(
        ("code", "build"), [(code, one) for code, case in cases.items() for one in case[2]]
    )
    def leaves_alone(tmp_path: Path, code: str, build: Build) -> None:
        assert found(build(tmp_path), code) == ()

    return catches, leaves_alone
