"""Every check that a recipe can trip, tripped by one, at its line; and nearly tripped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftcheck.checks.finding import CheckReport, Severity, Status
from ftcheck.checks.registry import Check, all_checks
from ftcheck.cli.fix import changed
from ftcheck.errors import RecipeError
from ftcheck.recipe import load_recipe
from ftcheck.vram import predict
from tests.checks.recipe_step_tables import NOT_BY_RECIPE, REFUSED, STEPS_AND_LATER, WIDE
from tests.checks.recipe_tables import STATIC_AND_DATA, TEXTS, code, jsonl, own_file
from tests.checks.recipes import Case, Changes, checked, place_of, write
from tests.helpers.model_folders import words

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about what is built wrong
NEAR = [(code, near) for code, case in STATIC_AND_DATA.items() for near in case.near]
LATER = [(code, near) for code, case in STEPS_AND_LATER.items() for near in case.near]
MEASURED = {"FT702"}
"""Checks whose threshold a test of this module measures first."""


@pytest.fixture(autouse=True, scope="module")
def _own_code_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code that comes with models goes to a folder of the tests."""
    place = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_MODULES_CACHE", place)
        patched.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", place)
        yield


def errors(report: CheckReport) -> set[str]:
    return {one.code for one in report.findings if one.severity is Severity.ERROR}


def assert_caught(folder: Path, code: str, case: Case) -> None:
    if case.files is not None:
        case.files(folder)
    file = write(folder, case.wrong)
    report = checked(file, code)
    found = [one for one in report.findings if one.code == code]
    assert [one.severity.value for one in found] == [case.severity]
    assert found[0].place == place_of(file, case.at)
    assert errors(report) - {code} == set(case.also)


def assert_left_alone(folder: Path, code: str, case: Case, near: Changes) -> None:
    if case.files is not None:
        case.files(folder)
    report = checked(write(folder, near), code)
    outcome = next(one for one in report.outcomes if one.code == code)
    assert outcome.findings == ()
    assert outcome.status is (Status.PASSED if case.applies else Status.SKIPPED), outcome.reason


@pytest.mark.parametrize("code", STATIC_AND_DATA)
def test_a_recipe_is_caught_at_its_line(tmp_path: Path, code: str) -> None:
    assert_caught(tmp_path, code, STATIC_AND_DATA[code])


@pytest.mark.parametrize(("code", "near"), NEAR)
def test_a_recipe_that_is_nearly_wrong_is_left_alone(
    tmp_path: Path, code: str, near: Changes
) -> None:
    assert_left_alone(tmp_path, code, STATIC_AND_DATA[code], near)


@pytest.mark.slow
@pytest.mark.parametrize("code", STEPS_AND_LATER)
def test_a_recipe_is_caught_at_its_line_by_what_its_steps_do(tmp_path: Path, code: str) -> None:
    assert_caught(tmp_path, code, STEPS_AND_LATER[code])


@pytest.mark.slow
@pytest.mark.parametrize(("code", "near"), LATER)
def test_a_recipe_that_is_nearly_wrong_in_its_steps_is_left_alone(
    tmp_path: Path, code: str, near: Changes
) -> None:
    assert_left_alone(tmp_path, code, STEPS_AND_LATER[code], near)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "severities"), [(1.02, ["note"]), (1.1, [])])
def test_a_recipe_that_barely_fits_is_said(
    tmp_path: Path, room: float, severities: list[str]
) -> None:
    whole = predict(load_recipe(str(write(tmp_path, (*WIDE, 'budget.vram = "24 GiB"')))))
    assert whole.needed_bytes is not None
    budget = f'budget.vram = "{int(whole.needed_bytes * room) // 2**20} MiB"'
    file = write(tmp_path, (*WIDE, budget))
    found = [one for one in checked(file, "FT702").findings if one.code == "FT702"]
    assert [one.severity.value for one in found] == severities
    assert all(one.place == place_of(file, "budget") for one in found)


@pytest.mark.parametrize("one", all_checks(), ids=lambda one: one.code)
def test_each_check_is_tripped_by_a_recipe_or_cannot_be(one: Check) -> None:
    tables = (STATIC_AND_DATA, STEPS_AND_LATER, MEASURED, NOT_BY_RECIPE)
    assert sum(one.code in table for table in tables) == 1


def test_the_tables_hold_checks_and_near_misses_alone() -> None:
    codes = {one.code for one in all_checks()}
    assert {*STATIC_AND_DATA, *STEPS_AND_LATER, *MEASURED, *NOT_BY_RECIPE} == codes
    assert set(REFUSED) <= codes
    assert all(case.near for case in (*STATIC_AND_DATA.values(), *STEPS_AND_LATER.values()))
    assert all(reason for reason in NOT_BY_RECIPE.values())


@pytest.mark.parametrize(("changes", "key", "words"), REFUSED.values(), ids=REFUSED)
def test_a_recipe_is_refused_before_it_is_looked_at(
    tmp_path: Path, changes: Changes, key: str, words: str
) -> None:
    file = write(tmp_path, changes)
    with pytest.raises(RecipeError, match=words) as raised:
        load_recipe(str(file))
    assert raised.value.exit_code == 2
    assert f"{place_of(file, key)}: {key}" in raised.value.message


def test_a_value_under_the_name_of_another_version_has_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, ('training.evaluation_strategy = "epoch"', "lora.r = 16"))
    place = load_recipe(str(file)).place("training.eval_strategy")
    assert place == place_of(file, "training.evaluation_strategy")


def test_a_fix_replaces_the_name_of_another_version(tmp_path: Path) -> None:
    file = write(tmp_path, ("training.warmup_ratio = 0.9",))
    file.write_text(changed(file.read_text("utf-8"), {"training.warmup_steps": 3}), "utf-8")
    assert load_recipe(str(file)).training["warmup_steps"] == 3


def test_a_base_that_is_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    file = write(tmp_path, ('model.name_or_path = "adapter"',))
    (found,) = checked(file, "FT308").findings
    assert (found.code, found.place) == ("FT426", place_of(file, "model.name_or_path"))


def test_own_code_that_cannot_be_built_is_a_finding(tmp_path: Path) -> None:
    words(tmp_path / "floats", {"a": 1.0, "return": 2.0}, 0.0)
    jsonl(tmp_path / "own.jsonl", TEXTS[:24])
    file = write(tmp_path, (*code("floats"), *own_file("own.jsonl")))
    (found,) = checked(file, "FT205").findings
    assert found.code == "FT426"
    assert "building the recipe: ValueError" in found.sentence


def test_what_a_library_needs_is_said_at_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, ('model.attn_implementation = "flash_attention_2"',))
    (found,) = checked(file, "FT426").findings
    assert found.place == place_of(file, "model.name_or_path")
    assert found.sentence.startswith('building the recipe: model "ftcheck:tiny-gpt2" cannot be')
