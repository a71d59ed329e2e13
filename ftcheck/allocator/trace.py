"""The ordered allocations and frees of a run: what was requested, and by which operation.

A trace is independent of the allocator: sizes are those that were requested. Events are held in
columns, which keeps long traces small and fast.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["NO_TAGS", "Event", "Tags", "Trace", "TraceRecorder"]

_FORMAT: Final = "ftcheck-trace"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What requested the memory. Every tag is optional; equal tags are stored once."""

    phase: str = ""
    """Part of the run, such as `load`, `step 1`, `eval`, `save`, `generate`."""
    category: str = ""
    """What the memory holds, such as `base weights`, `gradients`, `saved activations`."""
    op: str = ""
    """The operation, such as `aten::_log_softmax_backward_data`."""
    module: str = ""
    """Dotted name of the module that was running."""
    stream: int = 0
    """CUDA stream of the allocation; memory is only reused on its own stream."""


NO_TAGS: Final = Tags()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One allocation or free."""

    action: Literal["alloc", "free"]
    block: int
    """Number of the block: unique among those that are alive, reusable after its free."""
    size_bytes: int
    """Bytes that were requested; a free repeats those of its allocation."""
    tags: Tags = NO_TAGS
    """Of a free: of what freed the block."""


class Trace:
    """An immutable, valid sequence of events. Make one with `TraceRecorder` or `from_events`."""

    __slots__ = (
        "_allocs",
        "_blocks",
        "_sizes",
        "_tags",
        "requested_peak_bytes",
        "requested_peak_index",
        "tags",
    )

    def __init__(self, recorder: TraceRecorder) -> None:
        self._allocs = bytes(recorder.allocs)
        self._blocks = array("q", recorder.blocks)
        self._sizes = array("q", recorder.sizes)
        self._tags = array("L", recorder.tag_numbers)
        self.tags: tuple[Tags, ...] = tuple(recorder.tag_table)
        """Every combination of tags, once."""
        self.requested_peak_bytes = recorder.peak_bytes
        """Most bytes alive at once, as requested."""
        self.requested_peak_index = recorder.peak_index
        """Index of the event that first reached it; -1 for an empty trace."""

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> Trace:
        """Make a trace of events; raises `ValueError` with the index of the first invalid one."""
        recorder = TraceRecorder()
        for event in events:
            if event.action == "alloc":
                recorder.allocate(event.block, event.size_bytes, event.tags)
            else:
                size = recorder.free(event.block, event.tags)
                if size != event.size_bytes:
                    raise ValueError(
                        f"event {len(recorder) - 1}: got a free of {event.size_bytes} bytes, "
                        f"expected the {size} bytes of block {event.block}"
                    )
        return recorder.finish()

    def __len__(self) -> int:
        return len(self._allocs)

    def __iter__(self) -> Iterator[Event]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Event:
        return Event(
            action="alloc" if self._allocs[index] else "free",
            block=self._blocks[index],
            size_bytes=self._sizes[index],
            tags=self.tags[self._tags[index]],
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._equals(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} events, {self.requested_peak_bytes} bytes at the peak>"

    def _equals(self, other: Trace) -> bool:
        return (
            self._allocs == other._allocs
            and self._blocks == other._blocks
            and self._sizes == other._sizes
            and all(
                self.tags[mine] == other.tags[theirs]
                for mine, theirs in set(zip(self._tags, other._tags, strict=True))
            )
        )

    def rows(self) -> Iterator[tuple[int, int, int, int]]:
        """Iterate fast: (1 for an allocation, block, bytes, stream) of each event."""
        streams = [tags.stream for tags in self.tags]
        columns = zip(self._allocs, self._blocks, self._sizes, self._tags, strict=True)
        return ((alloc, block, size, streams[tag]) for alloc, block, size, tag in columns)

    def phases(self) -> Iterator[tuple[str, int, int]]:
        """Runs of events of one phase, in order: (phase, first event, event after the last)."""
        names = [tags.phase for tags in self.tags]
        start = 0
        for index in range(1, len(self) + 1):
            if index == len(self) or names[self._tags[index]] != names[self._tags[start]]:
                yield names[self._tags[start]], start, index
                start = index

    def alive_after(self, index: int) -> list[Event]:
        """Allocations that are alive after an event, oldest first.

        Raises:
            IndexError: There is no such event.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"event {index}: expected one of {len(self)} events")
        alive: dict[int, int] = {}
        for position in range(index + 1):
            if self._allocs[position]:
                alive[self._blocks[position]] = position
            else:
                del alive[self._blocks[position]]
        return [self[position] for position in alive.values()]

    def to_json_lines(self) -> str:
        """Write a header line with the tags, then `[block, bytes, tag]` or `[block, tag]` (a free).

        `tag` is a position in the header's list of tags.
        """
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "events": len(self),
            "tags": [
                [tags.phase, tags.category, tags.op, tags.module, tags.stream] for tags in self.tags
            ],
        }
        lines = [json.dumps(header, separators=(",", ":"))]
        columns = zip(self._allocs, self._blocks, self._sizes, self._tags, strict=True)
        for alloc, block, size, tag in columns:
            lines.append(f"[{block},{size},{tag}]" if alloc else f"[{block},{tag}]")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_json_lines(cls, text: str) -> Trace:
        """Read what `to_json_lines` wrote.

        Raises:
            ValueError: With the malformed line, or the invalid event.
        """
        lines = text.splitlines()
        header = _read_header(lines[0] if lines else "")
        table = [_read_tags(entry) for entry in header["tags"]]
        recorder = TraceRecorder()
        for number, line in enumerate(lines[1:], start=2):
            row = _read_row(line, number, len(table))
            if len(row) == 3:
                recorder.allocate(row[0], row[1], table[row[2]])
            else:
                recorder.free(row[0], table[row[1]])
        if len(recorder) != header["events"]:
            raise ValueError(
                f"got {len(recorder)} events, expected {header['events']} by line 1: "
                "the trace was cut off"
            )
        return recorder.finish()

    def save(self, path: Path) -> None:
        """Write JSON lines; raises `OSError`."""
        path.write_text(self.to_json_lines(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read JSON lines; raises `OSError`, or `ValueError` with the path in front."""
        try:
            return cls.from_json_lines(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


class TraceRecorder:
    """Takes events one by one and refuses invalid ones. The public columns are for `Trace`."""

    def __init__(self) -> None:
        self.allocs = bytearray()
        self.blocks: array[int] = array("q")
        self.sizes: array[int] = array("q")
        self.tag_numbers: array[int] = array("L")
        self.tag_table: list[Tags] = []
        self.peak_bytes = 0
        self.peak_index = -1
        self._numbers: dict[Tags, int] = {}
        self._alive: dict[int, int] = {}
        self._alive_bytes = 0

    def __len__(self) -> int:
        return len(self.allocs)

    def allocate(self, block: int, size_bytes: int, tags: Tags = NO_TAGS) -> None:
        """Add an allocation.

        Raises:
            ValueError: The block is alive, or the size is negative; with the event's index.
        """
        if size_bytes < 0:
            raise ValueError(
                f"event {len(self)}: block {block} has {size_bytes} bytes, expected 0 or more"
            )
        if block in self._alive:
            raise ValueError(
                f"event {len(self)}: block {block} is allocated again, expected a free first"
            )
        self._alive[block] = size_bytes
        self._alive_bytes += size_bytes
        if self._alive_bytes > self.peak_bytes or self.peak_index < 0:
            self.peak_bytes, self.peak_index = self._alive_bytes, len(self)
        self._append(1, block, size_bytes, tags)

    def free(self, block: int, tags: Tags = NO_TAGS) -> int:
        """Add a free; returns the size of the block.

        Raises:
            ValueError: No such block is alive; with the event's index.
        """
        size_bytes = self._alive.pop(block, None)
        if size_bytes is None:
            raise ValueError(
                f"event {len(self)}: block {block} is freed, expected one that is alive"
            )
        self._alive_bytes -= size_bytes
        self._append(0, block, size_bytes, tags)
        return size_bytes

    def is_alive(self, block: int) -> bool:
        """Whether a block was allocated and not freed."""
        return block in self._alive

    def finish(self) -> Trace:
        """The trace of the events so far; recording may continue."""
        return Trace(self)

    def _append(self, alloc: int, block: int, size_bytes: int, tags: Tags) -> None:
        number = self._numbers.get(tags)
        if number is None:
            number = self._numbers[tags] = len(self.tag_table)
            self.tag_table.append(tags)
        self.allocs.append(alloc)
        self.blocks.append(block)
        self.sizes.append(size_bytes)
        self.tag_numbers.append(number)


def _read_header(line: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"line 1: got {line[:60]!r}, expected the header of an {_FORMAT} file")
    if header.get("version") != _VERSION:
        raise ValueError(f"line 1: got version {header.get('version')!r}, expected {_VERSION}")
    if not isinstance(header.get("tags"), list) or not isinstance(header.get("events"), int):
        raise ValueError("line 1: expected a list of tags and a number of events")
    return header


def _read_tags(entry: object) -> Tags:
    if not isinstance(entry, list) or [type(value) for value in entry] != [str] * 4 + [int]:
        raise ValueError(f"line 1: got tags {entry!r}, expected four texts and a stream")
    phase, category, op, module, stream = entry
    return Tags(phase=phase, category=category, op=op, module=module, stream=stream)


def _read_row(line: str, number: int, tags: int) -> list[int]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    whole = isinstance(row, list) and all(type(value) is int for value in row)
    if not whole or len(row) not in (2, 3) or not 0 <= row[-1] < tags:
        raise ValueError(
            f"line {number}: got {line[:60]!r}, expected [block, bytes, tag] or [block, tag] "
            f"with a tag below {tags}"
        )
    return list(row)
