from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ftcheck.errors import InputError, ResumeRefused
from ftcheck.files import write_text
from ftcheck.pipeline import RunFolder, run
from ftcheck.pipeline.folder import is_complete
from tests.helpers.recipes import small_recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint of a Trainer."""
    import warnings

    folder = tmp_path_factory.mktemp("run") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(small_recipe("training.save_steps=2"), RunFolder.at(folder))
    return folder / "checkpoints" / "checkpoint-2"


def test_a_whole_checkpoint_is_complete(checkpoint: Path) -> None:
    assert is_complete(checkpoint)


PARTS = [
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_is_not(
    checkpoint: Path, tmp_path: Path, part: str, kept: float | None
) -> None:
    copy = tmp_path / "checkpoint-2"
    shutil.copytree(checkpoint, copy)
    content = (copy / part).read_bytes()
    if kept is None:
        (copy / part).unlink()
    else:
        (copy / part).write_bytes(content[: int(len(content) * kept)])
    assert not is_complete(copy)


def test_the_last_complete_one_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "run")
    assert folder.last_checkpoint() is None
    for step in (2, 10, 9):
        shutil.copytree(checkpoint, folder.checkpoints / f"checkpoint-{step}")
    (folder.checkpoints / "checkpoint-10" / "trainer_state.json").unlink()
    (folder.checkpoints / "checkpoint-notes").mkdir()
    last = folder.last_checkpoint()
    assert last is not None
    assert last.step == 9


def test_run_folders_are_numbered_and_never_taken_twice(tmp_path: Path) -> None:
    names = [RunFolder.new(tmp_path / "runs", "a").root.name for _ in range(3)]
    (tmp_path / "runs" / "a-9").mkdir()
    (tmp_path / "runs" / "a-b-40").mkdir()
    names.append(RunFolder.new(tmp_path / "runs", "a").root.name)
    assert names == ["a-1", "a-2", "a-3", "a-10"]


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunFolder.at(tmp_path / "empty").root.is_dir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="never overwritten"):
        RunFolder.at(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "x"


def test_what_can_be_resumed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(ResumeRefused, match="no run of a in"):
        RunFolder.unfinished(runs, "a")
    for name in ("a-1", "a-2", "a-10"):
        (runs / name).mkdir(parents=True)
    (runs / "a-10" / "summary.json").write_text("{}", encoding="utf-8")
    assert RunFolder.unfinished(runs, "a").root.name == "a-2"
    with pytest.raises(ResumeRefused, match="is finished"):
        RunFolder.existing(runs / "a-10")
    with pytest.raises(ResumeRefused, match="is no run folder"):
        RunFolder.existing(runs / "a-1")


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text(encoding="utf-8") == "old"
    write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "new"
