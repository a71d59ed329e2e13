"""What the operating system refuses: no permission, no space, files that are too large."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import status_and_message

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write to: read-only where the user is root, else by its mode."""
    place = tmp_path / "closed"
    place.mkdir()
    if os.geteuid() == 0:
        mount(place, "ro")
        yield place
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # mapped files may be open
    else:
        place.chmod(0o555)
        yield place
        place.chmod(0o755)


def mount(place: Path, options: str) -> None:
    """Mount an empty file system, or skip where that is not allowed (in most containers)."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own can only be mounted by root")


def test_no_permission_to_write(closed_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = status_and_message(capsys, "run", "--output-dir", closed_folder / "out")
    expected = r"out cannot be written: (Permission denied|Read-only file system)"
    assert status == 2
    assert re.search(expected, message), message
    assert "Traceback" not in message


@pytest.mark.slow
def test_a_file_too_large_for_the_disk(tmp_path: Path) -> None:
    """The operating system refuses large writes in the middle of a run."""
    import resource

    limit = 300_000  # bytes a file may have: fewer than the adapter with its optimizer

    def shrink() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "ftcheck",
            "run",
            "--set",
            "data.rows=8",
            "--set",
            "training.max_steps=2",
            "--set",
            "data.eval_rows=4",
        ],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(Path(os.environ["HF_HOME"]))},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        preexec_fn=shrink,
    )
    assert answer.returncode == 2, answer.stderr
    assert "the disk refused a write" in answer.stderr or "larger than is allowed" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.glob("runs/*/summary.json"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB: room for a recipe, not for an adapter with its optimizer."""
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    mount(place, "size=400k")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # mapped files may be open


def test_no_space_left(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = status_and_message(
        capsys,
        "run",
        "--output-dir",
        small_disk / "run",
        "--set",
        "data.rows=8",
        "--set",
        "training.max_steps=2",
        "--set",
        "data.eval_rows=4",
    )
    assert status == 2, message
    assert "no space" in message
    assert "--output-dir chooses another place" in " ".join(message.split())
    assert "Traceback" not in message
    assert not (small_disk / "run" / "summary.json").exists()
