"""Workspaces of cuBLAS: taken through the allocator by the first product of each thread.

Mirrors `aten/src/ATen/cuda/CublasHandlePool.cpp` of torch 2.13: one workspace for each handle and
stream, and one handle for each thread. The forward pass runs on the caller's thread, the backward
pass (and what it recomputes of checkpoints) on autograd's thread of the device: two workspaces in
training, one in inference. They stay until the process ends; `empty_cache` leaves them alone.

cuBLASLt takes the same one by default since pytorch#168175. Not modelled: other streams, and
`TORCH_CUBLASLT_UNIFIED_WORKSPACE=0`, which would give it one of 1 MiB of its own. The products of
bitsandbytes in int8 have a handle and no workspace (`igemmlt` of its `csrc/ops.cu`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from ftcheck.allocator.categories import WORKSPACES
from ftcheck.vgpu.record import Recorder

__all__ = ["PRODUCTS", "Workspaces", "workspace_bytes"]

PRODUCTS: Final = frozenset(
    {
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "aten::addbmm",
        "aten::mv",
        "aten::addmv",
        "aten::dot",
        "aten::vdot",
        "aten::_addmm_activation",
        "aten::_int_mm",
        "aten::_scaled_mm",
    }
)
"""Operations that CUDA computes by cuBLAS or cuBLASLt."""

_KIB: Final = 1024
_DEFAULT_BYTES: Final = 4096 * _KIB * 2 + 16 * _KIB * 8
_LARGE_BYTES: Final = 4096 * _KIB * 8
_LARGE_ON: Final = (9, 10, 12)
"""Major capabilities with the large workspace: Hopper, and Blackwell since pytorch#175344. The
binary of torch 2.13.0+cu130 compares the major number with just these."""
_PART: Final = re.compile(r":(\d+):(\d+)", re.ASCII)


def workspace_bytes(capability: tuple[int, int], environ: Mapping[str, str] = os.environ) -> int:
    """Bytes of one workspace: `parseChosenWorkspaceSize`.

    Args:
        capability: Compute capability of the card.
        environ: `CUBLAS_WORKSPACE_CONFIG` is looked at, such as `:4096:2:16:8` (KiB and count).
    """
    default = _LARGE_BYTES if capability[0] in _LARGE_ON else _DEFAULT_BYTES
    parts = _PART.findall(environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    return sum(int(size) * _KIB * int(count) for size, count in parts) if parts else default


class Workspaces:
    """The workspaces of a process on the virtual GPU.

    Args:
        recorder: Told of their memory.
        capability: Compute capability of the card.
    """

    def __init__(self, recorder: Recorder, capability: tuple[int, int]) -> None:
        self._recorder = recorder
        self._capability = capability
        self._size_bytes = -1
        self._held: dict[bool, torch.Tensor] = {}

    def product(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """A product was computed: its thread has a workspace from now on."""
        if len(self._held) == 2:
            return
        backward = self._recorder.places.in_backward()
        if backward not in self._held:
            if self._size_bytes < 0:  # as late as torch, since `enable_full_determinism` sets it
                self._size_bytes = workspace_bytes(self._capability)
            self._held[backward] = self._recorder.allocate(
                (self._size_bytes,), (1,), torch.uint8, "cuBLAS workspace", WORKSPACES
            )

    def release(self) -> None:
        """The process ends."""
        self._held.clear()
