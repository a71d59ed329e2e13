"""Memory snapshots as a card makes them, read into a trace."""

from __future__ import annotations

from typing import Any

import pytest

from ftcheck.allocator.snapshot import BEFORE, trace_from_snapshot
from ftcheck.allocator.trace import Event, Tags
from ftcheck.errors import InputError

MIB = 1024**2


def frame(filename: str, line: int, name: str) -> dict[str, Any]:
    return {"filename": filename, "line": line, "name": name}


STACK = [
    frame("??", 0, "torch::unwind::unwind()"),
    frame("/usr/lib/torch/nn/functional.py", 2134, "linear"),
    frame("/home/me/train.py", 7, "step"),
]


def event(action: str, addr: int, size: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": 9, **more}


def block(size: int, state: str, **more: Any) -> dict[str, Any]:
    return {"size": size, "state": state, "frames": STACK, **more}


def recorded(state: str = "active_allocated") -> dict[str, Any]:
    """Recording began late: 0x400 was freed; 0x1000 and 0 are still alive, without an allocation.

    Args:
        state: Of the block at 0x1000.
    """
    events = [
        event("free_requested", 0x400, 500, frames=STACK),
        event("alloc", 0x200, 100, frames=STACK, user_metadata="step 3"),
        event("free_completed", 0x400, 500, frames=STACK),
        event("segment_alloc", 0x4000, 2 * MIB),
        event("alloc", 0x400, 300),
        event("free_requested", 0x200, 100),
        {"action": "oom", "size": 5, "stream": 0, "device_free": 1},
        event("snapshot", 0, 0),
    ]
    segment = {
        "device": 0,
        "address": 0x200,
        "total_size": 0x2000,
        "stream": 0,
        "blocks": [
            block(0x200, "active_pending_free", requested_size=100),
            block(0xC00, "active_allocated", requested_size=300),
            block(0x400, state, requested_size=1000),
            block(0xE00, "inactive", requested_size=77),
        ],
    }
    other = {
        "device": 1,
        "address": 0,
        "total_size": 512,
        "stream": 0,
        "blocks": [block(512, "active_allocated")],
    }
    low = {**other, "device": 0, "stream": 5}
    return {"device_traces": [events, []], "segments": [segment, other, low]}


@pytest.mark.parametrize(
    "state", ["active_allocated", "active_pending_free", "active_awaiting_free"]
)
def test_what_was_alive_before_comes_first(state: str) -> None:
    trace = trace_from_snapshot(recorded(state))
    where = "/usr/lib/torch/nn/functional.py:2134"
    linear = Tags(op="linear", module=where)
    assert list(trace) == [
        Event(
            action="alloc",
            block=0,
            size_bytes=512,
            tags=Tags(phase=BEFORE, op="linear", module=where, stream=5),
        ),
        Event(action="alloc", block=0x400, size_bytes=500, tags=Tags(phase=BEFORE)),
        Event(
            action="alloc",
            block=0x1000,
            size_bytes=1000,
            tags=Tags(phase=BEFORE, op="linear", module=where),
        ),
        Event(
            action="alloc",
            block=0x200,
            size_bytes=100,
            tags=Tags(phase="step 3", op="linear", module=where),
        ),
        Event(action="free", block=0x400, size_bytes=500, tags=linear),
        Event(action="alloc", block=0x400, size_bytes=300),
    ]
    # 0x200 waits for another stream to the end, and is never free.
    assert trace.requested_peak_bytes == 512 + 500 + 1000 + 100


def test_what_is_cached_was_not_alive_before() -> None:
    assert 0x1000 not in {each.block for each in trace_from_snapshot(recorded("inactive"))}


def test_the_other_device() -> None:
    trace = trace_from_snapshot(recorded(), device=1)
    assert [(each.block, each.size_bytes) for each in trace] == [(0, 512)]
    with pytest.raises(InputError, match=r"device 2: the snapshot has 2 devices"):
        trace_from_snapshot(recorded(), device=2)


def test_requested_frees_count_where_completed_ones_are_not_recorded() -> None:
    snapshot = recorded()
    snapshot["device_traces"][0] = [
        each for each in snapshot["device_traces"][0] if each["action"] != "free_completed"
    ]
    assert [each.block for each in trace_from_snapshot(snapshot) if each.action == "free"] == [
        0x400,
        0x200,
    ]


def test_contradictions_name_the_event() -> None:
    snapshot = recorded()
    snapshot["device_traces"][0].append(event("alloc", 0x400, 1))
    with pytest.raises(InputError, match=r"device 0, event 8 .*1024 is allocated again"):
        trace_from_snapshot(snapshot)
    snapshot["device_traces"][0][8] = {"action": "alloc", "size": 1}
    with pytest.raises(InputError, match=r"event 8 of the snapshot: it has no 'addr'"):
        trace_from_snapshot(snapshot)


@pytest.mark.parametrize("wrong", [{}, [], {"device_traces": []}, {"segments": []}])
def test_what_is_no_snapshot(wrong: Any) -> None:
    with pytest.raises(InputError, match="expected a dict with device_traces and segments"):
        trace_from_snapshot(wrong)
