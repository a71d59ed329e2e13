from __future__ import annotations

from pathlib import Path

import pytest

from ftcheck.errors import InputError
from ftcheck.pipeline import load_data
from ftcheck.recipe import Recipe, load_recipe

# datasets below 5 leaves the handle of a CSV file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
LINES = [f"line {number} of the text" for number in range(20)]


def recipe_for(path: Path, *overrides: str) -> Recipe:
    return load_recipe(
        "text-file",
        overrides=[
            f'data.path="{path}"',
            "data.shuffle_seed=7",
            "data.eval_fraction=0.25",
            *overrides,
        ],
    )


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"text": LINES, "other": list(range(20))})
    file = tmp_path / f"mine.{suffix}"
    if suffix == "txt":
        file.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    elif suffix == "jsonl":
        rows.to_json(file)
    elif suffix == "csv":
        rows.to_csv(file, index=False)
    else:
        rows.to_parquet(file)
    raw = load_data(recipe_for(file))
    expected = Dataset.from_dict({"text": LINES}).shuffle(seed=7)["text"]
    assert raw.train.column_names == ["text"]
    assert list(raw.train["text"]) == list(expected[:15])
    assert raw.evaluation is not None
    assert list(raw.evaluation["text"]) == list(expected[15:])


def test_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n\nthree\n\nfour\nfive\n\nsix", encoding="utf-8")
    raw = load_data(recipe_for(file, "data.text_unit=paragraph"))
    assert raw.evaluation is not None
    texts = [text.strip() for text in (*raw.train["text"], *raw.evaluation["text"])]
    assert sorted(texts) == ["four\nfive", "one\ntwo", "six", "three"]


def test_empty_rows_are_kept_or_dropped(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n\n  \ntwo\n\nthree\nfour\n", encoding="utf-8")
    kept = load_data(recipe_for(file, "data.drop_empty=false"))
    dropped = load_data(recipe_for(file))
    assert kept.evaluation is not None
    assert dropped.evaluation is not None
    assert len(kept.train) + len(kept.evaluation) == 7
    assert len(dropped.train) + len(dropped.evaluation) == 4
    assert (kept.dropped, dropped.dropped) == (0, 3)


def test_a_slice_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\n".join(LINES), encoding="utf-8")
    raw = load_data(recipe_for(file, "data.split=train[:40%]"))
    assert raw.evaluation is not None
    assert sorted([*raw.train["text"], *raw.evaluation["text"]]) == sorted(LINES[:8])
    with pytest.raises(InputError, match=r"cannot be read as txt: .*test"):
        load_data(recipe_for(file, "data.split=test"))


def test_paths_start_from_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.txt").write_text("\n".join(LINES), encoding="utf-8")
    file = tmp_path / "recipes" / "a.toml"
    file.write_text(
        '[model]\nname_or_path = "ftcheck:tiny-gpt2"\n[data]\npath = "mine.txt"\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert len(load_data(load_recipe(file)).train) == 20


def test_the_rows_are_those_of_shuffle_and_select() -> None:
    from datasets import load_dataset

    from ftcheck.assets import train_file

    recipe = load_recipe("quickstart", overrides=["data.rows=100"])
    theirs = load_dataset("json", data_files=str(train_file()), split="train")
    theirs = theirs.shuffle(seed=42).select(range(100))
    assert list(load_data(recipe).train["text"]) == list(theirs["text"])


def test_embedded_splits_have_no_row_in_common() -> None:
    raw = load_data(load_recipe("quickstart"))
    assert raw.evaluation is not None
    assert len(raw.evaluation) >= 100
    assert not set(raw.train["text"]) & set(raw.evaluation["text"])
