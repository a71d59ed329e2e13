"""Optimizers as CUDA would choose them.

`torch.optim` takes a device type written in Python for one with `foreach` and fused kernels
(`torch/utils/_foreach_utils.py`), but prefers `foreach` only for CUDA and a few others; and
`foreach` operations on it are loops of single ones. Both take the same memory at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftcheck.memory.vgpu.gpu import VirtualGpu

__all__ = ["install"]


def install(gpu: VirtualGpu) -> None:
    """Placeholder."""
