"""What is recorded repeats, was committed, and takes nothing from what was there."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from ftcheck.errors import InputError
from ftcheck.gate.baseline import Baseline, Kind
from ftcheck.gate.recording import Repeats, entry_of, record, require_clean_tree
from tests.allocator.entries import entry


def repeats(allocated: tuple[float, ...], kind: Kind = "predicted") -> Repeats:
    return Repeats(
        test="t",
        kind=kind,
        card="c",
        versions={},
        allocated_bytes=allocated,
        reserved_bytes=(2048, 2048),
    )


@pytest.mark.parametrize(
    ("peaks", "words"),
    [
        ((float("nan"), 1), "got nan, expected a whole number"),
        ((float("inf"), 1), "got inf, expected a whole number"),
        ((0, 0), "got 0, expected a whole number"),
        ((-5, 5), "got -5, expected a whole number"),
        ((1.5, 1.5), "got 1.5, expected a whole number"),
        ((), "got nothing, expected a peak for each call"),
    ],
)
@pytest.mark.parametrize("repeatable", [True, False])
def test_what_is_no_size_is_refused(peaks: tuple[float, ...], words: str, repeatable: bool) -> None:
    with pytest.raises(InputError, match=f"t: allocated: {words}"):
        entry_of(repeats(peaks), repeatable=repeatable)


@pytest.mark.parametrize(
    ("kind", "peaks", "passes"),
    [
        ("predicted", (1000, 1000), True),
        ("predicted", (1000, 1001), False),
        ("predicted", (1000,), False),
        ("measured", (990, 1000), True),  # 1 % of the largest
        ("measured", (989, 1000), False),
        ("measured", (1000, 1000, 900), False),
    ],
)
def test_a_figure_must_repeat(kind: Kind, peaks: tuple[float, ...], passes: bool) -> None:
    assert entry_of(repeats(peaks, kind), repeatable=False).allocated_bytes == 1000 + (
        peaks[-1] == 1001
    )
    if passes:
        assert entry_of(repeats(peaks, kind), repeatable=True).allocated_bytes == 1000
    else:
        with pytest.raises(InputError, match=r"does not repeat|expected two or more"):
            entry_of(repeats(peaks, kind), repeatable=True)


def test_recording_the_same_again_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "b.json"
    record(file, [entry()])
    before = file.stat()
    record(file, [entry()])
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert [one.name for one in file.parent.iterdir()] == ["b.json"]


def test_a_link_to_a_baseline_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "b.json", tmp_path / "link.json"
    link.symlink_to(file)
    record(link, [entry()])
    assert link.is_symlink()
    assert Baseline.read(file).tests == {"test_a.py::test_step"}


def test_recorders_side_by_side_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    names = [f"t{number}" for number in range(24)]
    threads = [threading.Thread(target=record, args=(file, [entry(test=name)])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Baseline.read(file).tests == set(names)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one committed test."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "test_a.py").write_text("", encoding="utf-8")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "x")


def test_a_clean_tree_may_be_recorded(checkout: Path) -> None:
    baseline = checkout / "sub dir" / "b.json"
    require_clean_tree(checkout, baseline)
    record(baseline, [entry()])
    require_clean_tree(checkout, baseline)  # untracked
    commit(checkout)
    record(baseline, [entry(allocated_bytes=7)])
    require_clean_tree(checkout / "sub dir", baseline)  # changed


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("test_a.py", True),
        ("conftest.py", True),
        ("new/my.recipe.toml", True),
        ("log.txt", False),
        ("é report.json", False),
    ],
)
def test_changes_that_count(checkout: Path, name: str, refused: bool) -> None:
    file = checkout / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("# changed\n", encoding="utf-8")
    if refused:
        with pytest.raises(InputError, match=f"not committed \\({name}\\)"):
            require_clean_tree(checkout, checkout / "b.json")
    else:
        require_clean_tree(checkout, checkout / "b.json")
        commit(checkout)
        file.write_text("# changed again\n", encoding="utf-8")
        with pytest.raises(InputError, match="not committed"):
            require_clean_tree(checkout, checkout / "b.json")


def test_a_checkout_that_git_cannot_read_is_not_clean(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(InputError, match=r"git cannot say whether .* is committed: fatal"):
        require_clean_tree(tmp_path, tmp_path / "b.json")
    (tmp_path / ".git" / "HEAD").unlink()
    with pytest.raises(InputError, match=r"git cannot say whether .* is committed: fatal"):
        require_clean_tree(tmp_path, tmp_path / "b.json")


def test_git_must_be_there_for_a_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="git cannot say whether"):
        require_clean_tree(checkout, checkout / "b.json")
    require_clean_tree(tmp_path, tmp_path / "b.json")  # no checkout, nothing to ask
