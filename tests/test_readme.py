"""What the README shows works: recipes load, Python runs, commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ftcheck.cli import group
from ftcheck.recipe import parse_recipe

README = Path(__file__).parent.parent / "README.md"
FENCE = re.compile(r"(<!-- not run: [^>]+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    text = README.read_text(encoding="utf-8")
    return [body for _, kind, body in FENCE.findall(text) if kind == language]


@pytest.mark.parametrize("block", blocks("toml"))
def test_recipes_load(block: str) -> None:
    recipe = parse_recipe(block)
    assert recipe.lora is not None
    assert recipe.notices == ()


def test_there_is_something_to_test() -> None:
    assert len(blocks("toml")) == 2
    assert len(blocks("python")) == 2
    assert len(blocks("sh")) == 3


def run_block(number: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(compile(blocks("python")[number], str(README), "exec"), {})
    return capsys.readouterr().out.split()


def test_the_prediction_runs(capsys: pytest.CaptureFixture[str]) -> None:
    fits, peak, module = run_block(0, capsys)[:3]
    assert fits == "True"
    assert int(peak) > 5_000_000
    assert module


@pytest.mark.filterwarnings("ignore")
def test_the_run_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, after, folder = run_block(1, capsys)
    assert float(after) < float(before)
    assert Path(folder, "adapter").is_dir()


def test_the_first_two_blocks_are_the_two_commands() -> None:
    assert blocks("sh")[:2] == [
        "pip install torch==2.13.0 -e . && ftcheck run\n",
        'pip install torch==2.13.0 -e ".[test]" && pytest\n',
    ]


def named_commands() -> list[str]:
    text = README.read_text(encoding="utf-8")
    inline = re.findall(r"`(ftcheck [^`]+)`", text)
    shell = [line for block in blocks("sh") for line in re.split(r"\n|&&", block)]
    return sorted({c.strip() for c in (*inline, *shell) if c.strip().startswith("ftcheck ")})


@pytest.mark.parametrize("line", named_commands())
def test_commands_and_their_options_exist(line: str) -> None:
    words = shlex.split(re.sub(r"[\[\]…]", " ", line))
    command = group.commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    assert isinstance(group, click.Group)
    assert all(f"`ftcheck {name}" in text for name in group.commands)
    for path in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "tox.ini"):
        assert (README.parent / path).is_file()


def test_the_plugin_is_in_the_readme_whole() -> None:
    from ftcheck.pytest_plugin import fixtures
    from ftcheck.pytest_plugin.settings import OPTIONS

    text = README.read_text(encoding="utf-8")
    names = [name for name in fixtures.__all__ if name.islower()]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in text] == []
    assert [one.argument for one in OPTIONS if f"`{one.argument}" not in text] == []
