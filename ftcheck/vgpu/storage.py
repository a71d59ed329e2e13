"""Storages of the device: an address, a size, a word when they are freed, and no memory.

They are handed to torch as DLPack tensors of the device type `kDLExtDev`, which torch takes for
its `PrivateUse1` (`aten/src/ATen/DLConvertor.cpp`), because that is the one way from Python to a
storage with a deleter. Watching a storage with a weak reference instead would give it a Python
object, which holds a reference to it; then autograd no longer adds gradients in place
(`can_accumulate_inplace` in `torch/csrc/autograd/input_buffer.cpp` wants the only reference), and
peaks would be too high.

The deleter is numpy's: it lets go of an array (`numpy/_core/src/multiarray/dlpack.c`), which is
empty here, and is watched. A deleter written in Python (ctypes) would be called while exceptions
unwind, and would lose them; callbacks of weak references keep them.

Addresses are unique, and lie where no process has memory: whoever follows one is stopped at once.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch

__all__ = ["Heap", "base_address"]

_EXT_DEVICE: Final = 12  # kDLExtDev of dlpack.h
_FIRST_ADDRESS: Final = 1 << 46
_ALIGNMENT: Final = 512
"""CUDA's allocator gives addresses that are multiples of it."""
_MOST_DIMENSIONS: Final = 12
_Lengths = ctypes.c_int64 * (2 * _MOST_DIMENSIONS)
_TYPES: Final = {
    torch.int8: (0, 8),
    torch.int16: (0, 16),
    torch.int32: (0, 32),
    torch.int64: (0, 64),
    torch.uint8: (1, 8),
    torch.uint16: (1, 16),
    torch.uint32: (1, 32),
    torch.uint64: (1, 64),
    torch.float16: (2, 16),
    torch.float32: (2, 32),
    torch.float64: (2, 64),
    torch.bfloat16: (4, 16),
    torch.complex64: (5, 64),
    torch.complex128: (5, 128),
    torch.bool: (6, 8),
}
"""`DLDataTypeCode` and bits; others are made as bytes and looked at as their dtype."""


class _Managed(ctypes.Structure):
    """`DLManagedTensor` of dlpack.h, as far as it is changed here."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
    )


_managed_of = ctypes.pythonapi.PyCapsule_GetPointer
_managed_of.restype = ctypes.c_void_p
_managed_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Watch(weakref.ref[Any]):
    """A weak reference to what a storage holds; it knows the address."""

    __slots__ = ("address",)

    address: int


class Heap:
    """Makes storages, and says when one is freed.

    Attributes:
        freed: Called with the address of a storage that is gone.
    """

    def __init__(self) -> None:
        self.freed: Callable[[int], None] = lambda address: None
        self._watches: dict[int, _Watch] = {}
        self._next = _FIRST_ADDRESS
        self._nothing = np.empty(1, dtype=np.uint8)
        self._lengths = _Lengths()
        self._shape = ctypes.addressof(self._lengths)

    def allocate(
        self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype
    ) -> tuple[torch.Tensor, int, int]:
        """A tensor with a storage of its own, of just the bytes that size and stride span.

        Returns:
            The tensor, the address of its storage, and the bytes of it; address 0 for no bytes.
        """
        elements = 1
        for length, step in zip(size, stride, strict=True):
            if length == 0:
                elements = 0
                break
            elements += (length - 1) * step
        size_bytes = elements * dtype.itemsize
        kind = _TYPES.get(dtype)
        if kind is None or len(size) > _MOST_DIMENSIONS:
            tensor, address, _ = self.allocate((size_bytes,), (1,), torch.uint8)
            return _seen_as(tensor, size, stride, dtype), address, size_bytes
        address = self._next
        self._next += -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
        held = self._nothing.view()
        if size_bytes:
            watch = _Watch(held, self._gone)
            watch.address = address
            self._watches[address] = watch
        tensor = torch._C._from_dlpack(self._capsule(held, address, size, stride, kind))
        return tensor, address if size_bytes else 0, size_bytes

    def _capsule(
        self,
        held: Any,
        address: int,
        size: Sequence[int],
        stride: Sequence[int],
        kind: tuple[int, int],
    ) -> Any:
        """The DLPack capsule of an array, made to speak of something else."""
        dimensions = len(size)
        capsule = held.__dlpack__()
        managed = _Managed.from_address(_managed_of(capsule, b"dltensor"))
        managed.data = address
        managed.device_type = _EXT_DEVICE
        managed.ndim = dimensions
        managed.code, managed.bits = kind
        # torch copies the lengths before the next call, so that one place serves all.
        self._lengths[: 2 * dimensions] = [*size, *stride]
        managed.shape = self._shape
        managed.strides = self._shape + 8 * dimensions
        return capsule

    def _gone(self, watch: weakref.ref[Any]) -> None:
        assert isinstance(watch, _Watch)
        del self._watches[watch.address]
        self.freed(watch.address)


def base_address(tensor: torch.Tensor) -> int:
    """Address of a tensor's storage; 0 where it has no elements.

    `untyped_storage()` would give the storage a Python object (see above), this does not.
    """
    address = tensor.data_ptr()
    return address and address - int(tensor.storage_offset()) * tensor.dtype.itemsize


def _seen_as(
    tensor: torch.Tensor, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype
) -> torch.Tensor:
    meta = torch._C.DispatchKey.Meta
    view = torch.ops.aten.view.dtype._op_dk(meta, tensor, dtype)
    seen: torch.Tensor = torch.ops.aten.as_strided.default._op_dk(meta, view, size, stride)
    return seen
