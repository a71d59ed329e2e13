"""PyTorch's memory snapshots: written from a trace, and read back into one.

The structure is that of `torch.cuda.memory._snapshot()` in torch 2.13.0 (documented in
`torch/cuda/memory.py`; written by `torch/csrc/cuda/Module.cpp` and `memory_snapshot.cpp`).
https://pytorch.org/memory_viz and `python -m torch.cuda._memory_viz` open the files. What differs
from a file of a real run:

- Addresses and segments are those of the simulated allocator.
- `time_us` is the index of the event in the trace: a trace has no clock.
- `frames` are made of the tags: the operation and its module, the category, the phase.
- `category` (which the viewer colours by) and `user_metadata` (the phase) are filled in.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ftcheck.allocator.blocks import AddressRange, Pool
from ftcheck.allocator.caching import Allocator, AllocatorSettings, Block, OutOfMemory, Segment
from ftcheck.allocator.expandable import ExpandableSegments
from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from ftcheck.errors import InputError

__all__ = ["BEFORE", "save_torch_snapshot", "torch_snapshot", "trace_from_snapshot"]

BEFORE: Final = "before recording"
"""Phase of what was alive when a snapshot's recording began."""

_PROTOCOL: Final = 4
"""What `torch.cuda.memory._dump_snapshot` writes on Python 3.8 to 3.13; the viewer reads 2 to 4."""
_UNKNOWN: Final = "unknown"
"""Category of what has none. `torch/utils/viz/MemoryViz.js` adds it by itself only where a typing
error does not stop it, so every file with events holds it."""
_CATEGORY: Final = "(category)"
_PHASE: Final = "(phase)"
_POOL: Final = (0, 0)
"""`segment_pool_id` of the default pool."""
_FREED: Final = ("free_completed", "free_requested")
_PENDING: Final = ("active_pending_free", "active_awaiting_free")
"""Freed, but in use on another stream; the second is the name in torch's documentation."""

Frames = list[dict[str, Any]]


def torch_snapshot(
    trace: Trace,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
) -> dict[str, Any]:
    """Replay a trace through the simulated allocator, and take its snapshot at the end.

    It ends at the first failure, with an `oom` event. Requests of 0 bytes leave no event, as in
    torch.

    Args:
        trace: What was asked for.
        settings: What `PYTORCH_ALLOC_CONF` would say; `None`: the defaults.
        capacity_bytes: What the allocator may take: the card less its context. `None`: no limit.

    Returns:
        Dicts, lists, tuples, texts and numbers, ready to be pickled.

    Raises:
        ValueError: The capacity is negative.
    """
    allocator = _Recording(settings, capacity_bytes)
    blocks: dict[int, Block] = {}
    alive: dict[int, Tags] = {}
    for index, event in enumerate(trace):
        allocator.at(index, event.tags)
        if event.action == "alloc":
            try:
                block = allocator.allocate(event.size_bytes, stream=event.tags.stream)
            except OutOfMemory as failure:
                allocator.record_failure(failure)
                break
            blocks[event.block] = block
            if event.size_bytes:
                alive[block.address] = event.tags
                allocator.record("alloc", block.address, event.size_bytes, block.stream)
        else:
            block = blocks.pop(event.block)
            if event.size_bytes:
                del alive[block.address]
                for action in ("free_requested", "free_completed"):
                    allocator.record(action, block.address, event.size_bytes, block.stream)
            allocator.free(block)
    return {
        "segments": [_segment(segment, alive, allocator) for segment in allocator.snapshot()],
        "device_traces": [allocator.events],
        "allocator_settings": _settings(allocator.settings),
        "external_annotations": [],
    }


def save_torch_snapshot(
    trace: Trace,
    path: Path,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
) -> None:
    """Write `torch_snapshot` as `torch.cuda.memory._dump_snapshot` does.

    Raises:
        OSError: The file cannot be written.
    """
    snapshot = torch_snapshot(trace, settings, capacity_bytes)
    with path.open("wb") as file:
        pickle.dump(snapshot, file, protocol=_PROTOCOL)


class _Recording(Allocator):
    """An allocator that keeps what `record_trace` of CUDACachingAllocator.cpp would.

    Attributes:
        events: The trace of the device.
        made: Frames of what asked for a segment, by its first address.
    """

    def __init__(self, settings: AllocatorSettings | None, capacity_bytes: int | None) -> None:
        super().__init__(settings, capacity_bytes)
        self.events: list[dict[str, Any]] = []
        self.made: dict[int, Frames] = {}
        self._frames: dict[Tags, Frames] = {}
        self._index = 0
        self._tags = Tags()
        self._expandable = _RecordingExpandable(self)

    def at(self, index: int, tags: Tags) -> None:
        """Say which event of the trace follows."""
        self._index, self._tags = index, tags

    def frames(self, tags: Tags) -> Frames:
        """Innermost first; equal tags share one list, which keeps the file small."""
        if tags not in self._frames:
            self._frames[tags] = list(_frames(tags))
        return self._frames[tags]

    def record(self, action: str, address: int, size_bytes: int, stream: int) -> None:
        """Add an event; segments belong to no category."""
        is_segment = action.startswith("segment")
        frames = self.frames(self._tags)
        if action in ("segment_alloc", "segment_map"):
            self.made[address] = frames
        self._add(
            action,
            {"addr": address, "size": size_bytes, "stream": stream},
            _UNKNOWN if is_segment else self._tags.category or _UNKNOWN,
        )

    def record_failure(self, failure: OutOfMemory) -> None:
        """The `oom` event: it has no address, and the size is the rounded one."""
        size = self.settings.round_size(failure.requested_bytes)
        self._add(
            "oom",
            {"device_free": failure.free_bytes, "size": size, "stream": self._tags.stream},
            self._tags.category or _UNKNOWN,
        )

    def _add(self, action: str, what: dict[str, int], category: str) -> None:
        self.events.append(
            {
                "action": action,
                **what,
                "time_us": self._index,
                "frames": self.frames(self._tags),
                "category": category,
                "compile_context": "",
                "user_metadata": self._tags.phase,
            }
        )

    def _take(self, pool: Pool, rounded: int, stream: int) -> Block | None:
        block = super()._take(pool, rounded, stream)
        if block is not None and block.range is None:
            self.record("segment_alloc", block.address, block.size_bytes, stream)
        return block

    def _release(self, block: Block, pool: Pool) -> None:
        self.record("segment_free", block.address, block.size_bytes, block.stream)
        super()._release(block, pool)


class _RecordingExpandable(ExpandableSegments):
    """Records what is mapped and unmapped (`map_block`, `unmap_block`)."""

    def __init__(self, recording: _Recording) -> None:
        large = recording.settings.large_segment_bytes
        super().__init__(recording.device, large_granule_bytes=large)
        self._recording = recording

    def _map(self, block: Block, pool: Pool, size_bytes: int) -> bool:
        # Where the new part begins, before it is merged with what is in front of it.
        address, before = block.address, self._device.taken.current
        mapped = super()._map(block, pool, size_bytes)
        if mapped:
            size = self._device.taken.current - before
            self._recording.record("segment_map", address, size, block.stream)
        return mapped

    def unmap(self, block: Block, pool: Pool, addresses: AddressRange) -> None:
        start, granule = addresses.start, addresses.granule_bytes
        address = start + -(-(block.address - start) // granule) * granule
        before = self._device.taken.current
        super().unmap(block, pool, addresses)
        size = before - self._device.taken.current
        if size:
            self._recording.record("segment_unmap", address, size, block.stream)


def _frames(tags: Tags) -> Iterator[dict[str, Any]]:
    if tags.op or tags.module:
        yield {"filename": tags.module or tags.op, "line": 0, "name": tags.op}
    for filename, name in ((_CATEGORY, tags.category), (_PHASE, tags.phase)):
        if name:
            yield {"filename": filename, "line": 0, "name": name}


def _segment(segment: Segment, alive: Mapping[int, Tags], allocator: _Recording) -> dict[str, Any]:
    used = [block for block in segment.blocks if block.allocated]
    allocated = sum(block.size_bytes for block in used)
    return {
        "device": 0,
        "address": segment.address,
        "total_size": segment.size_bytes,
        "allocated_size": allocated,
        "active_size": allocated,
        "requested_size": sum(block.requested_bytes for block in used),
        "stream": segment.stream,
        "segment_type": "small" if segment.is_small else "large",
        "segment_pool_id": _POOL,
        "is_expandable": segment.is_expandable,
        "frames": allocator.made.get(segment.address, []),
        "blocks": [
            {
                "address": block.address,
                "size": block.size_bytes,
                "requested_size": block.requested_bytes,
                "state": "active_allocated" if block.allocated else "inactive",
                "frames": allocator.frames(alive[block.address]) if block.allocated else [],
            }
            for block in segment.blocks
        ],
    }


def _settings(settings: AllocatorSettings) -> dict[str, Any]:
    """`allocator_settings`, as far as they are simulated; the key of the text is torch's own."""
    limit = settings.max_split_size_bytes
    return {
        "PYTORCH_CUDA_ALLOC_CONF": settings.to_environment(),
        "max_split_size": -1 if limit is None else limit,
        "garbage_collection_threshold": settings.garbage_collection_threshold,
        "expandable_segments": settings.expandable_segments,
        "roundup_power2_divisions": {
            str(2**power): steps for power, steps in enumerate(settings.roundup_power2_divisions)
        },
    }


def trace_from_snapshot(snapshot: Mapping[str, Any], device: int = 0) -> Trace:
    """The allocations and frees of a snapshot, so that a real run can be replayed.

    What was alive before recording began comes first, in the order of the addresses, in the phase
    `BEFORE`: blocks of `segments` that are in use and that no event allocated, and those whose
    free was recorded and whose allocation was not (also where the ring buffer dropped it). Sizes
    are the requested ones: the allocator records those. How the segments were laid out at that
    moment is not known, so what is reserved may differ from the real run where recording began
    late.

    A block is freed where `free_completed` says so: until then it is in use on another stream.
    Requests that failed are left out, and so are segments: the allocator of a replay makes its own.

    Tags: the phase is the event's `user_metadata`, the category its `category`; operation and
    module are read from frames that `torch_snapshot` made, and otherwise are the function and the
    `file:line` of the innermost Python frame.

    Args:
        snapshot: What `torch.cuda.memory._snapshot()` returned, or its pickle held.
        device: Which of the devices.

    Raises:
        InputError: It is no snapshot, the device is not in it, or its events contradict each
            other; with the event.
    """
    events, segments = _parts(snapshot, device)
    # Histories without completed frees exist where `skip_actions` left them out.
    completed = any(event.get("action") == "free_completed" for event in events)
    freed = _FREED[0] if completed else _FREED[1]
    recorder = TraceRecorder()
    for address, (size, tags) in sorted(_alive_before(events, segments, freed).items()):
        recorder.allocate(address, size, tags)
    for index, event in enumerate(events):
        action = event.get("action")
        try:
            if action == "alloc":
                recorder.allocate(event["addr"], event["size"], _tags(event))
            elif action == freed:
                recorder.free(event["addr"], _tags(event))
        except (KeyError, TypeError, ValueError) as error:
            raise _contradiction(device, index, error) from error
    return recorder.finish()


def _parts(
    snapshot: Mapping[str, Any], device: int
) -> tuple[Sequence[Mapping[str, Any]], list[Mapping[str, Any]]]:
    traces = snapshot.get("device_traces") if isinstance(snapshot, Mapping) else None
    segments = snapshot.get("segments") if isinstance(snapshot, Mapping) else None
    if not isinstance(traces, list) or not isinstance(segments, list):
        raise InputError(
            "got something else than a memory snapshot, expected a dict with device_traces and "
            "segments",
            next_step="Make one with torch.cuda.memory._record_memory_history() before the run "
            "and torch.cuda.memory._dump_snapshot(path) after it.",
        )
    if not 0 <= device < len(traces):
        raise InputError(
            f"device {device}: the snapshot has {len(traces)} devices",
            next_step=f"Name one of 0 to {len(traces) - 1}." if traces else "Record the run again.",
        )
    return traces[device], [segment for segment in segments if segment.get("device", 0) == device]


def _alive_before(
    events: Sequence[Mapping[str, Any]], segments: Sequence[Mapping[str, Any]], freed: str
) -> dict[int, tuple[int, Tags]]:
    """Size and tags of what no event allocated, by address."""
    before: dict[int, tuple[int, Tags]] = {}
    seen: set[int] = set()
    for event in events:
        action, address = event.get("action"), event.get("addr")
        if action not in ("alloc", freed) or address in seen:
            continue
        if not isinstance(address, int) or not isinstance(event.get("size"), int):
            continue  # whoever reads the event says so
        seen.add(address)
        if action == freed:
            tags = Tags(phase=BEFORE, stream=event.get("stream", 0))
            before[address] = (event["size"], tags)
    for segment in segments:
        address = segment["address"]
        for block in segment["blocks"]:
            state, size = block["state"], block["size"]
            if (state == "active_allocated" or state in _PENDING) and address not in seen:
                op, module, category = _who(block)
                tags = Tags(
                    phase=BEFORE, category=category, op=op, module=module, stream=segment["stream"]
                )
                before[address] = (block.get("requested_size", size), tags)
            address += size
    return before


def _tags(event: Mapping[str, Any]) -> Tags:
    op, module, category = _who(event)
    return Tags(
        phase=event.get("user_metadata", ""),
        category=category,
        op=op,
        module=module,
        stream=event.get("stream", 0),
    )


def _who(what: Mapping[str, Any]) -> tuple[str, str, str]:
    """Operation, module and category of an event or a block."""
    frames: Frames = what.get("frames") or []
    category = what.get("category", "")
    is_ours = "category" in what
    for frame in frames:
        if frame["filename"] in (_CATEGORY, _PHASE):
            is_ours = True
            category = frame["name"] if frame["filename"] == _CATEGORY else category
    category = "" if category == _UNKNOWN else category
    if not frames or frames[0]["filename"] in (_CATEGORY, _PHASE):
        return "", "", category
    if is_ours:
        op, module = frames[0]["name"], frames[0]["filename"]
        return op, "" if module == op else module, category
    first = next((frame for frame in frames if frame["filename"].endswith(".py")), frames[0])
    return first["name"], f"{first['filename']}:{first['line']}", category


def _contradiction(device: int, index: int, error: Exception) -> InputError:
    found = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return InputError(
        f"device {device}, event {index} of the snapshot: {found}",
        next_step="Record the run again, without skip_actions.",
    )
