"""The recorder: every allocation and free of a storage, in order, with who asked for it.

A record stays open until the end: what a block turns out to be (a gradient, a state of the
optimizer) is often known only after it was allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from ftcheck.allocator.categories import ACTIVATIONS, LOGITS, OTHER
from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from ftcheck.vgpu.device import DEVICE_TYPE
from ftcheck.vgpu.places import Places
from ftcheck.vgpu.storage import Heap, base_address
from ftcheck.vgpu.values import Values

__all__ = ["Record", "Recorder"]


class Record:
    """One storage of the device.

    Attributes:
        number: Position in the order of allocations, from 0; the block of the trace.
        size_bytes: As asked for, before the allocator rounds.
        backwards: Backward passes that had begun when it was allocated.
        in_forward: Whether a module was running.
    """

    __slots__ = (
        "backwards",
        "category",
        "in_forward",
        "module",
        "number",
        "op",
        "phase",
        "size_bytes",
    )

    def __init__(self, number: int, size_bytes: int) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.op = self.module = self.phase = self.category = ""
        self.backwards = 0
        self.in_forward = False


class Recorder:
    """Takes storages as they are made, notices when they go, and gives back the trace.

    Args:
        places: Tells the module and the pass (forward, backward, optimizer) of the moment.
        values: Forgets what a freed storage held.
    """

    def __init__(self, places: Places, values: Values) -> None:
        self.places = places
        self.values = values
        self.heap = Heap()
        self.heap.freed = self._freed
        values.size_of = self._size_of
        places.before_backward.append(self._keep_activations)
        self.took: Callable[[int, int], None] = lambda block, size_bytes: None
        """Called with number and bytes of a new storage; it may raise, then there is none."""
        self.gave: Callable[[int], None] = lambda block: None
        """Called with the number of a storage that is gone."""
        self.phase = ""
        self.newest: Record | None = None
        """Of the last call of `allocate`."""
        self.unnamed: Record | None = None
        """The newest record while its operation is unknown: `empty` comes before its kernel."""
        self._events: list[tuple[Record, Tags | None]] = []
        self._alive: dict[int, Record] = {}
        self._alive_bytes = 0
        self._peak_bytes = 0
        self._most_bytes = 0
        self._numbers = 0

    def allocate(
        self,
        size: Sequence[int],
        stride: Sequence[int],
        dtype: torch.dtype,
        op: str,
        category: str = "",
    ) -> torch.Tensor:
        """A new tensor of the device; one of no bytes takes nothing from a card, and no record."""
        tensor, address, size_bytes = self.heap.allocate(size, stride, dtype)
        if not address:
            self.newest = None
            return tensor
        places = self.places
        record = Record(self._numbers, size_bytes)
        self._numbers += 1
        record.op, record.phase = op, self.phase
        record.module = places.module()
        record.backwards = places.backwards
        record.in_forward = places.in_forward()
        record.category = category or self._guess(size)
        self._alive[address] = self.newest = record
        self._alive_bytes += size_bytes
        self._peak_bytes = max(self._peak_bytes, self._alive_bytes)
        self._most_bytes = max(self._most_bytes, self._alive_bytes)
        self._events.append((record, None))
        self.took(record.number, size_bytes)
        return tensor

    def of(self, tensor: torch.Tensor) -> Record | None:
        """The record of a tensor's storage; `None` for one that is not on the device."""
        if tensor.device.type != DEVICE_TYPE:
            return None
        return self._alive.get(base_address(tensor))

    def relabel(self, tensors: Iterable[torch.Tensor], category: str, name: str = "") -> None:
        """Say what storages hold; `name` replaces the module."""
        for tensor in tensors:
            record = self.of(tensor)
            if record is not None:
                record.category = category
                record.module = name or record.module

    def alive_bytes(self) -> int:
        """Bytes that are alive now, as asked for."""
        return self._alive_bytes

    def enter(self, phase: str) -> None:
        """Name what follows, and begin a new peak."""
        self.phase = phase
        self._peak_bytes = self._alive_bytes

    def cached_bytes(self) -> int:
        """What an allocator that gives nothing back would hold: the most alive, less what is."""
        return self._most_bytes - self._alive_bytes

    def peak_bytes(self) -> int:
        """Most bytes that were alive since the phase began, as asked for."""
        return self._peak_bytes

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

    def _guess(self, size: Sequence[int]) -> str:
        places = self.places
        if places.in_optimizer:
            return OTHER
        if places.vocabulary and len(size) > 1 and size[-1] == places.vocabulary:
            return LOGITS
        if places.in_forward() and torch.is_grad_enabled():
            return ACTIVATIONS
        return OTHER

    def _freed(self, address: int) -> None:
        record = self._alive.pop(address)
        self._alive_bytes -= record.size_bytes
        self.values.forget(address)
        if record.category == ACTIVATIONS and record.backwards == self.places.backwards:
            record.category = OTHER  # gone before a backward pass could have used it
        self._events.append((record, self._free_tags()))
        self.gave(record.number)

    def _keep_activations(self) -> None:
        """What a forward pass left behind is saved for the backward, without gradients too.

        Reentrant checkpoints run their modules without gradients, and save what goes in.
        """
        began = self.places.backwards - 1
        for record in self._alive.values():
            if record.category == OTHER and record.in_forward and record.backwards == began:
                record.category = ACTIVATIONS

    def _size_of(self, address: int) -> int:
        record = self._alive.get(address)
        return 0 if record is None else record.size_bytes

    def _free_tags(self) -> Tags:
        tags = self.places.free_tags.get(self.phase)
        if tags is None:
            tags = self.places.free_tags[self.phase] = Tags(phase=self.phase)
        return tags
