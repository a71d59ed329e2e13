"""The options of the plugin, declared once: command line, environment and ini are derived.

A value comes from the marker of a test, else from the command line, else from the environment, else
from the ini file, else it is the default; `Settings` says which it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import pytest

__all__ = ["OPTIONS", "Option", "Setting", "Settings"]

Source = Literal["marker", "command line", "environment", "ini", "default"]

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off", "")


class Option(NamedTuple):
    """An option: `--ftcheck-NAME`, `FTCHECK_NAME`, and `ftcheck_NAME` of the ini file.

    Attributes:
        name: In words parted by hyphens.
        help: For `pytest --help`.
        default: Where nobody says anything; `None` for nothing.
        choices: Values that may be given; empty for any text.
        flag: Whether it is on or off.
        metavar: Stands for the value in the help.
    """

    name: str
    help: str
    default: str | bool | None = None
    choices: tuple[str, ...] = ()
    flag: bool = False
    metavar: str = "VALUE"

    @property
    def argument(self) -> str:
        """Its name on the command line."""
        return f"--ftcheck-{self.name}"

    @property
    def ini(self) -> str:
        """Its key in the ini file."""
        return f"ftcheck_{self.name.replace('-', '_')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return self.ini.upper()

    def read(self, text: Any, where: str) -> str | bool:
        """A value from the text that stands somewhere.

        Raises:
            pytest.UsageError: It is none of the choices, or neither on nor off.
        """
        if self.flag:
            if isinstance(text, bool):
                return text
            if str(text).lower() in _TRUE + _FALSE:
                return str(text).lower() in _TRUE
            raise pytest.UsageError(f"{where}: got {text!r}, expected true or false")
        if self.choices and text not in self.choices:
            raise pytest.UsageError(
                f"{where}: got {text!r}, expected one of {', '.join(self.choices)}"
            )
        return str(text)


OPTIONS: Final = (
    Option(
        name="device",
        help="Where GPU tests run: on CUDA, on the virtual GPU, or nowhere; auto takes CUDA where "
        "there is a card, else the virtual GPU (default: auto)",
        default="auto",
        choices=("auto", "cuda", "virtual", "none"),
    ),
    Option(
        name="card",
        metavar="NAME",
        help="The card that the virtual GPU stands in for, such as rtx4070-laptop-8gb (all of "
        "them: ftcheck vram --list-cards)",
    ),
    Option(name="vram", metavar="SIZE", help="Its memory, such as 8GiB"),
    Option(
        name="recipe",
        metavar="RECIPE",
        help="The recipe of the ft_ fixtures: a file, or the name of a built-in one (default: "
        "quickstart)",
        default="quickstart",
    ),
    Option(
        name="level",
        help="How far collected recipes and scripts are looked at (default: memory)",
        default="memory",
        choices=("static", "data", "step", "roundtrip", "memory"),
    ),
    Option(
        name="require-gpu",
        help="A GPU test that was skipped or not measured fails",
        flag=True,
        default=False,
    ),
    Option(name="baseline", metavar="FILE", help="Recorded peaks of VRAM to compare with"),
    Option(
        name="update-baseline",
        help="Record the peaks of this session in the baseline",
        flag=True,
        default=False,
    ),
    Option(
        name="compare-fail",
        metavar="LIMITS",
        help='Fail where a peak has grown by more, such as "allocated:2%%,reserved:5%%"',
    ),
    Option(name="report", metavar="FILE", help="Write all results to a .json or .md file"),
    Option(
        name="arguments", metavar="TEXT", help="Arguments of the scripts that --ftcheck collects"
    ),
    Option(
        name="stand-in",
        metavar="NAME=PATH",
        help="Answer names on the hub with folders or files, for scripts; several parted by commas",
    ),
)
"""Every option with a value. `--ftcheck` itself only says that scripts are meant."""


class Setting(NamedTuple):
    """A value, and where it was said."""

    value: Any
    source: Source


class Settings:
    """What was said on the command line, in the environment and in the ini file.

    Args:
        values: Name of an option to its setting.
    """

    def __init__(self, values: Mapping[str, Setting]) -> None:
        self.values = values

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """Read them.

        Raises:
            pytest.UsageError: A value that its option does not take.
        """
        return cls({option.name: _setting(option, config) for option in OPTIONS})

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value


def _setting(option: Option, config: pytest.Config) -> Setting:
    given = config.getoption(option.ini)
    if given is not None:
        return Setting(option.read(given, option.argument), "command line")
    if option.variable in os.environ:
        text = os.environ[option.variable]
        return Setting(option.read(text, option.variable), "environment")
    text = config.getini(option.ini)
    if text:
        return Setting(option.read(text, f"{option.ini} (ini)"), "ini")
    return Setting(option.default, "default")
