"""`--ftcheck-report`: all results in one file."""

from __future__ import annotations

import json

import pytest

from tests.pytest_plugin.test_recipe_items import PLAIN, SOUND

pytest_plugins = ["pytester"]

BROKEN = SOUND.replace("lora_alpha = 16", "lora_alpha = 0")


@pytest.mark.parametrize("more", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_json_has_every_check(pytester: pytest.Pytester, more: tuple[str, ...]) -> None:
    (pytester.path / "a.recipe.toml").write_text(BROKEN, encoding="utf-8")
    found = pytester.runpytest_subprocess(
        *PLAIN, *more, "--ftcheck-level=static", "--ftcheck-report=out.json", "-k", "adapter"
    )
    assert found.ret == pytest.ExitCode.TESTS_FAILED
    written = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    assert written["environment"]["python"]
    ran = sum(count for name, count in found.parseoutcomes().items() if name != "deselected")
    assert len(written["tests"]) == ran > 5
    told = written["tests"]["a.recipe.toml::adapter::FT304-adapter-scaled-to-nothing"]
    assert told["status"] == "failed"
    assert told["findings"][0]["key"] == "lora.lora_alpha"


@pytest.mark.slow
def test_markdown_is_a_table_of_findings(pytester: pytest.Pytester) -> None:
    (pytester.path / "a.recipe.toml").write_text(BROKEN, encoding="utf-8")
    pytester.runpytest_subprocess(
        *PLAIN, "--ftcheck-level=static", "--ftcheck-report=out.md", "-k", "FT304"
    )
    text = (pytester.path / "out.md").read_text(encoding="utf-8")
    assert "| error | FT304 adapter-scaled-to-nothing | `" in text


@pytest.mark.parametrize("name", ["out.txt", "nowhere/out.json"])
def test_a_place_that_cannot_be_written_is_refused_first(
    pytester: pytest.Pytester, name: str
) -> None:
    found = pytester.runpytest_inprocess(*PLAIN, f"--ftcheck-report={name}")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["*--ftcheck-report: *"])


def test_nothing_is_written_while_collecting(pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess(*PLAIN, "--collect-only", "--ftcheck-report=out.json")
    assert not (pytester.path / "out.json").exists()
