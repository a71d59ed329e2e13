"""Traces: what is refused, what is counted, and the round trip through JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcheck.allocator.trace import NO_TAGS, Event, Tags, Trace, TraceRecorder

LOSS = Tags(phase="step 1", category="logits and loss", op="aten::_log_softmax", module="lm_head")


def alloc(block: int, size_bytes: int, tags: Tags = NO_TAGS) -> Event:
    return Event(action="alloc", block=block, size_bytes=size_bytes, tags=tags)


def free(block: int, size_bytes: int) -> Event:
    return Event(action="free", block=block, size_bytes=size_bytes)


SIZES = st.integers(0, 4096) | st.integers(0, 2 * 1024**2) | st.integers(0, 30 * 1024**2)
STEPS = st.tuples(st.booleans(), SIZES, st.integers(0, 60), st.sampled_from(["", "load", "step 1"]))


def make(steps: list[tuple[bool, int, int, str]]) -> Trace:
    """A valid trace, an event a step; block numbers are used again after a free."""
    recorder = TraceRecorder()
    alive: list[int] = []
    for frees, size, index, phase in steps:
        if alive and frees:
            recorder.free(alive.pop(index % len(alive)))
        else:
            block = min(set(range(len(alive) + 1)) - set(alive))
            recorder.allocate(block, size, Tags(phase=phase))
            alive.append(block)
    return recorder.finish()


def traces() -> st.SearchStrategy[Trace]:
    """Valid traces of up to 60 events."""
    return st.lists(STEPS, max_size=60).map(make)


def test_the_peak_of_what_was_requested_by_hand() -> None:
    trace = Trace.from_events(
        [alloc(1, 100), alloc(2, 50), free(1, 100), alloc(3, 90, LOSS), alloc(1, 20), free(3, 90)]
    )
    # 100, 150, 50, 140, 160, 70
    assert trace.requested_peak_bytes == 160
    assert trace.requested_peak_index == 4
    assert [event.block for event in trace.alive_after(4)] == [2, 3, 1]
    assert trace.alive_after(4)[1].tags == LOSS
    assert [row[:3] for row in trace.rows()][:3] == [(1, 1, 100), (1, 2, 50), (0, 1, 100)]


def test_an_empty_trace() -> None:
    trace = Trace.from_events([])
    assert (len(trace), trace.requested_peak_bytes, trace.requested_peak_index) == (0, 0, -1)
    assert Trace.from_json_lines(trace.to_json_lines()) == trace
    with pytest.raises(IndexError, match="event 0: expected one of 0 events"):
        trace.alive_after(0)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([alloc(1, 8), free(2, 8)], "event 1: block 2 is freed, expected one that is alive"),
        ([alloc(1, 8), free(1, 8), free(1, 8)], "event 2: block 1 is freed, expected one"),
        ([alloc(1, 8), alloc(1, 8)], "event 1: block 1 is allocated again, expected a free first"),
        ([alloc(7, -1)], "event 0: block 7 has -1 bytes, expected 0 or more"),
        ([alloc(1, 8), free(1, 9)], "event 1: got a free of 9 bytes, expected the 8 bytes"),
    ],
)
def test_events_that_cannot_be_are_refused(events: list[Event], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trace.from_events(events)


def test_a_recorder_knows_what_is_alive_and_goes_on_after_finish() -> None:
    recorder = TraceRecorder()
    recorder.allocate(5, 10)
    early = recorder.finish()
    assert recorder.is_alive(5)
    assert recorder.free(5) == 10
    assert not recorder.is_alive(5)
    assert (len(early), len(recorder.finish())) == (1, 2)


@given(traces())
def test_round_trip(trace: Trace) -> None:
    again = Trace.from_json_lines(trace.to_json_lines())
    assert again == trace
    assert list(again) == list(trace)
    assert again.requested_peak_bytes == trace.requested_peak_bytes
    assert again.requested_peak_index == trace.requested_peak_index
    assert Trace.from_events(trace) == trace


def test_traces_that_differ_only_in_a_tag_are_not_equal() -> None:
    assert Trace.from_events([alloc(1, 8)]) != Trace.from_events([alloc(1, 8, LOSS)])
    assert Trace.from_events([alloc(1, 8)]) != Trace.from_events([alloc(1, 9)])
    assert Trace.from_events([alloc(1, 8)]) != Trace.from_events([])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "line 1: got '', expected the header of an ftcheck-trace file"),
        ("[1,2,3]\n", "line 1: got '\\[1,2,3\\]', expected the header"),
        ('{"format":"ftcheck-trace","version":2}', "line 1: got version 2, expected 1"),
        ('{"format":"ftcheck-trace","version":1,"events":0}', "line 1: expected a list of tags"),
        ("HEADER\n[1,8]", "line 2: got '\\[1,8\\]', expected \\[block, bytes, tag\\]"),
        ("HEADER\n[1,8,0]\n[1,true]", "line 3: got '\\[1,true\\]'"),
        ("HEADER\n[1,8,0]\nnot json", "line 3: got 'not json'"),
        ("HEADER\n[1,8,0]", "got 1 events, expected 2 by line 1: the trace was cut off"),
        ("HEADER\n[1,8,0]\n[2,0]", "event 1: block 2 is freed"),
    ],
)
def test_bad_files(lines: str, message: str, tmp_path: Path) -> None:
    header = {"format": "ftcheck-trace", "version": 1, "events": 2, "tags": [["", "", "", "", 0]]}
    file = tmp_path / "trace.jsonl"
    file.write_text(lines.replace("HEADER", json.dumps(header)), encoding="utf-8")
    with pytest.raises(ValueError, match=f"trace.jsonl: .*{message}"):
        Trace.load(file)


def test_bad_tags_in_the_header() -> None:
    header = '{"format":"ftcheck-trace","version":1,"events":0,"tags":[["a","b","c",1,0]]}'
    with pytest.raises(ValueError, match=r"line 1: got tags .*, expected four texts and a stream"):
        Trace.from_json_lines(header)


def test_save_and_load(tmp_path: Path) -> None:
    trace = Trace.from_events([alloc(1, 8, LOSS), free(1, 8)])
    trace.save(tmp_path / "trace.jsonl")
    assert Trace.load(tmp_path / "trace.jsonl") == trace
    assert repr(trace) == "<Trace of 2 events, 8 bytes at the peak>"
