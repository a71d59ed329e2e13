"""What a memory snapshot of PyTorch recorded: requests to replay, peaks, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from ftcheck.allocator.conf import VARIABLES
from ftcheck.allocator.snapshot_rows import (
    SEGMENT_GROWTH,
    DeviceEvent,
    DeviceRows,
    device_rows,
    load_snapshot,
)
from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from ftcheck.errors import InputError
from ftcheck.units import format_bytes, format_count, printable

__all__ = ["BEFORE", "Recording", "load_recording", "read_recording"]

BEFORE: Final = "before recording"
"""Phase of what was alive when recording began."""
_FAILED_BLOCK: Final = -1
"""Number of the block of a request that failed; blocks have their addresses as numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a snapshot says about one device."""

    device: int
    events: int
    """Events of the device in the file."""
    trace: Trace = field(repr=False)
    """What was requested; a request that ended the run out of memory is its last one.

    What was alive before the first event comes first, in the order of the addresses, in the phase
    `BEFORE`. A block is freed at its `free_completed`: until then another stream uses it.
    """
    conf: str | None
    """`PYTORCH_ALLOC_CONF` of the run; `None` where the file has none."""
    peak_requested_bytes: int
    """Most bytes requested and alive."""
    peak_reserved_bytes: int | None
    """Most bytes reserved since the first event; `None` where segments are missing."""
    allocated_bytes: int
    """In use when the snapshot was taken, after rounding."""
    reserved_bytes: int
    """Reserved when the snapshot was taken."""
    available_bytes: int | None
    """What the GPU had for the allocator when it ran out of memory; `None` where it did not."""
    gaps: tuple[str, ...]
    """What the snapshot does not hold, one sentence each."""


def load_recording(file: Path, device: int | None = None) -> Recording:
    """Read a pickled snapshot; see `read_recording`.

    Raises:
        InputError: The file cannot be read, is no pickle of plain values, or no snapshot; with the
            file.
    """
    snapshot = load_snapshot(file)
    try:
        return read_recording(snapshot, device)
    except InputError as error:
        raise InputError(f"{file}: {error.message}", next_step=error.next_step) from error


def read_recording(snapshot: Mapping[str, Any], device: int | None = None) -> Recording:
    """Read what `torch.cuda.memory._snapshot()` returned.

    Args:
        snapshot: From torch 2.0 to 2.13, or from `torch_snapshot`.
        device: Which of the devices; `None`: the one with most events, then most memory.

    Raises:
        InputError: It is no snapshot, nothing was allocated on the device, or its events
            contradict each other; with the event.
    """
    devices = [rows for rows in device_rows(snapshot) if _has_allocations(rows)]
    rows = _chosen(devices, device)
    before = _alive_before(rows)
    failure = _final_failure(rows)
    trace, peak_requested_bytes = _replayable(rows, before, failure)
    reserved = _reserved_bytes(rows)
    is_complete = min(reserved) >= 0 and max(reserved) >= peak_requested_bytes
    return Recording(
        device=rows.device,
        events=rows.count,
        trace=trace,
        conf=_conf(snapshot),
        peak_requested_bytes=peak_requested_bytes,
        peak_reserved_bytes=max(reserved) if is_complete else None,
        allocated_bytes=sum(block.size_bytes for block in rows.blocks if not block.is_pending),
        reserved_bytes=rows.reserved_bytes,
        available_bytes=reserved[rows.events.index(failure) + 1] + failure.free_bytes
        if failure is not None and is_complete
        else None,
        gaps=(
            *_gaps_of_devices(devices, rows, device),
            *_gaps_at_the_beginning(rows, before, reserved[0]),
            *_gaps_at_the_end(rows, trace, failure),
            *_gaps_throughout(rows, is_complete=is_complete),
        ),
    )


def _has_allocations(rows: DeviceRows) -> bool:
    return bool(rows.blocks) or any(event.action not in SEGMENT_GROWTH for event in rows.events)


def _chosen(devices: list[DeviceRows], device: int | None) -> DeviceRows:
    if not devices:
        raise InputError(
            "the snapshot has no allocations",
            next_step="Call torch.cuda.memory._record_memory_history() before the run.",
        )
    if device is None:
        return max(devices, key=lambda rows: (rows.count, rows.reserved_bytes))
    for rows in devices:
        if rows.device == device:
            return rows
    raise InputError(
        f"device {device}: the snapshot has no allocations on it",
        next_step=f"Devices with allocations: {', '.join(str(rows.device) for rows in devices)}.",
    )


def _alive_before(rows: DeviceRows) -> dict[int, tuple[int, Tags]]:
    """Requested bytes and tags of what was alive before the first event, by address.

    What no event allocated, and what an event freed or what is in use at the end.
    """
    before: dict[int, tuple[int, Tags]] = {}
    seen: set[int] = set()
    for event in rows.events:
        if event.action in ("alloc", "free") and event.address not in seen:
            seen.add(event.address)
            if event.action == "free":
                tags = Tags(phase=BEFORE, stream=event.tags.stream)
                before[event.address] = (event.size_bytes, tags)
    for block in rows.blocks:
        if block.address not in seen:
            before[block.address] = (block.requested_bytes, replace(block.tags, phase=BEFORE))
    return before


def _final_failure(rows: DeviceRows) -> DeviceEvent | None:
    """The request that ended the run: the first that failed after the last that was granted."""
    failure = None
    for event in reversed(rows.events):
        if event.action == "alloc":
            return failure
        if event.action == "oom":
            failure = event
    return failure


def _replayable(
    rows: DeviceRows, before: Mapping[int, tuple[int, Tags]], failure: DeviceEvent | None
) -> tuple[Trace, int]:
    """The trace, and the most bytes that were requested and granted."""
    recorder = TraceRecorder()
    for address, (size, tags) in sorted(before.items()):
        recorder.allocate(address, size, tags)
    peak_bytes = recorder.peak_bytes
    for event in rows.events:
        try:
            if event.action == "alloc":
                recorder.allocate(event.address, event.size_bytes, event.tags)
                peak_bytes = recorder.peak_bytes
            elif event.action == "free":
                recorder.free(event.address, event.tags)
            elif event is failure:
                recorder.allocate(_FAILED_BLOCK, event.size_bytes, event.tags)
        except ValueError as error:
            raise InputError(
                f"device {rows.device}, event {event.number} of the snapshot: {error}",
                next_step="Record the run again, without skip_actions.",
            ) from error
    return recorder.finish(), peak_bytes


def _reserved_bytes(rows: DeviceRows) -> list[int]:
    """Reserved bytes before the first event and after each, reckoned back from the end."""
    changes = [SEGMENT_GROWTH.get(event.action, 0) * event.size_bytes for event in rows.events]
    return list(accumulate(changes, initial=rows.reserved_bytes - sum(changes)))


def _gaps_of_devices(
    devices: list[DeviceRows], chosen: DeviceRows, device: int | None
) -> Iterator[str]:
    others = ", ".join(str(rows.device) for rows in devices if rows is not chosen)
    if others and device is None:
        yield (
            f"Device {chosen.device}, the busiest, is replayed alone; there are allocations on "
            f"others, too (--device): {others}."
        )


def _gaps_at_the_beginning(
    rows: DeviceRows, before: Mapping[int, tuple[int, Tags]], reserved_bytes: int
) -> Iterator[str]:
    in_use = format_bytes(sum(size for size, _ in before.values()))
    # Negative where events of segments are missing.
    reserved = f" and {format_bytes(reserved_bytes)} reserved" if reserved_bytes >= 0 else ""
    if not rows.events:
        yield (
            f"There is no history, only the {in_use} in use{reserved} when the snapshot was taken: "
            "earlier peaks are unknown."
        )
    elif before or reserved_bytes > 0:
        yield (
            f"The history begins with {in_use} in use (blocks: {format_count(len(before))})"
            f"{reserved}. The replay begins with these blocks and an empty cache; earlier peaks "
            "are unknown."
        )
    allocated = {event.address for event in rows.events if event.action == "alloc"}
    dropped = sum(block.has_frames and block.address not in allocated for block in rows.blocks)
    if rows.events and dropped:
        yield (
            f"The history is cut off: it was full (at {format_count(rows.count)} events, see "
            f"max_entries) or cleared. Blocks whose allocation it lost: {format_count(dropped)}."
        )


def _gaps_at_the_end(rows: DeviceRows, trace: Trace, failure: DeviceEvent | None) -> Iterator[str]:
    known = {_FAILED_BLOCK, *(block.address for block in rows.blocks)}
    alive = trace.alive_after(len(trace) - 1)
    gone = [event.size_bytes for event in alive if event.block not in known]
    if gone:
        yield (
            f"{format_bytes(sum(gone))} (blocks: {format_count(len(gone))}) were freed after the "
            "last event: recording was stopped before the snapshot was taken."
        )
    if failure is not None:
        size = format_bytes(failure.size_bytes)
        yield (
            f"The run ran out of memory. The request that failed, {size}, is replayed as its last; "
            "what would have followed is unknown."
        )


def _gaps_throughout(rows: DeviceRows, *, is_complete: bool) -> Iterator[str]:
    allocations = [event.number for event in rows.events if event.action == "alloc"]
    last = max(allocations, default=-1)
    failures = sum(event.action == "oom" and event.number < last for event in rows.events)
    if failures:
        yield f"Requests that failed while the run continued are not replayed: {failures}."
    if not is_complete:
        yield "Events of segments are missing (skip_actions): the reserved peak is unknown."
    if rows.has_private_pools:
        yield "Private pools (CUDA graphs, MemPool) are replayed as part of the default pool."
    yield "Memory of other processes, and of this one outside of PyTorch, is not in a snapshot."


def _conf(snapshot: Mapping[str, Any]) -> str | None:
    settings = snapshot.get("allocator_settings")
    for name in VARIABLES:
        text = settings.get(name) if isinstance(settings, dict) else None
        if isinstance(text, str):
            return printable(text)
    return None
