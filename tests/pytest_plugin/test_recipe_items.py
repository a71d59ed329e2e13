"""Recipes are collected as tests, one a check, and fail in words."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SOUND = """\
[model]
name_or_path = "ftcheck:tiny-gpt2"
loss_type = "ForCausalLM"

[data]
path = "ftcheck:python-functions"
shuffle_seed = 42
rows = 100

[tokenization]
pad_token = "eos_token"
padding = "longest"
labels = "pads_masked"
append_eos = true

[lora]
r = 8
lora_alpha = 16
target_modules = ["attn.c_attn"]
task_type = "CAUSAL_LM"

[training]
num_train_epochs = 1
learning_rate = 1e-3
report_to = "none"
"""
PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider")


@pytest.fixture
def recipe(pytester: pytest.Pytester) -> str:
    """A sound recipe in the folder of the inner run."""
    file = pytester.path / "sound.recipe.toml"
    file.write_text(SOUND, encoding="utf-8")
    return file.name


def test_a_check_is_an_item(pytester: pytest.Pytester, recipe: str) -> None:
    found = pytester.runpytest_subprocess(*PLAIN, "--collect-only", "-q")
    found.stdout.fnmatch_lines(
        [
            f"{recipe}::schema",
            f"{recipe}::labels::FT203-labels-all-ignored",
            f"{recipe}::adapter::FT304-adapter-scaled-to-nothing",
        ]
    )


@pytest.mark.slow
def test_static_checks_pass(pytester: pytest.Pytester, recipe: str) -> None:
    found = pytester.runpytest_subprocess(*PLAIN, "--ftcheck-level=static", "-k", "adapter")
    assert found.ret == 0
    outcomes = found.parseoutcomes()
    assert outcomes["passed"] > 5
    assert "failed" not in outcomes


def test_a_finding_fails_in_words(pytester: pytest.Pytester, recipe: str) -> None:
    broken = SOUND.replace("lora_alpha = 16", "lora_alpha = 0")
    (pytester.path / recipe).write_text(broken, encoding="utf-8")
    found = pytester.runpytest_subprocess(
        *PLAIN, f"{recipe}::adapter::FT304-adapter-scaled-to-nothing"
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            f"{recipe}:18: error: FT304 adapter-scaled-to-nothing",
            "*lora_alpha is 0*",
            "*Set lora_alpha to 16.",
        ]
    )
    found.stdout.no_fnmatch_line("*Traceback*")
    found.stdout.no_fnmatch_line("*collecting.py*")


def test_a_recipe_that_cannot_be_read_is_one_item(pytester: pytest.Pytester, recipe: str) -> None:
    broken = SOUND.replace("rows = 100", "rows = 0").replace("report_to", "reprot_to")
    (pytester.path / recipe).write_text(broken, encoding="utf-8")
    found = pytester.runpytest_subprocess(*PLAIN)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines([f"{recipe}:8: data.rows: *", f"{recipe}:25: training.reprot_to: *"])


def test_what_cannot_be_built_does_not_pass(pytester: pytest.Pytester, recipe: str) -> None:
    broken = SOUND.replace("ftcheck:python-functions", "nothing.txt")
    (pytester.path / recipe).write_text(broken, encoding="utf-8")
    found = pytester.runpytest_subprocess(*PLAIN, "-k", "FT203")
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*there is no file nothing.txt"])


def test_other_files_are_left_alone(pytester: pytest.Pytester) -> None:
    (pytester.path / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    pytester.runpytest_subprocess(*PLAIN).assert_outcomes()
