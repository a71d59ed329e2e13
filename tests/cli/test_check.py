"""`ftcheck check` and `ftcheck explain`, as people call them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ftcheck.cli.fix import changed
from tests.helpers.recipes import ftcheck_command

BROKEN = ("--set", "lora.lora_alpha=0", "--set", "training.learning_rate=0.5")


def test_a_clean_recipe_says_so(tmp_path: Path) -> None:
    answer = ftcheck_command("check", "quickstart", cwd=tmp_path)
    assert answer.returncode == 0
    assert answer.stdout.startswith("quickstart: OK, 1 note")
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())


def test_findings_are_a_line_each_and_fail(tmp_path: Path) -> None:
    answer = ftcheck_command("check", "quickstart", *BROKEN, "--level", "static", cwd=tmp_path)
    assert answer.returncode == 1
    lines = [line for line in answer.stdout.splitlines() if line.startswith("error")]
    assert [line.split()[1] for line in lines] == ["FT304", "FT404"]
    assert all("→" in line for line in lines)


@pytest.mark.slow
def test_what_the_pipeline_refuses_is_a_finding(tmp_path: Path) -> None:
    given = ("--set", 'lora.target_modules=["q_proj"]')
    answer = ftcheck_command("check", "quickstart", *given, cwd=tmp_path)
    assert answer.returncode == 1
    assert "FT301" in answer.stdout
    assert "1 error" in answer.stdout.splitlines()[0]


@pytest.mark.slow
def test_an_accepted_finding_does_not_fail(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    ftcheck_command("init", str(file), "--from", "quickstart", cwd=tmp_path)
    text = changed(file.read_text(encoding="utf-8"), {"lora.lora_alpha": 0})
    file.write_text(text + '\n[checks.accept]\nFT304 = "to measure the base"\n', encoding="utf-8")
    answer = ftcheck_command("check", "my.toml", "--level", "static", cwd=tmp_path)
    assert answer.returncode == 0
    assert "(accepted: to measure the base)" in answer.stdout


@pytest.mark.parametrize(
    "style",
    [
        "json",
        pytest.param("junit", marks=pytest.mark.slow),
        pytest.param("markdown", marks=pytest.mark.slow),
    ],
)
def test_other_forms(tmp_path: Path, style: str) -> None:
    given = (*BROKEN, "--level", "static", "--format", style, "--output", "report")
    answer = ftcheck_command("check", "quickstart", *given, cwd=tmp_path)
    assert answer.returncode == 1
    text = (tmp_path / "report").read_text(encoding="utf-8")
    if style == "json":
        report = json.loads(text)
        assert not report["ok"]
        failed = [one["code"] for one in report["outcomes"] if one["status"] == "failed"]
        assert failed == ["FT304", "FT404"]
    elif style == "junit":
        suite = ET.fromstring(text)
        assert suite.get("failures") == "2"
        assert len(suite.findall("testcase/failure")) == 2
    else:
        assert text.count("| error | FT") == 2


@pytest.mark.slow
def test_a_recipe_is_mended_and_the_old_one_kept(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    ftcheck_command("init", str(file), "--from", "quickstart", cwd=tmp_path)
    broken = changed(file.read_text(encoding="utf-8"), {"lora.lora_alpha": 0})
    file.write_text(broken, encoding="utf-8")
    given = ("check", "my.toml", "--level", "static", "--fix")
    asked = ftcheck_command(*given, cwd=tmp_path)  # nobody answers: it is a no
    assert "-lora_alpha = 0\n+lora_alpha = 16\n" in asked.stdout
    assert file.read_text(encoding="utf-8") == broken
    mended = ftcheck_command(*given, "--yes", cwd=tmp_path)
    assert mended.returncode == 1  # what was found was there
    assert file.read_text(encoding="utf-8") == broken.replace("lora_alpha = 0", "lora_alpha = 16")
    assert (tmp_path / "my.toml.bak").read_text(encoding="utf-8") == broken
    assert ftcheck_command("check", "my.toml", "--level", "static", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.toml",), "no such file"),
        (("nothing.py",), "there is no file"),
        (("quickstart", "--select", "FT99"), 'no check "FT99"'),
        (("quickstart", "--ignore", "labels-shiftd"), "Did you mean labels-shifted?"),
        (("quickstart", "--level", "deep"), "'deep' is not one of"),
        (("quickstart", "--", "--epochs", "3"), "are for scripts"),
        (("script.py", "--set", "lora.r=4"), "are for recipes"),
        (("script.py", "--stand-in", "gpt2"), "expected NAME=PATH"),
        (("quickstart", "--fix", "--level", "static"), "is built in, and cannot be changed"),
        (("quickstart", "--set", "budget.card=rtx4070"), "rtx4070"),
    ],
)
def test_bad_input_is_said_once(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "script.py").write_text("", encoding="utf-8")
    answer = ftcheck_command("check", *arguments, cwd=tmp_path)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_checks_are_explained(tmp_path: Path) -> None:
    listed = ftcheck_command("explain", cwd=tmp_path)
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) > 80
    page = ftcheck_command("explain", "FT204", cwd=tmp_path)
    assert page.stdout == ftcheck_command("explain", "labels-shifted", cwd=tmp_path).stdout
    assert "Bad:" in page.stdout
    unknown = ftcheck_command("explain", "FT999", cwd=tmp_path)
    assert unknown.returncode == 2
