"""Memory snapshots: what torch's own viewer makes of them, and the way back into a trace."""

from __future__ import annotations

import importlib
import io
import pickle
import pickletools
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.conf import parse_conf
from ftcheck.allocator.recording import read_recording
from ftcheck.allocator.replay import ReplayResult, replay
from ftcheck.allocator.snapshot import save_torch_snapshot, torch_snapshot
from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from tests.allocator.test_replay import FEW, SETTINGS
from tests.allocator.test_trace import traces

MIB = 1024**2
CAPACITIES = st.none() | st.integers(0, 300).map(lambda amount: amount * MIB)
WEIGHT = Tags(phase="load", category="base weights", op="aten::empty", module="wte.weight")
LOGITS = Tags(phase="step 1", category="logits and loss", op="aten::mm", module="lm_head (Linear)")
VIEWER = {
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "MEMOIZE",
    "BINGET",
    "LONG_BINGET",
    "BINPUT",
    "LONG_BINPUT",
    "APPEND",
    "APPENDS",
    "LIST",
    "EMPTY_LIST",
    "DICT",
    "EMPTY_DICT",
    "SETITEM",
    "SETITEMS",
    "TUPLE",
    "EMPTY_TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
}
"""What `unpickle` in torch/utils/viz/MemoryViz.js can read; it throws at anything else."""


def a_trace() -> Trace:
    recorder = TraceRecorder()
    recorder.allocate(1, 30 * MIB, WEIGHT)
    recorder.allocate(2, 12 * MIB, LOGITS)
    recorder.allocate(3, 0, LOGITS)
    recorder.free(2, Tags(phase="step 2", op="del"))
    recorder.allocate(2, 700, Tags(op="aten::add", stream=7))
    return recorder.finish()


def figures(result: ReplayResult) -> tuple[object, ...]:
    """All that a replay says in bytes, without the indices of events."""
    return (
        result.peak_allocated_bytes,
        result.peak_reserved_bytes,
        result.allocated_at_reserved_peak_bytes,
        result.peak_requested_bytes,
        result.peak_segments,
        result.retries,
    )


def actions(snapshot: dict[str, Any]) -> list[str]:
    return [event["action"] for event in snapshot["device_traces"][0]]


def taken(segments: dict[int, int], event: dict[str, Any]) -> None:
    """Take a segment event into a map of address to size, joining what adjoins."""
    address, size = event["addr"], event["size"]
    if event["action"] in ("segment_alloc", "segment_map"):
        assert all(
            address + size <= start or start + length <= address
            for start, length in segments.items()
        )
        segments[address] = size
    else:
        start = next(s for s, length in segments.items() if s <= address < s + length)
        length = segments.pop(start)
        assert address + size <= start + length
        if start < address:
            segments[start] = address - start
        if address + size < start + length:
            segments[address + size] = start + length - address - size
    for start in sorted(segments):
        while (end := start + segments.get(start, 0)) in segments and end != start:
            segments[start] += segments.pop(end)


def test_events_by_hand() -> None:
    snapshot = torch_snapshot(a_trace())
    events = snapshot["device_traces"][0]
    first = 2**40
    assert [(e["action"], e["addr"], e["size"], e["stream"], e["time_us"]) for e in events] == [
        ("segment_alloc", first, 30 * MIB, 0, 0),
        ("alloc", first, 30 * MIB, 0, 0),
        ("segment_alloc", first + 32 * MIB, 12 * MIB, 0, 1),
        ("alloc", first + 32 * MIB, 12 * MIB, 0, 1),
        ("free_requested", first + 32 * MIB, 12 * MIB, 0, 3),
        ("free_completed", first + 32 * MIB, 12 * MIB, 0, 3),
        ("segment_alloc", first + 46 * MIB, 2 * MIB, 7, 4),
        ("alloc", first + 46 * MIB, 700, 7, 4),
    ]
    assert events[3]["frames"] == [
        {"filename": "lm_head (Linear)", "line": 0, "name": "aten::mm"},
        {"filename": "(category)", "line": 0, "name": "logits and loss"},
        {"filename": "(phase)", "line": 0, "name": "step 1"},
    ]
    assert events[7]["frames"] == [{"filename": "aten::add", "line": 0, "name": "aten::add"}]
    assert (events[3]["user_metadata"], events[3]["category"]) == ("step 1", "logits and loss")
    # The viewer would count a segment into the category of the block that it was taken for.
    assert events[2]["category"] == "unknown"
    assert "unknown" in {event["category"] for event in events}


def test_segments_by_hand() -> None:
    segments = torch_snapshot(a_trace())["segments"]
    assert [
        (s["total_size"], s["allocated_size"], s["requested_size"], s["stream"], s["segment_type"])
        for s in segments
    ] == [
        (30 * MIB, 30 * MIB, 30 * MIB, 0, "large"),
        (12 * MIB, 0, 0, 0, "large"),
        (2 * MIB, 1024, 700, 7, "small"),
    ]
    assert segments[0]["frames"][0]["filename"] == "wte.weight"
    assert [(b["state"], b["size"], b["requested_size"]) for b in segments[2]["blocks"]] == [
        ("active_allocated", 1024, 700),
        ("inactive", 2 * MIB - 1024, 0),
    ]
    assert segments[2]["blocks"][0]["frames"][0]["name"] == "aten::add"


def test_a_failure_is_an_event() -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, 30 * MIB)
    recorder.allocate(2, 30 * MIB + 1, replace(LOGITS, stream=7))
    recorder.allocate(3, 10)
    snapshot = torch_snapshot(recorder.finish(), capacity_bytes=50 * MIB)
    assert actions(snapshot) == ["segment_alloc", "alloc", "oom"]
    failure = snapshot["device_traces"][0][-1]
    assert "addr" not in failure
    assert (failure["device_free"], failure["size"], failure["stream"]) == (
        20 * MIB,
        30 * MIB + 512,
        7,
    )
    assert failure["frames"][0]["name"] == "aten::mm"


def test_what_makes_room_is_recorded() -> None:
    recorder = TraceRecorder()
    for block in (1, 2):
        recorder.allocate(block, 30 * MIB)
        recorder.free(block)
        recorder.allocate(block, 40 * MIB)
        recorder.free(block)
    plain = torch_snapshot(recorder.finish(), capacity_bytes=60 * MIB)
    assert actions(plain).count("segment_free") == 1
    recorder = TraceRecorder()
    recorder.allocate(1, 30 * MIB)
    recorder.allocate(2, 50 * MIB)
    recorder.free(2)
    recorder.allocate(3, 60 * MIB, Tags(stream=3))
    growing = torch_snapshot(
        recorder.finish(), AllocatorSettings(expandable_segments=True), 100 * MIB
    )
    # The freed 50 begin at 30, and 20 are mapped and unmapped at once: 40 to 80 go.
    unmapped = growing["device_traces"][0][actions(growing).index("segment_unmap")]
    assert (unmapped["addr"], unmapped["size"]) == (2**40 + 40 * MIB, 40 * MIB)
    assert {segment["is_expandable"] for segment in growing["segments"]} == {True}


@FEW
@given(traces(), SETTINGS, CAPACITIES)
def test_events_lead_to_the_segments(
    trace: Trace, options: AllocatorSettings, capacity: int | None
) -> None:
    """What the viewer does: it walks the events, which must end at the segments and blocks."""
    snapshot = torch_snapshot(trace, options, capacity)
    segments: dict[int, int] = {}
    alive: dict[int, int] = {}
    most = 0
    for event in snapshot["device_traces"][0]:
        if event["action"].startswith("segment"):
            taken(segments, event)
        elif event["action"] == "alloc":
            end = event["addr"] + event["size"]
            assert any(start <= event["addr"] and end <= start + n for start, n in segments.items())
            assert event["addr"] not in alive
            alive[event["addr"]] = event["size"]
        elif event["action"] == "free_completed":
            assert alive.pop(event["addr"]) == event["size"]
        most = max(most, sum(segments.values()))
    assert segments == {s["address"]: s["total_size"] for s in snapshot["segments"]}
    assert alive == {
        block["address"]: block["requested_size"]
        for segment in snapshot["segments"]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    }
    assert most == replay(trace, capacity, options).peak_reserved_bytes


def has_requests(trace: Trace) -> bool:
    return any(event.size_bytes for event in trace)


@FEW
@given(traces().filter(has_requests), SETTINGS)
def test_the_way_there_and_back(trace: Trace, options: AllocatorSettings) -> None:
    recording = read_recording(torch_snapshot(trace, options))
    there = replay(trace, None, options)
    assert figures(replay(recording.trace, None, options)) == figures(there)
    kept = [event for event in trace if event.size_bytes]
    assert [(e.action, e.size_bytes, e.tags) for e in recording.trace] == [
        (e.action, e.size_bytes, e.tags) for e in kept
    ]
    assert recording.peak_requested_bytes == there.peak_requested_bytes
    assert recording.peak_reserved_bytes == there.peak_reserved_bytes
    assert parse_conf(str(recording.conf)) == options
    assert len(recording.gaps) == 1  # of other processes


@FEW
@given(traces().filter(has_requests), SETTINGS, st.integers(0, 200))
def test_up_to_a_failure_there_and_back(
    trace: Trace, options: AllocatorSettings, capacity: int
) -> None:
    snapshot = torch_snapshot(trace, options, capacity * MIB)
    recording = read_recording(snapshot)
    there = replay(trace, capacity * MIB, options)
    back = replay(recording.trace, capacity * MIB, options)
    assert (actions(snapshot)[-1:] == ["oom"]) == (not there.fits) == (not back.fits)
    assert figures(back) == figures(there)
    assert recording.peak_requested_bytes == there.peak_requested_bytes
    assert recording.peak_reserved_bytes == there.peak_reserved_bytes
    if not there.fits:
        assert recording.available_bytes == capacity * MIB
        assert str(back.out_of_memory) == str(there.out_of_memory)


def test_tags_come_back() -> None:
    tags = [event.tags for event in read_recording(torch_snapshot(a_trace())).trace]
    assert tags == [
        WEIGHT,
        LOGITS,
        Tags(phase="step 2", op="del"),
        Tags(op="aten::add", stream=7),
    ]


def test_torchs_own_tools_read_it(tmp_path: Path) -> None:
    viz: Any = importlib.import_module("torch.cuda._memory_viz")

    file = tmp_path / "run.pickle"
    save_torch_snapshot(a_trace(), file)
    snapshot = pickle.loads(file.read_bytes())
    assert snapshot == torch_snapshot(a_trace())
    summary = viz.segsum(snapshot)
    assert "total_reserved: 44.0MiB" in summary
    assert "total_allocated: 30.0MiB" in summary
    history = viz.trace(snapshot)
    assert "8 entries" in history
    assert "a = cudaMalloc(1099511627776, 30.0MiB)\nb = a[0:30.0MiB]" in history
    assert "del d # 12.0MiB" in history
    flames = viz.memory(snapshot, format_flamegraph=lambda lines: lines)
    line = "(phase):0:load;(category):0:base weights;wte.weight:0:aten::empty 31457280"
    assert f"stream_0;active_allocated;{line}" in flames
    assert line in viz.segments(snapshot, format_flamegraph=lambda lines: lines)
    with redirect_stdout(io.StringIO()) as said:
        viz.compare([], snapshot["segments"], format_flamegraph=lambda lines: lines)
    assert all(str(segment["address"]) in said.getvalue() for segment in snapshot["segments"])
    assert "snapshot.pickle" in viz.trace_plot(snapshot)
    assert "snapshot.pickle" in viz.trace_plot(snapshot, plot_segments=True)
    assert "Allocator State History" in viz.segment_plot(snapshot)
    left = viz.trace_plot(torch_snapshot(a_trace()), filter_freed=True)
    assert len(left) < len(viz.trace_plot(torch_snapshot(a_trace())))


def test_the_viewer_on_the_web_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "run.pickle"
    save_torch_snapshot(a_trace(), file, AllocatorSettings(expandable_segments=True), 60 * MIB)
    codes = list(pickletools.genops(file.read_bytes()))
    assert {code.name for code, _, _ in codes} <= VIEWER
    assert codes[0][1] == 4


def test_settings_are_named() -> None:
    options = AllocatorSettings(expandable_segments=True, max_split_size_bytes=64 * MIB)
    settings = torch_snapshot(a_trace(), options)["allocator_settings"]
    assert parse_conf(settings["PYTORCH_CUDA_ALLOC_CONF"]) == options
    assert (settings["expandable_segments"], settings["max_split_size"]) == (True, 64 * MIB)
    assert torch_snapshot(a_trace())["allocator_settings"]["max_split_size"] == -1
