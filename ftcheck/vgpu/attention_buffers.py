"""Memory that attention kernels take beside their results.

Sources are those of torch 2.13, below `aten/src/ATen/native/transformers/cuda`. Tile sizes, and
which of them need which sums in memory, were printed by a program that was compiled with the
headers of the 2.13.0+cu130 wheel (`mem_eff_attention/kernels/cutlassB.h`, `kernel_backward.h`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import torch

from ftcheck.vgpu.chip import Chip
from ftcheck.vgpu.kernels import Kernels

__all__ = ["install"]

_HALVES: Final = (torch.float16, torch.bfloat16)
_LARGE_TILE_BYTES: Final = {torch.float16: 162_304, torch.bfloat16: 152_064, torch.float32: 121_344}
"""Most shared memory of the kernels that take 128 rows at once, for heads of 128 elements."""
_FP32_BYTES: Final = 4


def install(kernels: Kernels, chip: Chip) -> None:
    """Tell the kernels what attention allocates besides its results."""
    aten, beside = torch.ops.aten, kernels.beside
    flash = aten._scaled_dot_product_flash_attention.default
    flash_backward = aten._scaled_dot_product_flash_attention_backward.default
    efficient = aten._scaled_dot_product_efficient_attention.default
    efficient_backward = aten._scaled_dot_product_efficient_attention_backward.default
    beside(flash, partial(_flash_splits, chip))
    beside(flash_backward, partial(_flash_sums, chip))
    beside(efficient, _efficient_sums)
    beside(efficient_backward, partial(_efficient_delta, chip))
    beside(efficient_backward, partial(_efficient_workspace, chip))


def _deterministic() -> bool:
    return (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _head_rounded(head: int) -> int:
    """`head_size_rounded` of `flash_attn/flash_api.cpp`; the kernels above 128: 192 and 256."""
    return _round_up(head, 32 if head <= 128 else 64)


def _flash_splits(chip: Chip, args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """`set_params_splitkv` of `flash_attn/flash_api.cpp`, which `mha_fwd` calls, in training too.

    Few queries have their keys split, and the parts summed in fp32.
    """
    query, key = args[0], args[1]
    batch, heads, length, head = query.shape
    if len(args) > 3 and args[3]:  # splitting is not implemented for dropout
        return {}
    if length == 1 and heads > key.shape[1]:  # seqlenq_ngroups_swapped
        length, heads = heads // key.shape[1], key.shape[1]
    block = 256 if head <= 64 else 128 if head <= 128 else 64
    blocks = -(-key.shape[2] // block)
    if blocks == 1:
        return {}
    splits = _splits(batch * heads * -(-length // 64), 2 * chip.processors(), blocks)
    if splits == 1:
        return {}
    parts = splits * batch * heads * length * _FP32_BYTES
    return {"softmax_lse_accum": parts, "out_accum": parts * _head_rounded(head)}


def _splits(units: int, slots: int, blocks: int) -> int:
    """`num_splits_heuristic`: the fewest splits that keep the card busy to 85 % of the best."""
    if units >= 0.8 * slots:
        return 1
    fullness: dict[int, float] = {}
    for splits in range(1, min(128, slots, blocks) + 1):
        if splits == 1 or -(-blocks // splits) != -(-blocks // (splits - 1)):
            waves = units * splits / slots
            fullness[splits] = waves / math.ceil(waves)
    best = max(fullness.values())
    return next(splits for splits, full in fullness.items() if full >= 0.85 * best)


def _flash_sums(chip: Chip, args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """`mha_bwd` of `flash_attn/flash_api.cpp`: `softmax_d` and `dq_accum` are fp32.

    Grouped heads get expanded dk and dv. Where algorithms must be deterministic, `dq_accum` is
    there once for each split.
    """
    query, key = args[1], args[2]
    batch, heads, length, head = query.shape
    rounded = _round_up(length, 128)
    splits = -(-chip.processors() // (batch * heads)) if _deterministic() else 1
    buffers = {
        "softmax_d": batch * heads * rounded * _FP32_BYTES,
        "dq_accum": splits * batch * rounded * heads * _head_rounded(head) * _FP32_BYTES,
    }
    if key.shape[1] != heads:
        expanded = batch * key.shape[2] * heads * head * query.dtype.itemsize
        buffers |= {"dk_expanded": expanded, "dv_expanded": expanded}
    return buffers


def _efficient_sums(args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """`kNeedsOutputAccumulatorBuffer` of `mem_eff_attention/kernel_forward.h`.

    Heads of up to 128 elements are summed in registers, those of fp32 in the result.
    """
    query, value = args[0], args[2]
    if query.dtype not in _HALVES or value.shape[-1] <= 128:
        return {}
    batch, heads, length, _ = query.shape
    return {"output_accum": batch * heads * length * value.shape[-1] * _FP32_BYTES}


class _Tiles(NamedTuple):
    """What a backward kernel of memory-efficient attention works on at once."""

    rows: int
    columns: int
    sums_keys: bool
    """Whether gradients of keys and values are summed in memory."""
    computes_delta: bool


def _tiles(chip: Chip, dtype: torch.dtype, head: int, dropout: float) -> _Tiles:
    """The first kernel of `dispatch_cutlassB` that fits the chip's shared memory."""
    newer = chip.capability >= (8, 0)
    large = newer and chip.shared_bytes >= _LARGE_TILE_BYTES[dtype]
    if dtype not in _HALVES:
        return _Tiles(128 if head > 64 and large else 64, 64, False, False)
    if head <= 64:
        return _Tiles(64, 64, False, True)
    if head <= 96 and not dropout and chip.capability in ((8, 6), (8, 9)):
        return _Tiles(128, 64, False, True)
    if head > 128:
        return _Tiles(128, 64, True, chip.capability >= (7, 5))
    if not newer:
        return _Tiles(128, 64, False, True)
    return _Tiles(128, 128, False, True) if large else _Tiles(64, 64, True, True)


def _tiles_of(chip: Chip, args: Sequence[Any]) -> _Tiles:
    query, value = args[1], args[3]
    return _tiles(chip, query.dtype, max(query.shape[-1], value.shape[-1]), args[9])


def _efficient_delta(chip: Chip, args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """`_efficient_attention_backward` of `attention_backward.cu`, where its kernel leaves `delta`.

    The sum of `grad_out.to(kFloat) * out.to(kFloat)`, and what that takes until it is there.
    """
    if _tiles_of(chip, args).computes_delta:
        return {}
    query, out = args[1], args[5]
    product = out.numel() * _FP32_BYTES
    delta = product // out.shape[-1]
    buffers = {"product": product, "sum": delta, "delta, made": delta}
    if query.dtype in _HALVES:
        buffers |= {"grad_out in fp32": product, "out in fp32": product}
    return buffers


def _efficient_workspace(chip: Chip, args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """`delta`, and `workspace_size` of `mem_eff_attention/kernel_backward.h`.

    Sums of the gradients of queries are there for every dtype, since keys are split.
    """
    query, key, value = args[1], args[2], args[3]
    batch, heads, length, head = query.shape
    keys, head_value = key.shape[2], value.shape[-1]
    tiles = _tiles_of(chip, args)
    tile = tiles.rows * tiles.columns + 4  # GradQTempStorage: a lock and a counter before the sums
    elements = -(-length // tiles.rows) * -(-head // tiles.columns) * tile
    if tiles.sums_keys:
        splits = max(1, min(-(-keys // tiles.columns), 200 // (batch * heads)))
        if _deterministic() or (batch * heads >= 256 and keys <= 2 * tiles.columns):
            splits = 1
        widths = _round_up(head, tiles.rows) + _round_up(head_value, tiles.rows)
        elements += splits * tiles.columns * widths
    return {
        "delta": batch * heads * length * _FP32_BYTES,
        "workspace": batch * heads * _round_up(elements, 4) * _FP32_BYTES,
    }
