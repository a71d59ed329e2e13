"""Where a recipe is read from, what is put in place of its values, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcheck.errors import DiskError, InputError, RecipeError
from ftcheck.recipe import Recipe, builtin_names, load_recipe, parse_recipe
from ftcheck.recipe.schema import Source

HEAD = '[model]\nname_or_path = "m"\n[data]\npath = "d"\n'


def source_of(recipe: Recipe) -> Source:
    assert recipe.source is not None
    return recipe.source


def test_quickstart_is_first_and_the_rest_in_order() -> None:
    first, *others = builtin_names()
    assert first == "quickstart"
    assert others == sorted(others)
    assert len(others) > 1


def test_a_built_in_one() -> None:
    recipe = load_recipe("quickstart")
    assert recipe.name == "quickstart"
    assert source_of(recipe).file == "quickstart (built in)"
    assert source_of(recipe).folder == Path()


def test_a_file_and_the_folder_that_it_is_in(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    file = folder / "recipe.toml"
    file.write_bytes(
        b"\xef\xbb\xbf" + f'description = "é"\n{HEAD}'.encode().replace(b"\n", b"\r\n")
    )
    recipe = load_recipe(file)
    assert (recipe.name, recipe.description) == ("recipe", "é")
    assert (source_of(recipe).file, source_of(recipe).folder) == (str(file), folder)
    assert source_of(recipe).line("data.path") == 5
    assert source_of(load_recipe(str(folder))).folder == folder
    other = file.rename(folder / "a.b.toml")
    assert load_recipe(other).name == "a"


def test_text_alone() -> None:
    recipe = parse_recipe(HEAD)
    assert (recipe.name, recipe.description, recipe.notices) == ("recipe", "", ())
    assert (source_of(recipe).file, source_of(recipe).folder) == ("<text>", Path())
    named = parse_recipe(HEAD, file="f", folder=Path("g"), name="n")
    assert (named.name, source_of(named).file, source_of(named).folder) == ("n", "f", Path("g"))
    assert parse_recipe(HEAD + "[checks]\nselect = ['FT1', 'FT2']\n").checks.select == (
        "FT1",
        "FT2",
    )
    assert parse_recipe(HEAD + "[generation]\nprompts = ['a', 'b']\n").generation.prompts == (
        "a",
        "b",
    )


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name, words in (
        (
            "quickstar",
            "no such file, and not the name of a built-in recipe. Did you mean quickstart?",
        ),
        ("zzzzzz.toml", "no such file, and not the name of a built-in recipe."),
        ("empty", "a folder without a recipe.toml, and not the name of a built-in recipe."),
        ("/dev/null", "not a regular file, and not the name of a built-in recipe."),
    ):
        with pytest.raises(InputError) as raised:
            load_recipe(name)
        assert raised.value.message == f"{name}: {words}"
        assert raised.value.next_step == "List the built-in ones with: ftcheck recipes"


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(HEAD.encode() + b"a = 1\n# \xff\n\n")
    with pytest.raises(RecipeError) as wrong:
        load_recipe(file)
    (problem,) = wrong.value.problems
    assert str(problem) == f"{file}:6: byte 0xff is not UTF-8, expected a text file in TOML."
    limit = 4 * 1024**2
    file.write_bytes(HEAD.encode() + b"#" * (limit - len(HEAD)))
    assert load_recipe(file).name == "r"
    file.write_bytes(HEAD.encode() + b"#" * (limit - len(HEAD) + 1))
    with pytest.raises(InputError) as large:
        load_recipe(file)
    assert large.value.message == f"{file}: is larger than 4 MiB, expected a recipe in TOML."
    file.write_text(HEAD, encoding="utf-8")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DiskError) as denied:
        load_recipe(file)
    assert denied.value.message == f"{file}: cannot be read: Permission denied."


def test_what_is_nested_too_deeply_has_no_key() -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe("a = " + "[" * 100_000)
    (problem,) = raised.value.problems
    assert (problem.file, problem.line, problem.key) == ("<text>", None, "")


def test_values_in_place_of_those_of_the_file() -> None:
    recipe = parse_recipe(
        HEAD + "rows = 3\n",
        overrides=(
            "data.rows = 5",
            "model.name_or_path=some text",
            'data.path = "a=b"',
            "training.seed=7",
            "checks.accept.FT203=meant",
        ),
    )
    assert recipe.data.rows == 5
    assert recipe.model.name_or_path == "some text"
    assert recipe.data.path == "a=b"
    assert recipe.training["seed"] == 7
    assert recipe.checks.accept == {"FT203": "meant"}
    assert source_of(recipe).line("data.rows") != 5  # the line of the file says something else
    assert (
        source_of(recipe).lines.keys().isdisjoint({"data.rows", "data.path", "model.name_or_path"})
    )
    assert "data" in source_of(recipe).lines


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.rows", "expected section.key=value."),
        ("rows=3", "expected section.key=value."),
        (".rows=3", "expected section.key=value."),
        ("data.=3", "expected section.key=value."),
        ("data.path.x=3", "path is a value, not a section."),
    ],
)
def test_what_is_no_value_in_place_of_another(override: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_recipe(HEAD, overrides=(override,))
    assert raised.value.message == f"--set {override}: {words}"
