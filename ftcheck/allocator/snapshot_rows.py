"""Events and blocks of PyTorch's memory snapshots, read from their files and checked.

Nothing that a pickle names is imported or called: only plain containers, text and numbers are read.
Fields are those of `torch.cuda.memory._snapshot()`, torch 2.0 to 2.13.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from ftcheck.allocator.snapshot import CATEGORY_FRAME, PHASE_FRAME, UNKNOWN
from ftcheck.allocator.trace import Tags
from ftcheck.errors import InputError
from ftcheck.units import printable

__all__ = [
    "RECORDED",
    "SEGMENT_GROWTH",
    "DeviceBlock",
    "DeviceEvent",
    "DeviceRows",
    "device_rows",
    "load_snapshot",
]

RECORDED: Final = "recording"
"""Phase of the events of a real run that set no `torch.cuda.memory._set_memory_metadata`."""
SEGMENT_GROWTH: Final = {
    "segment_alloc": 1,
    "segment_map": 1,
    "segment_free": -1,
    "segment_unmap": -1,
}
"""Action to the sign with which its size changes the reserved bytes."""

_IN_USE: Final = ("active_allocated", "active_pending_free", "active_awaiting_free")
"""The others are freed, but in use on another stream; the last is the documented name."""
_DEFAULT_POOL: Final = ((0, 0), [0, 0])
_LIMIT: Final = 2**63
_OPERATOR: Final = re.compile(r"at::_ops::(\w+)::call\b", re.ASCII)
_NODE: Final = re.compile(r"torch::autograd::(?:generated::)?(\w+)::apply\b", re.ASCII)
_UNPICKLING_ERRORS: Final = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
    *(TypeError, ValueError, OverflowError, MemoryError, RecursionError),
)
"""What the unpickler raises for bytes that are no pickle, by the documentation of `pickle`."""
_NEXT_STEP: Final = (
    "Make one with torch.cuda.memory._record_memory_history() before the run and "
    "torch.cuda.memory._dump_snapshot(path) after it."
)


class DeviceEvent(NamedTuple):
    """One entry of `device_traces`."""

    number: int
    """Position in the file."""
    action: str
    """`alloc`, `free`, `oom` or one of `SEGMENT_GROWTH`."""
    address: int
    """0 for an `oom`, which has none."""
    size_bytes: int
    tags: Tags
    free_bytes: int
    """Of an `oom`: what the driver still had."""
    in_default_pool: bool


class DeviceBlock(NamedTuple):
    """A block that was in use when the snapshot was taken."""

    address: int
    size_bytes: int
    requested_bytes: int
    tags: Tags
    is_pending: bool
    """Whether it was freed and another stream still used it."""
    has_frames: bool
    """Whether its allocation was recorded with a traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRows:
    """What a snapshot holds about one device."""

    device: int
    count: int
    """Entries of the device in the file, also of kinds that are not read."""
    events: tuple[DeviceEvent, ...]
    blocks: tuple[DeviceBlock, ...]
    reserved_bytes: int
    """Of all segments when the snapshot was taken."""
    has_private_pools: bool
    """Whether CUDA graphs or a `MemPool` had memory of their own."""


def load_snapshot(file: Path) -> Mapping[str, Any]:
    """Unpickle a snapshot, which may hold only plain containers, text and numbers.

    Raises:
        InputError: The file cannot be read, is no pickle, or holds anything else.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from error
    try:
        snapshot = _PlainUnpickler(io.BytesIO(content)).load()
    except _UNPICKLING_ERRORS as error:
        reason = (printable(str(error)) or type(error).__name__) if content else "it is empty"
        raise InputError(
            f"{file}: cannot be read as a memory snapshot: {reason}", next_step=_NEXT_STEP
        ) from error
    if not isinstance(snapshot, dict):
        raise InputError(
            f"{file}: got a {type(snapshot).__name__}, expected a memory snapshot",
            next_step=_NEXT_STEP,
        )
    return snapshot


class _PlainUnpickler(pickle.Unpickler):
    """Refuses everything that a pickle could import or call."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, and only plain containers, text and numbers are allowed"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def device_rows(snapshot: Mapping[str, Any]) -> list[DeviceRows]:
    """Rows of each device, in the order of the devices.

    Raises:
        InputError: It is no snapshot, or a row is malformed; with the row.
    """
    traces = snapshot.get("device_traces") if isinstance(snapshot, Mapping) else None
    segments = snapshot.get("segments") if isinstance(snapshot, Mapping) else None
    if not isinstance(traces, list) or not isinstance(segments, list):
        raise InputError(
            "not a memory snapshot, expected a dict with device_traces and segments",
            next_step=_NEXT_STEP,
        )
    return [_rows(device, trace, segments) for device, trace in enumerate(traces)]


def _rows(device: int, trace: object, segments: list[Any]) -> DeviceRows:
    if not isinstance(trace, list):
        raise _malformed(f"device {device}", f"got {type(trace).__name__}, expected a list")
    entries = [
        _Row(f"device {device}, event {number}", entry) for number, entry in enumerate(trace)
    ]
    actions = [row.text("action") for row in entries]
    # Until a free is completed another stream may use the block; `skip_actions` may leave it out.
    freed = "free_completed" if "free_completed" in actions else "free_requested"
    events = tuple(
        _event(number, "free" if action == freed else action, row)
        for number, (action, row) in enumerate(zip(actions, entries, strict=True))
        if action in ("alloc", freed, "oom", *SEGMENT_GROWTH)
    )
    own = [
        row
        for number, segment in enumerate(segments)
        if (row := _Row(f"segment {number}", segment)).whole("device", 0) == device
    ]
    return DeviceRows(
        device=device,
        count=len(trace),
        events=events,
        blocks=tuple(block for row in own for block in _blocks(row)),
        reserved_bytes=sum(row.size("total_size") for row in own),
        has_private_pools=not all(row.in_default_pool for row in own)
        or not all(event.in_default_pool for event in events),
    )


def _event(number: int, action: str, row: _Row) -> DeviceEvent:
    return DeviceEvent(
        number=number,
        action=action,
        address=row.whole("addr") if action != "oom" else 0,
        size_bytes=row.size("size"),
        tags=row.tags(row.text("user_metadata"), row.whole("stream", 0)),
        free_bytes=row.whole("device_free", 0),
        in_default_pool=row.in_default_pool,
    )


def _blocks(segment: _Row) -> Iterator[DeviceBlock]:
    """Blocks in use; their addresses follow from their sizes, which old files leave out."""
    address, stream = segment.whole("address"), segment.whole("stream", 0)
    for number, entry in enumerate(segment.items("blocks")):
        row = _Row(f"{segment.place}, block {number}", entry)
        size, state = row.size("size"), row.text("state")
        if state in _IN_USE:
            yield DeviceBlock(
                address=address,
                size_bytes=size,
                requested_bytes=row.size("requested_size", size),
                tags=row.tags("", stream),
                is_pending=state != _IN_USE[0],
                has_frames=bool(row.items("frames")),
            )
        address += size


class _Row:
    """A dict of a snapshot, whose values are checked as they are read."""

    def __init__(self, place: str, row: object) -> None:
        self.place = place
        if not isinstance(row, dict):
            raise _malformed(place, f"got {type(row).__name__}, expected a dict")
        self._row = row

    def whole(self, key: str, default: int | None = None) -> int:
        """A number of 64 bits; an error where there is none and no default."""
        value = self._value(key, default)
        if value is None:
            raise _malformed(self.place, f"it has no {key!r}")
        if type(value) is not int or not -_LIMIT <= value < _LIMIT:
            raise _malformed(self.place, f"{key}: got {_short(value)}, expected a whole number")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A number of bytes."""
        value = self.whole(key, default)
        if value < 0:
            raise _malformed(self.place, f"{key}: got {value}, expected 0 or more")
        return value

    def text(self, key: str) -> str:
        """Text, with control characters escaped; empty where there is none."""
        value = self._value(key, "")
        if not isinstance(value, str):
            raise _malformed(self.place, f"{key}: got {_short(value)}, expected text")
        return printable(value)

    def items(self, key: str) -> list[Any]:
        """A list; empty where there is none."""
        value = self._value(key, [])
        if not isinstance(value, list):
            raise _malformed(self.place, f"{key}: got {_short(value)}, expected a list")
        return value

    @property
    def in_default_pool(self) -> bool:
        """Whether it names no private pool."""
        return self._value("segment_pool_id", self._value("pool_id", (0, 0))) in _DEFAULT_POOL

    def tags(self, phase: str, stream: int) -> Tags:
        """Tags, with the operation, the module and the category of the frames.

        Frames that `torch_snapshot` wrote name all three. Otherwise the operation and the module
        are the function and the `file:line` of the innermost Python frame, or, in a backward pass,
        the operator and the node of the graph.
        """
        frames = [_Row(f"{self.place}, frame", frame) for frame in self.items("frames")[-2:]]
        names = {row.text("filename"): row.text("name") for row in frames}
        is_ours = "category" in self._row or CATEGORY_FRAME in names or PHASE_FRAME in names
        category = names.get(CATEGORY_FRAME, self.text("category"))
        op, module = self._source(is_ours=is_ours)
        return Tags(
            phase=phase or ("" if is_ours else RECORDED),
            category="" if category == UNKNOWN else category,
            op=op,
            module=module,
            stream=stream,
        )

    def _source(self, *, is_ours: bool) -> tuple[str, str]:
        """Operation and module."""
        frames = self.items("frames")
        if not frames:
            return "", ""
        python = None if is_ours else next(filter(_is_python, frames), None)
        if python is None and not is_ours and (native := _native_source(frames)):
            return native
        row = _Row(f"{self.place}, frame", python or frames[0])
        name, filename = row.text("name"), row.text("filename")
        if filename in (CATEGORY_FRAME, PHASE_FRAME):
            return "", ""
        if is_ours:
            return name, "" if filename == name else filename
        return name, f"{filename}:{row.whole('line', 0)}"

    def _value(self, key: str, default: Any) -> Any:
        value = self._row.get(key)
        return default if value is None else value


def _is_python(frame: object) -> bool:
    filename = frame.get("filename") if isinstance(frame, dict) else None
    return isinstance(filename, str) and filename.endswith(".py")


def _native_source(frames: list[Any]) -> tuple[str, str] | None:
    """The outermost operator that C++ called, and the node of the backward pass that called it."""
    names = [str(frame.get("name")) for frame in frames if isinstance(frame, dict)]
    operators = [found[1] for name in names if (found := _OPERATOR.match(name))]
    nodes = [found[1] for name in names if (found := _NODE.match(name))]
    return (f"aten::{operators[-1]}", nodes[0] if nodes else "") if operators else None


def _short(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:60]}..."


def _malformed(place: str, found: str) -> InputError:
    return InputError(
        f"{place} of the snapshot: {found}", next_step="Record the run again, without skip_actions."
    )
