"""Memory that sums over rows take: partial sums of many blocks, brought together at the end.

Mirrors `setReduceConfig` and `ReduceConfig::global_memory_size` of
`aten/src/ATen/native/cuda/Reduce.cuh` of torch 2.13, and was compared with them, compiled from the
headers of the 2.13.0+cu130 wheel. The buffer is far larger than what is written to it: tens of MiB
for the gradient of a bias, or of the weight of a norm that is written in Python.

Only sums over what does not lie side by side are followed. Others, such as the norm of a whole
tensor, take some KiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import torch

from ftcheck.vgpu.chip import Chip
from ftcheck.vgpu.kernels import Kernels

__all__ = ["install"]

_MOST_THREADS: Final = 512
_WARP: Final = 32
_FEW_VALUES: Final = 16
_MANY_VALUES: Final = 256
_FP32_BYTES: Final = 4


def install(kernels: Kernels, chip: Chip) -> None:
    """Tell the kernels what sums and means allocate besides their results."""
    aten = torch.ops.aten
    for op in (aten.sum.IntList_out, aten.mean.out):
        kernels.beside(op, partial(_partial_sums, chip))


class _Rows(NamedTuple):
    """A sum as its kernel sees it."""

    outputs: int
    inputs: int
    """Values that are summed up for each output."""
    vector: int
    """Outputs that a thread has at once."""


def _partial_sums(chip: Chip, args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    tensor = args[0]
    if not tensor.dtype.is_floating_point:
        return {}
    rows = _rows(tensor, args[1])
    if rows is None:
        return {}
    width, height = _block(rows)
    values = -(-rows.inputs // height)
    if rows.inputs < min(height * _FEW_VALUES, _MANY_VALUES) or values < _MANY_VALUES:
        return {}
    grid = -(-(rows.outputs // rows.vector) // width)
    target = chip.processors() * (chip.threads // (width * height))
    if grid > target:
        return {}
    blocks = min(-(-target // grid), -(-values // _FEW_VALUES))
    blocks = max(blocks, -(-values // _MANY_VALUES))
    if blocks == 1:
        return {}
    sum_bytes = max(_FP32_BYTES, tensor.dtype.itemsize)
    return {
        "partial sums": sum_bytes * rows.outputs * blocks * width * rows.vector,
        "semaphores": 4 * grid,
    }


def _rows(tensor: torch.Tensor, dims: Sequence[int] | None) -> _Rows | None:
    """How many outputs and inputs there are; `None` where inputs lie side by side."""
    summed = {dim % tensor.dim() for dim in dims} if dims else set(range(tensor.dim()))
    sizes, strides = tensor.shape, tensor.stride()
    kept = [  # in the order of the result, which is contiguous
        (strides[dim], sizes[dim])
        for dim in reversed(range(tensor.dim()))
        if dim not in summed and sizes[dim] > 1
    ]
    over = [(strides[dim], sizes[dim]) for dim in summed if sizes[dim] > 1]
    if not kept or not over or min(over)[0] < kept[0][0] or tensor.numel() == 0:
        return None
    outputs = inputs = 1
    for _, size in kept:
        outputs *= size
    for _, size in over:
        inputs *= size
    vector = _vector(tensor, _joined(kept), over) if kept[0][0] == 1 else 1
    return _Rows(outputs, inputs, vector)


def _joined(dims: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Strides and sizes of dimensions, where one that continues another is one with it."""
    joined = [dims[0]]
    for stride, size in dims[1:]:
        last_stride, last_size = joined[-1]
        if stride == last_stride * last_size:
            joined[-1] = (last_stride, last_size * size)
        else:
            joined.append((stride, size))
    return joined


def _vector(tensor: torch.Tensor, kept: list[tuple[int, int]], over: list[tuple[int, int]]) -> int:
    """`get_output_vec_size`: at most 4, and a divisor of every step and of the first width."""
    steps = [tensor.storage_offset(), kept[0][1], *(stride for stride, _ in (*kept[1:], *over))]
    return next(vector for vector in (4, 2, 1) if all(step % vector == 0 for step in steps))


def _block(rows: _Rows) -> tuple[int, int]:
    """`set_block_dimension`: threads along outputs, and along inputs."""
    most = _MOST_THREADS // rows.vector
    across = _power_of_two(rows.outputs // rows.vector, most)
    along = _power_of_two(rows.inputs, most)
    height = min(along, most // min(across, _WARP))
    return min(across, most // height), height


def _power_of_two(number: int, most: int) -> int:
    """The largest one that is not above the number."""
    return most if number >= most else 1 << (number.bit_length() - 1)
