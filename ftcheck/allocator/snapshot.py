"""PyTorch's memory snapshots, written from a trace; `ftcheck.allocator.recording` reads them.

The structure is that of `torch.cuda.memory._snapshot()` in torch 2.13.0 (documented in
`torch/cuda/memory.py`; written by `torch/csrc/cuda/Module.cpp` and `memory_snapshot.cpp`).
https://pytorch.org/memory_viz and `python -m torch.cuda._memory_viz` open the files. Differences
from the file of a real run:

- Addresses and segments are those of the simulated allocator.
- `time_us` is the index of the event in the trace: a trace has no clock.
- `frames` are made of the tags: the operation and its module, the category, the phase.
- `category` (which the viewer colours by) and `user_metadata` (the phase) are filled in.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ftcheck.allocator.caching import Allocator, AllocatorSettings, Block, OutOfMemory, Segment
from ftcheck.allocator.conf import format_conf
from ftcheck.allocator.trace import Tags, Trace

__all__ = ["CATEGORY_FRAME", "PHASE_FRAME", "UNKNOWN", "save_torch_snapshot", "torch_snapshot"]

UNKNOWN: Final = "unknown"
"""Category of what has none. `torch/utils/viz/MemoryViz.js` adds it by itself only where a type
error does not stop it, so every file with events has it."""
CATEGORY_FRAME: Final = "(category)"
"""File name of the frame that names the category."""
PHASE_FRAME: Final = "(phase)"
"""File name of the frame that names the phase."""

_PROTOCOL: Final = 4
"""What `torch.cuda.memory._dump_snapshot` writes on Python 3.8 to 3.13; the viewer reads 2 to 4."""
_POOL: Final = (0, 0)
"""`segment_pool_id` of the default pool."""

Frames = list[dict[str, Any]]


def torch_snapshot(
    trace: Trace,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
    *,
    device_total_bytes: int | None = None,
) -> dict[str, Any]:
    """Replay a trace through the simulated allocator, and take its snapshot at the end.

    It ends at the first failure, with an `oom` event. Requests of 0 bytes leave no event, as in
    torch.

    Args:
        trace: What was requested.
        settings: What `PYTORCH_ALLOC_CONF` would say; `None`: the defaults.
        capacity_bytes: What the allocator may take: the card less its context. `None`: no limit.
        device_total_bytes: The card's memory, for memory fractions.

    Returns:
        Dicts, lists, tuples, strings and numbers, ready to be pickled.

    Raises:
        ValueError: An amount is negative, or the capacity is larger than the card.
    """
    allocator = Allocator(settings, capacity_bytes, device_total_bytes=device_total_bytes)
    history = _History()
    allocator.device.on_call = history.add
    blocks: dict[int, Block] = {}
    alive: dict[int, Tags] = {}
    for index, event in enumerate(trace):
        history.index, history.tags = index, event.tags
        if event.action == "free":
            block = blocks.pop(event.block)
            if event.size_bytes:
                del alive[block.address]
                for action in ("free_requested", "free_completed"):
                    history.add(action, block.address, event.size_bytes, block.stream)
            allocator.free(block)
            continue
        try:
            block = allocator.allocate(event.size_bytes, stream=event.tags.stream)
        except OutOfMemory as failure:
            history.add_failure(failure, allocator.settings.round_size(event.size_bytes))
            break
        blocks[event.block] = block
        if event.size_bytes:
            alive[block.address] = event.tags
            history.add("alloc", block.address, event.size_bytes, block.stream)
    return {
        "segments": [_segment(segment, alive, history) for segment in allocator.snapshot()],
        "device_traces": [history.events],
        "allocator_settings": _settings(allocator.settings),
        "external_annotations": [],
    }


def save_torch_snapshot(
    trace: Trace,
    path: Path,
    settings: AllocatorSettings | None = None,
    capacity_bytes: int | None = None,
    *,
    device_total_bytes: int | None = None,
) -> None:
    """Write `torch_snapshot` as `torch.cuda.memory._dump_snapshot` does.

    Raises:
        OSError: The file cannot be written.
    """
    snapshot = torch_snapshot(
        trace, settings, capacity_bytes, device_total_bytes=device_total_bytes
    )
    with path.open("wb") as file:
        pickle.dump(snapshot, file, protocol=_PROTOCOL)


class _History:
    """Events as `record_trace` of CUDACachingAllocator.cpp keeps them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.segment_frames: dict[int, Frames] = {}
        """Frames of what made the allocator take a segment, by its first address."""
        self.index = 0
        """Index in the trace of the event that is replayed."""
        self.tags = Tags()
        """Tags of that event."""
        self._frames: dict[Tags, Frames] = {}

    def frames(self, tags: Tags) -> Frames:
        """Innermost first; equal tags share one list, which keeps the file small."""
        if tags not in self._frames:
            self._frames[tags] = list(_frames(tags))
        return self._frames[tags]

    def add(self, action: str, address: int, size_bytes: int, stream: int) -> None:
        """Add an event; segments have no category."""
        is_segment = action.startswith("segment")
        if action in ("segment_alloc", "segment_map"):
            self.segment_frames[address] = self.frames(self.tags)
        self._append(
            action,
            {"addr": address, "size": size_bytes, "stream": stream},
            UNKNOWN if is_segment else self.tags.category or UNKNOWN,
        )

    def add_failure(self, failure: OutOfMemory, rounded: int) -> None:
        """Add an `oom` event: it has no address, and the size is the rounded one."""
        self._append(
            "oom",
            {"device_free": failure.free_bytes, "size": rounded, "stream": self.tags.stream},
            self.tags.category or UNKNOWN,
        )

    def _append(self, action: str, amounts: dict[str, int], category: str) -> None:
        self.events.append(
            {
                "action": action,
                **amounts,
                "time_us": self.index,
                "frames": self.frames(self.tags),
                "category": category,
                "compile_context": "",
                "user_metadata": self.tags.phase,
            }
        )


def _frames(tags: Tags) -> Iterator[dict[str, Any]]:
    if tags.op or tags.module:
        yield {"filename": tags.module or tags.op, "line": 0, "name": tags.op}
    for filename, name in ((CATEGORY_FRAME, tags.category), (PHASE_FRAME, tags.phase)):
        if name:
            yield {"filename": filename, "line": 0, "name": name}


def _segment(segment: Segment, alive: Mapping[int, Tags], history: _History) -> dict[str, Any]:
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
        "frames": history.segment_frames.get(segment.address, []),
        "blocks": [
            {
                "address": block.address,
                "size": block.size_bytes,
                "requested_size": block.requested_bytes,
                "state": "active_allocated" if block.allocated else "inactive",
                "frames": history.frames(alive[block.address]) if block.allocated else [],
            }
            for block in segment.blocks
        ],
    }


def _settings(settings: AllocatorSettings) -> dict[str, Any]:
    """`allocator_settings`, as far as they are simulated; the key of the text is torch's own."""
    limit = settings.max_split_size_bytes
    return {
        "PYTORCH_CUDA_ALLOC_CONF": format_conf(settings),
        "max_split_size": -1 if limit is None else limit,
        "garbage_collection_threshold": settings.garbage_collection_threshold,
        "expandable_segments": settings.expandable_segments,
        "roundup_power2_divisions": {
            str(2**power): steps for power, steps in enumerate(settings.roundup_power2_divisions)
        },
    }
