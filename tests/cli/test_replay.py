"""`ftcheck vram --replay`: a memory snapshot on another GPU, and the way there and back."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.snapshot import save_torch_snapshot
from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from tests.helpers.recipes import ftcheck_command

MIB = 1024**2
LOAD = Tags(phase="load", category="base weights", op="aten::empty", module="wte.weight")
STEP = Tags(phase="step 1", category="saved activations", op="aten::mm", module="h.0 (Linear)")


def fragmented() -> Trace:
    """700 MiB, of which 400 come back in pieces of 100 that are too small for the last 390."""
    recorder = TraceRecorder()
    for number in range(7):
        recorder.allocate(number, 100 * MIB, LOAD)
    for number in (0, 2, 4, 6):
        recorder.free(number)
    recorder.allocate(9, 390 * MIB, STEP)
    return recorder.finish()


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    file = tmp_path / "run.pickle"
    save_torch_snapshot(fragmented(), file)
    return file


def replayed(snapshot: Path, *arguments: str | Path, code: int = 0, **more: Any) -> dict[str, Any]:
    answer = ftcheck_command(
        "vram", "--replay", snapshot, "--format", "json", *arguments, cwd=snapshot.parent, **more
    )
    assert answer.returncode == code, answer.stderr
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def test_figures_beside_those_of_the_recording(snapshot: Path) -> None:
    report = replayed(snapshot, "--vram", "8GiB")
    assert (report["subject"], report["how"], report["fits"]) == ("run.pickle", "replayed", True)
    assert report["peak_allocated_bytes"] == 700 * MIB
    assert report["peak_reserved_bytes"] == 1090 * MIB
    assert report["fragmentation"] == pytest.approx(1 - 690 / 1090, rel=1e-12, abs=0)
    assert report["needed_bytes"] == (300 + 700) * MIB  # the pieces go back, whole segments each
    recorded = report["recorded"]
    assert recorded["peak_reserved_bytes"] == 1090 * MIB
    assert recorded["peak_requested_bytes"] == 700 * MIB
    assert (recorded["allocated_bytes"], recorded["reserved_bytes"]) == (690 * MIB, 1090 * MIB)
    assert (recorded["conf"], recorded["available_bytes"], recorded["device"]) == ("", None, 0)
    assert (report["alloc_conf"], report["assumptions"]) == ("", [])
    assert recorded["gaps"] == [
        "Memory of other processes, and of this one outside of PyTorch, is not in a snapshot."
    ]


def test_a_gpu_that_is_too_small_names_the_request(snapshot: Path) -> None:
    report = replayed(snapshot, "--vram", "990MiB", code=1)
    assert report["fits"] is False
    assert report["failure"]["message"].startswith(
        "CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of 990.00"
    )
    assert (report["failure"]["phase"], report["failure"]["op"]) == ("load", "aten::empty")


@pytest.mark.parametrize(
    "said",
    [
        (("--alloc-conf", "expandable_segments:True"), {}),
        ((), {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        (
            ("--alloc-conf", "expandable_segments:True"),
            {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"},
        ),
    ],
    ids=["option", "variable", "both"],
)
def test_other_allocator_settings(
    snapshot: Path, said: tuple[tuple[str, ...], dict[str, str]]
) -> None:
    report = replayed(snapshot, *said[0], environment=said[1])
    assert report["alloc_conf"] == "expandable_segments:True"
    assert report["fits"] is None
    assert report["peak_reserved_bytes"] == 1000 * MIB


def test_the_settings_of_the_recording_are_the_default(tmp_path: Path) -> None:
    file = tmp_path / "run.pickle"
    save_torch_snapshot(fragmented(), file, AllocatorSettings(expandable_segments=True))
    assert replayed(file)["alloc_conf"] == "expandable_segments:True"
    content = pickle.loads(file.read_bytes())
    content["allocator_settings"]["PYTORCH_CUDA_ALLOC_CONF"] = "backend:cudaMallocAsync"
    file.write_bytes(pickle.dumps(content))
    report = replayed(file)
    assert report["alloc_conf"] == ""
    assert report["assumptions"] == [
        "allocator settings: the defaults; those of the run cannot be simulated: backend: got "
        "'cudaMallocAsync', expected native, the only backend that is simulated"
    ]
    del content["allocator_settings"]
    file.write_bytes(pickle.dumps(content))
    assert replayed(file)["assumptions"] == [
        "allocator settings: the defaults; the snapshot has none"
    ]


def test_the_text_and_the_markdown(snapshot: Path) -> None:
    answer = ftcheck_command("vram", "--replay", snapshot, "--vram", "8GiB", cwd=snapshot.parent)
    assert answer.returncode == 0, answer.stderr
    for words in (
        "run.pickle on a card with 8.00 GiB: FITS, 7.02 GiB to spare (replayed in ",
        "peak allocated 700.00 MiB replayed, tensors",
        "37% of it unused",
        "At the peak, in load: aten::empty in wte.weight",
        "Recorded on device 0, events: ",
        "peak reserved 1.06 GiB 1.06 GiB",
        "allocator settings: recorded: defaults; replayed: defaults",
        "Not in the snapshot Memory of other processes",
    ):
        assert words in " ".join(answer.stdout.split())
    answer = ftcheck_command(
        *("vram", "--replay", snapshot, "--vram", "990MiB", "--format", "markdown"),
        cwd=snapshot.parent,
    )
    assert answer.returncode == 1, answer.stderr
    assert answer.stdout.startswith("**run.pickle on a card with 990.00 MiB: DOES NOT FIT, ")
    assert (
        "| | recorded | replayed |\n| --- | ---: | ---: |\n| peak requested | 700" in answer.stdout
    )
    assert "- not in the snapshot: Memory of other" in answer.stdout


@pytest.mark.parametrize("suffix", [".html", ".svg", ".pickle"])
def test_a_timeline_of_a_replay(snapshot: Path, suffix: str) -> None:
    file = snapshot.with_name(f"timeline{suffix}")
    replayed(snapshot, "--vram", "8GiB", "--timeline", file)
    if suffix == ".pickle":
        first, second = replayed(snapshot, "--vram", "8GiB"), replayed(file, "--vram", "8GiB")
        assert second["peak"] == first["peak"]
        assert second["recorded"] == first["recorded"]
    else:
        text = file.read_text(encoding="utf-8")
        assert "run.pickle on a card with 8.00 GiB" in text
        assert "area-base-weights" in text


def test_what_ftcheck_wrote_gives_the_same_peaks(tmp_path: Path) -> None:
    file = tmp_path / "quickstart.pickle"
    answer = ftcheck_command(
        *("vram", "quickstart", "--set", "training.max_steps=1", "--vram", "8GiB"),
        *("--timeline", file, "--format", "json"),
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    predicted, report = json.loads(answer.stdout), replayed(file, "--vram", "8GiB")
    same = ("peak_allocated_bytes", "peak_reserved_bytes", "fragmentation", "needed_bytes")
    assert [report[name] for name in same] == [predicted[name] for name in same]
    assert report["phases"] == predicted["phases"]
    assert report["peak"] == predicted["peak"]
    assert report["recorded"]["peak_reserved_bytes"] == predicted["peak_reserved_bytes"]
    assert len(report["recorded"]["gaps"]) == 1


def test_what_failed_for_ftcheck_fails_again(snapshot: Path) -> None:
    file = snapshot.with_name("failed.pickle")
    before = replayed(snapshot, "--vram", "990MiB", "--timeline", file, code=1)
    again = replayed(file, "--vram", "990MiB", code=1)
    assert again["failure"] == before["failure"]
    assert again["recorded"]["available_bytes"] == 690 * MIB
    assert again["recorded"]["gaps"][0].startswith("The run ran out of memory.")
    # With enough memory the request that failed is granted, and all that is known fits.
    assert replayed(file, "--vram", "8GiB")["peak_allocated_bytes"] == 700 * MIB


def test_the_device_that_is_named(snapshot: Path) -> None:
    content = pickle.loads(snapshot.read_bytes())
    second = [event for event in content["device_traces"][0] if event["size"] == 100 * MIB]
    content["device_traces"].append([{**event, "addr": event["addr"] + 1} for event in second[:2]])
    content["segments"].append({**content["segments"][1], "device": 1, "address": 2**41})
    snapshot.write_bytes(pickle.dumps(content))
    busiest = replayed(snapshot)
    assert busiest["recorded"]["device"] == 0
    assert busiest["recorded"]["gaps"][0].startswith("Device 0, the busiest, is replayed alone")
    other = replayed(snapshot, "--device", "1")
    assert other["recorded"]["device"] == 1
    assert other["peak_allocated_bytes"] == 200 * MIB


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--replay", "none.pickle"), "none.pickle: cannot be read: No such file"),
        (("--replay", "text.pickle"), "text.pickle: cannot be read as a memory snapshot"),
        (
            ("--replay", "code.pickle"),
            "code.pickle: cannot be read as a memory snapshot: it names ",
        ),
        (("--replay", "run.pickle", "--device", "3"), "device 3: the snapshot has no allocations"),
        (("--replay", "run.pickle", "quickstart"), "--replay goes with none of RECIPE, --set"),
        (("--replay", "run.pickle", "--measure"), "--replay goes with none of"),
        (("--replay", "run.pickle", "--set", "a.b=1"), "--replay goes with none of"),
        (("--replay", "run.pickle", "--what-if"), "--replay goes with none of"),
        (("--replay", "run.pickle", "--max-batch"), "--replay goes with none of"),
        (("--replay", "run.pickle", "--card", "rtx4070"), "Did you mean rtx4070"),
        (("--replay", "run.pickle", "--timeline", "m.gif"), "expected one of .html"),
        (
            ("--replay", "run.pickle", "--alloc-conf", "expandable:True"),
            "--alloc-conf: expandable: unknown key",
        ),
        (("quickstart", "--alloc-conf", "max_split_size_mb:1"), "--alloc-conf: max_split_size_mb"),
        (("quickstart", "--device", "0"), "--device needs --replay"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_message(snapshot: Path, arguments: tuple[str, ...], words: str) -> None:
    folder = snapshot.parent
    (folder / "text.pickle").write_text("nothing", encoding="utf-8")
    (folder / "code.pickle").write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    before = sorted(folder.iterdir())
    answer = ftcheck_command("vram", *arguments, cwd=folder)
    assert answer.returncode == 2, answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not answer.stdout
    assert sorted(folder.iterdir()) == before


def test_the_allocator_settings_of_a_prediction(tmp_path: Path) -> None:
    answer = ftcheck_command(
        *("vram", "quickstart", "--set", "training.max_steps=1", "--timeline", "m.pickle"),
        *("--alloc-conf", "expandable_segments:True"),
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    assert replayed(tmp_path / "m.pickle")["recorded"]["conf"] == "expandable_segments:True"


def test_control_characters_stay_out_of_the_terminal(tmp_path: Path) -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, MIB, Tags(phase="\x1b[2J", op="\x07", module="\r", category="\x9b"))
    save_torch_snapshot(recorder.finish(), tmp_path / "run.pickle")
    answer = ftcheck_command("vram", "--replay", "run.pickle", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert not re.search(r"[^\n\x20-\x7e\u2026]", answer.stdout)
    assert "At the peak, in \\x1b[2J: \\x07 in \\r" in answer.stdout


def test_a_replay_needs_no_torch(snapshot: Path) -> None:
    program = (
        "import sys\n"
        "from ftcheck.cli import main\n"
        f"sys.argv = ['ftcheck', 'vram', '--replay', {str(snapshot)!r}]\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
