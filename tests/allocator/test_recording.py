"""Memory snapshots as a card makes them: what is replayed, what is missing, what is refused."""

from __future__ import annotations

import copy
import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftcheck.allocator.recording import BEFORE, Recording, load_recording, read_recording
from ftcheck.allocator.replay import replay
from ftcheck.allocator.snapshot_rows import RECORDED
from ftcheck.allocator.trace import Event, Tags
from ftcheck.errors import InputError

MIB = 1024**2
OTHER_PROCESSES = (
    "Memory of other processes, and of this one outside of PyTorch, is not in a snapshot."
)


def frame(filename: str, line: int, name: str) -> dict[str, Any]:
    return {"filename": filename, "line": line, "name": name}


STACK = [
    frame("??", 0, "torch::unwind::unwind()"),
    frame("/usr/lib/torch/nn/functional.py", 2134, "linear"),
    frame("/home/me/train.py", 7, "step"),
]


def event(action: str, addr: int, size: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": 9, **more}


def oom(size: int, free: int = 1) -> dict[str, Any]:
    return {"action": "oom", "size": size, "stream": 0, "device_free": free}


def block(size: int, state: str, **more: Any) -> dict[str, Any]:
    return {"size": size, "state": state, "frames": STACK, **more}


def segment(address: int, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    size = sum(each["size"] for each in blocks)
    return {"address": address, "total_size": size, "stream": 0, "blocks": list(blocks), **more}


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
        event("snapshot", 0, 0),
    ]
    first = segment(
        0x200,
        block(0x200, "active_pending_free", requested_size=100),
        block(0xC00, "active_allocated", requested_size=300),
        block(0x400, state, requested_size=1000),
        block(0xE00, "inactive", requested_size=77),
        device=0,
    )
    other = segment(0, block(512, "active_allocated"), device=1)
    low = {**other, "device": 0, "stream": 5}
    new = segment(0x4000, block(2 * MIB, "inactive"))
    return {"device_traces": [events, []], "segments": [first, other, low, new]}


def whole(*events: dict[str, Any], blocks: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """A snapshot of a run that was recorded from its beginning, with a segment of 20 MiB."""
    used = sum(each["size"] for each in blocks)
    blocks = (*blocks, block(20 * MIB - used, "inactive", frames=[]))
    return {
        "device_traces": [[event("segment_alloc", 2**30, 20 * MIB), *events]],
        "segments": [segment(2**30, *blocks)],
    }


ALLOC = event("alloc", 2**30, 12 * MIB, frames=STACK)
USED = block(12 * MIB, "active_allocated", requested_size=12 * MIB)


def gaps(snapshot: dict[str, Any]) -> tuple[str, ...]:
    found = read_recording(snapshot).gaps
    assert found[-1] == OTHER_PROCESSES
    return found[:-1]


# What is replayed.


@pytest.mark.parametrize(
    "state", ["active_allocated", "active_pending_free", "active_awaiting_free"]
)
def test_what_was_alive_before_comes_first(state: str) -> None:
    trace = read_recording(recorded(state)).trace
    where = "/usr/lib/torch/nn/functional.py:2134"
    linear = Tags(phase=RECORDED, op="linear", module=where)
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
        Event(action="alloc", block=0x400, size_bytes=300, tags=Tags(phase=RECORDED)),
    ]
    # 0x200 waits for another stream to the end, and is never free.
    assert trace.requested_peak_bytes == 512 + 500 + 1000 + 100


def test_what_is_cached_was_not_alive_before() -> None:
    trace = read_recording(recorded("inactive")).trace
    assert 0x1000 not in {each.block for each in trace}


def test_requested_frees_count_where_completed_ones_are_not_recorded() -> None:
    snapshot = recorded()
    snapshot["device_traces"][0] = [
        each for each in snapshot["device_traces"][0] if each["action"] != "free_completed"
    ]
    trace = read_recording(snapshot).trace
    assert [each.block for each in trace if each.action == "free"] == [0x400, 0x200]


def test_figures_of_the_run() -> None:
    found = read_recording(recorded())
    assert (found.device, found.events) == (0, 7)
    assert found.peak_requested_bytes == 512 + 500 + 1000 + 100
    assert found.peak_reserved_bytes == 0x2000 + 512 + 2 * MIB
    assert found.allocated_bytes == 0xC00 + 0x400 + 512
    assert found.reserved_bytes == 0x2000 + 512 + 2 * MIB
    assert (found.available_bytes, found.conf) == (None, None)


def test_reserved_memory_is_reckoned_back_from_the_end() -> None:
    snapshot = whole(
        event("segment_map", 2**40, 6 * MIB),
        ALLOC,
        event("segment_unmap", 2**40, 4 * MIB),
        event("segment_free", 2**20, 10 * MIB),
        blocks=(USED,),
    )
    # 20 at the end: 34, less 20 and 6, were 8 before.
    found = read_recording(snapshot)
    assert (found.reserved_bytes, found.peak_reserved_bytes) == (20 * MIB, 34 * MIB)
    assert "and 8.00 MiB reserved" in found.gaps[0]


def test_the_request_that_ended_the_run_is_the_last_one() -> None:
    snapshot = whole(
        ALLOC,
        oom(30 * MIB, free=5 * MIB),
        event("free_requested", 2**30, 12 * MIB),
        event("free_completed", 2**30, 12 * MIB),
        oom(28 * MIB, free=5 * MIB),
    )
    found = read_recording(snapshot)
    assert [(each.action, each.size_bytes // MIB) for each in found.trace] == [
        ("alloc", 12),
        ("alloc", 30),
        ("free", 12),
    ]
    assert found.peak_requested_bytes == 12 * MIB
    assert found.available_bytes == 25 * MIB
    assert gaps(snapshot) == (
        "The run ran out of memory. The request that failed, 30.00 MiB, is replayed as its last; "
        "what would have followed is unknown.",
    )
    # On the same memory it fails again, and with enough it does not.
    failed = replay(found.trace, found.available_bytes)
    assert (failed.fits, failed.failed_index) == (False, 1)
    assert replay(found.trace, 42 * MIB).fits


def test_a_failure_that_the_run_survived_is_left_out() -> None:
    snapshot = whole(oom(30 * MIB), oom(25 * MIB), ALLOC, blocks=(USED,))
    found = read_recording(snapshot)
    assert [each.size_bytes for each in found.trace] == [12 * MIB]
    assert found.available_bytes is None
    assert gaps(snapshot) == ("Requests that failed while the run continued are not replayed: 2.",)


def test_text_is_free_of_control_characters() -> None:
    stack = [frame("/a\x1b[2J.py", 3, "f\u202e\n")]
    snapshot = whole({**ALLOC, "frames": stack, "user_metadata": "s\x00"}, blocks=(USED,))
    snapshot["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": "a\x07"}
    found = read_recording(snapshot)
    assert found.trace[0].tags == Tags(phase="s\\x00", op="f\\u202e\\n", module="/a\\x1b[2J.py:3")
    assert found.conf == "a\\x07"


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_the_settings_of_the_run(name: str) -> None:
    snapshot = whole(ALLOC, blocks=(USED,))
    snapshot["allocator_settings"] = {name: "expandable_segments:True", "max_split_size": -1}
    assert read_recording(snapshot).conf == "expandable_segments:True"


def test_a_backward_pass_without_python_names_operator_and_node() -> None:
    stack = [
        frame("??", 0, "torch::unwind::unwind()"),
        frame("RegisterCUDA.cpp", 0, "at::(anonymous namespace)::wrapper_CUDA_div_Tensor(at::T"),
        frame("??", 0, "at::_ops::div_Tensor::call(at::Tensor const&, at::Tensor const&)"),
        frame("??", 0, "at::_ops::div_Scalar::redispatch(c10::DispatchKeySet, at::Tensor)"),
        frame("??", 0, "at::_ops::div_Scalar::call(at::Tensor const&, c10::Scalar const&)"),
        frame("??", 0, "torch::autograd::generated::MeanBackward0::apply(std::vector<at::T"),
        frame("??", 0, "torch::autograd::Node::operator()(std::vector<at::Tensor, std::al"),
    ]
    found = read_recording(whole({**ALLOC, "frames": stack}, blocks=(USED,))).trace[0].tags
    assert (found.op, found.module) == ("aten::div_Scalar", "MeanBackward0")
    found = read_recording(whole({**ALLOC, "frames": stack[:2]}, blocks=(USED,))).trace[0].tags
    assert (found.op, found.module) == ("torch::unwind::unwind()", "??:0")


# Devices.


def test_the_busiest_device_is_read() -> None:
    snapshot = recorded()
    assert read_recording(snapshot).device == 0
    snapshot["device_traces"].reverse()
    found = read_recording(snapshot)
    assert found.device == 1
    assert found.gaps[0] == (
        "Device 1, the busiest, is replayed alone; there are allocations on others, too "
        "(--device): 0."
    )
    named = read_recording(snapshot, device=0)
    assert named.device == 0
    assert "busiest" not in named.gaps[0]


def test_the_other_device() -> None:
    found = read_recording(recorded(), device=1)
    assert [(each.block, each.size_bytes) for each in found.trace] == [(0, 512)]
    with pytest.raises(InputError, match=r"device 2: the snapshot has no allocations on it") as no:
        read_recording(recorded(), device=2)
    assert no.value.next_step == "Devices with allocations: 0, 1."


def test_a_device_on_which_nothing_was_allocated_is_not_read() -> None:
    snapshot = whole()
    with pytest.raises(InputError, match="the snapshot has no allocations"):
        read_recording(snapshot)
    snapshot["device_traces"].append([ALLOC])
    found = read_recording(snapshot)
    assert found.device == 1
    assert "busiest" not in found.gaps[0]
    with pytest.raises(InputError, match="device 0: the snapshot has no allocations on it"):
        read_recording(snapshot, device=0)


# What is missing.


def test_a_whole_recording_lacks_nothing() -> None:
    assert gaps(whole(ALLOC, blocks=(USED,))) == ()


def test_memory_from_before_the_recording_is_named() -> None:
    snapshot = recorded()
    for each in snapshot["segments"]:
        for part in each["blocks"]:
            part["frames"] = []
    assert gaps(snapshot)[1:] == (
        "The history begins with 1.96 KiB in use (blocks: 3) and 8.50 KiB reserved. The replay "
        "begins with these blocks and an empty cache; earlier peaks are unknown.",
    )


def test_a_history_that_was_cut_off_is_named() -> None:
    # Two of the blocks were recorded when they were allocated, and their events are gone.
    assert gaps(recorded())[2] == (
        "The history is cut off: it was full (at 7 events, see max_entries) or cleared. Blocks "
        "whose allocation it lost: 2."
    )


def test_a_ring_buffer_drops_the_oldest_events() -> None:
    """As torch does with `max_entries=2`: the allocation of what is alive is lost."""
    second = event("alloc", 2**30 + 12 * MIB, MIB, frames=STACK)
    used = (USED, block(MIB, "active_allocated", requested_size=MIB))
    snapshot = whole(ALLOC, second, event("free_requested", 2**30 + 12 * MIB, MIB), blocks=used)
    assert gaps(snapshot) == ()
    snapshot["device_traces"][0] = snapshot["device_traces"][0][-2:]
    began, cut_off = gaps(snapshot)
    assert began.startswith(
        "The history begins with 12.00 MiB in use (blocks: 1) and 20.00 MiB res"
    )
    assert "full (at 2 events" in cut_off


def test_a_snapshot_without_a_history_says_so() -> None:
    snapshot = whole(blocks=(USED,))
    snapshot["device_traces"] = [[]]
    found = read_recording(snapshot)
    assert [each.size_bytes for each in found.trace] == [12 * MIB]
    assert gaps(snapshot) == (
        "There is no history, only the 12.00 MiB in use and 20.00 MiB reserved when the snapshot "
        "was taken: earlier peaks are unknown.",
    )


def test_a_recording_that_was_stopped_early_is_named() -> None:
    assert gaps(whole(ALLOC)) == (
        "12.00 MiB (blocks: 1) were freed after the last event: recording was stopped before the "
        "snapshot was taken.",
    )


def test_missing_segments_leave_the_reserved_peak_unknown() -> None:
    snapshot = whole(ALLOC, blocks=(USED,))
    snapshot["segments"] = snapshot["segments"] * 2
    snapshot["device_traces"][0].append(event("segment_alloc", 2**35, 21 * MIB))
    found = read_recording(snapshot)
    assert found.peak_reserved_bytes is None
    assert "Events of segments are missing (skip_actions)" in found.gaps[-2]
    snapshot["device_traces"][0].append(event("segment_alloc", 2**36, 99 * MIB))
    snapshot["device_traces"][0].pop(1)
    assert "in use (blocks: 1). The replay begins" in read_recording(snapshot).gaps[0]


@pytest.mark.parametrize("place", ["segment", "event"])
def test_private_pools_are_named(place: str) -> None:
    snapshot = whole(ALLOC, blocks=(USED,))
    if place == "segment":
        snapshot["segments"][0]["segment_pool_id"] = (0, 1)
    else:
        snapshot["device_traces"][0][1] = {**ALLOC, "pool_id": (0, 1)}
    assert gaps(snapshot) == (
        "Private pools (CUDA graphs, MemPool) are replayed as part of the default pool.",
    )


# What is refused.


def test_contradictions_name_the_event() -> None:
    snapshot = recorded()
    snapshot["device_traces"][0].append(event("alloc", 0x400, 1))
    with pytest.raises(InputError, match=r"device 0, event 7 .*1024 is allocated again"):
        read_recording(snapshot)
    snapshot["device_traces"][0][7] = {"action": "alloc", "size": 1}
    with pytest.raises(InputError, match=r"event 7 of the snapshot: it has no 'addr'"):
        read_recording(snapshot)


@pytest.mark.parametrize("wrong", [{}, [], {"device_traces": []}, {"segments": []}, None])
def test_what_is_no_snapshot(wrong: Any) -> None:
    with pytest.raises(InputError, match="expected a dict with device_traces and segments"):
        read_recording(wrong)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("device_traces", 0), {}, "device 0 of the snapshot: got dict, expected a list"),
        (("device_traces", 0, 1), 5, "event 1 of the snapshot: got int, expected a dict"),
        (("device_traces", 0, 1, "action"), ["alloc"], "action: got .*, expected text"),
        (("device_traces", 0, 1, "addr"), "x" * 99, "addr: got 'x{59}.*, expected a whole number"),
        (("device_traces", 0, 1, "addr"), 2**63, "addr: got 9223372036854775808, expected a whole"),
        (("device_traces", 0, 1, "size"), True, "size: got True, expected a whole number"),
        (("device_traces", 0, 1, "size"), -1, "size: got -1, expected 0 or more"),
        (("device_traces", 0, 1, "stream"), 1.5, "stream: got 1.5, expected a whole number"),
        (("device_traces", 0, 1, "frames"), 3, "frames: got 3, expected a list"),
        (("device_traces", 0, 1, "frames"), [3], "event 1, frame of the snapshot: got int"),
        (("device_traces", 0, 1, "user_metadata"), 3, "user_metadata: got 3, expected text"),
        (("segments", 0), None, "segment 0 of the snapshot: got NoneType, expected a dict"),
        (("segments", 0, "total_size"), None, "segment 0 of the snapshot: it has no 'total_size'"),
        (("segments", 0, "blocks", 0), (), "segment 0, block 0 of the snapshot: got tuple"),
        (("segments", 0, "blocks", 0, "size"), None, "block 0 of the snapshot: it has no 'size'"),
    ],
)
def test_malformed_rows_are_named(place: tuple[Any, ...], value: object, says: str) -> None:
    snapshot: Any = copy.deepcopy(whole(ALLOC, blocks=(USED,)))
    row = snapshot
    for key in place[:-1]:
        row = row[key]
    row[place[-1]] = value
    with pytest.raises(InputError, match=says):
        read_recording(snapshot)


# Files.


def load(tmp_path: Path, content: bytes) -> Recording:
    file = tmp_path / "run.pickle"
    file.write_bytes(content)
    return load_recording(file)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(recorded(), protocol=protocol)
    assert load(tmp_path, content).trace == read_recording(recorded()).trace


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_file_is_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "run"
    snapshot = {**recorded(), "external_annotations": Hostile(mark)}
    content = pickle.dumps(snapshot, protocol=protocol)
    with pytest.raises(InputError, match="only plain containers, text and numbers are allowed"):
        load(tmp_path, content)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as a memory snapshot: it is empty"),
        (b"\xffPNG", "cannot be read as a memory snapshot: invalid load key"),
        (b"PK\x03\x04torch.save", "cannot be read as a memory snapshot: pickle data was trunc"),
        (b"cos\nsystem\n(S'true'\ntR.", "it names os.system, and only plain containers"),
        (b"P1\n.", "it refers to objects outside of the file"),
        (pickle.dumps(recorded())[:-40], "cannot be read as a memory snapshot"),
        (pickle.dumps([recorded()]), "got a list, expected a memory snapshot"),
        (pickle.dumps({"a": 1}), "not a memory snapshot, expected a dict with device_traces"),
        (pickle.dumps(whole()), "run.pickle: the snapshot has no allocations"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "cannot be read as a memory snapshot"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        load(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path / "run.pickle"))
    assert error.value.next_step
    assert error.value.exit_code == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.pickle: cannot be read: No such file"):
        load_recording(tmp_path / "none.pickle")


CONTENT = pickletools.optimize(pickle.dumps(recorded(), protocol=2))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, end: int, at: int, value: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[at] = value
    try:
        found = load(tmp_path, bytes(damaged[:end] if end % 3 else damaged))
    except InputError:
        return
    assert len(found.trace)
