"""The recorder: every allocation and free of a storage, in order, with who asked for it.

A record stays open until the end: what a block turns out to be (a gradient, a state of the
optimizer) is often known only after it was allocated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Final

import torch

from ftcheck.memory.trace import Tags, Trace, TraceRecorder
from ftcheck.memory.vgpu.places import Places
from ftcheck.memory.vgpu.values import Values

__all__ = [
    "ACTIVATIONS",
    "ADAPTERS",
    "GRADIENTS",
    "INPUTS",
    "LOGITS",
    "OPTIMIZER",
    "OTHER",
    "QUANTIZATION",
    "WEIGHTS",
    "WORKSPACES",
    "Record",
    "Recorder",
]

WEIGHTS: Final = "base weights"
ADAPTERS: Final = "adapters"
QUANTIZATION: Final = "quantization state"
GRADIENTS: Final = "gradients"
OPTIMIZER: Final = "optimizer state"
ACTIVATIONS: Final = "saved activations"
LOGITS: Final = "logits and loss"
INPUTS: Final = "inputs"
WORKSPACES: Final = "workspaces"
OTHER: Final = "other"


class Record:
    """One storage of the device.

    Attributes:
        number: Position in the order of allocations, from 0; the block of the trace.
        size_bytes: As asked for, before the allocator rounds.
        backwards: Backward passes that had begun when it was allocated.
    """

    __slots__ = ("backwards", "category", "module", "number", "op", "phase", "size_bytes")

    def __init__(self, number: int, size_bytes: int) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.op = self.module = self.phase = self.category = ""
        self.backwards = 0


class _Handle(weakref.ref["torch.UntypedStorage"]):
    """A weak reference to a storage that knows its record."""

    __slots__ = ("key", "record")

    key: int
    record: Record


class Recorder:
    """Takes storages as they are made, notices when they go, and gives back the trace.

    Args:
        places: Tells the module and the pass (forward, backward, optimizer) of the moment.
        values: Forgets what a freed storage held.
    """

    def __init__(self, places: Places, values: Values) -> None:
        self.places = places
        self.values = values
        self.phase = ""
        self.unnamed: Record | None = None
        """The newest record while its operation is unknown: `empty` comes before its kernel."""
        self._events: list[tuple[Record, Tags | None]] = []
        self._handles: dict[int, _Handle] = {}
        self._numbers = 0

    def allocated(self, tensor: torch.Tensor, op: str, category: str = "") -> Record | None:
        """Record the storage of a new tensor; one of no bytes takes nothing from a card."""
        storage = tensor.untyped_storage()
        size_bytes = storage.nbytes()
        if size_bytes == 0:
            return None
        record = Record(self._numbers, size_bytes)
        self._numbers += 1
        places = self.places
        record.op, record.phase = op, self.phase
        record.module = places.module()
        record.backwards = places.backwards
        record.category = category or self._guess(tensor)
        handle = _Handle(storage, self._freed)
        handle.key, handle.record = storage._cdata, record
        self._handles[handle.key] = handle
        self._events.append((record, None))
        return record

    def of(self, tensor: torch.Tensor) -> Record | None:
        """The record of a tensor's storage; `None` for one that is not on the device."""
        handle = self._handles.get(tensor.untyped_storage()._cdata)
        return None if handle is None else handle.record

    def relabel(self, tensors: Iterable[torch.Tensor], category: str, name: str = "") -> None:
        """Say what storages hold; `name` replaces the module."""
        for tensor in tensors:
            record = self.of(tensor)
            if record is not None:
                record.category = category
                record.module = name or record.module

    def alive_bytes(self) -> int:
        """Bytes that are alive now, as asked for."""
        return sum(handle.record.size_bytes for handle in self._handles.values())

    def finish(self) -> Trace:
        """The trace so far."""
        trace = TraceRecorder()
        tags: dict[int, Tags] = {}
        for record, freed in self._events:
            if freed is not None:
                trace.free(record.number, freed)
                continue
            tags[record.number] = Tags(
                phase=record.phase, category=record.category, op=record.op, module=record.module
            )
            trace.allocate(record.number, record.size_bytes, tags[record.number])
        return trace.finish()

    def _guess(self, tensor: torch.Tensor) -> str:
        places = self.places
        if places.in_optimizer:
            return OTHER
        if places.vocabulary and tensor.dim() > 1 and tensor.shape[-1] == places.vocabulary:
            return LOGITS
        if places.in_forward() and torch.is_grad_enabled():
            return ACTIVATIONS
        return OTHER

    def _freed(self, handle: weakref.ref[torch.UntypedStorage]) -> None:
        assert isinstance(handle, _Handle)
        record = handle.record
        del self._handles[handle.key]
        self.values.forget(handle.key)
        if record.category == ACTIVATIONS and record.backwards == self.places.backwards:
            record.category = OTHER  # gone before a backward pass could have used it
        self._events.append((record, self._free_tags()))

    def _free_tags(self) -> Tags:
        tags = self.places.free_tags.get(self.phase)
        if tags is None:
            tags = self.places.free_tags[self.phase] = Tags(phase=self.phase)
        return tags
