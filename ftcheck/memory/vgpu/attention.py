"""Scaled dot product attention: the kernel that the card would choose, and what it takes.

The choice mirrors `select_sdp_backend` of `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`;
what is done to masks and odd head sizes before mirrors `scaled_dot_product_attention` of
`aten/src/ATen/native/transformers/attention.cpp`. Buffers inside of the kernels, which meta kernels
do not show, are those of `flash_attn/flash_api.cpp` (`mha_fwd`, `mha_bwd`), and of
`attention_backward.cu` and `mem_eff_attention/kernel_backward.h`, all of torch 2.13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch

from ftcheck.memory.vgpu.kernels import Kernels
from ftcheck.memory.vgpu.scratch import multiprocessors

__all__ = ["Attention", "Choice"]

Choice = Literal["flash", "efficient", "cudnn", "math"]

_ATEN: Final = torch.ops.aten
_HALVES: Final = (torch.float16, torch.bfloat16)
_SDPA: Final = "scaled_dot_product_attention"
_kept: list[torch.library.Library] = []


class Attention:
    """Attention of a card.

    Args:
        capability: Compute capability.
        kernels: Where the kernels of forward and backward passes are run.
        assume: Told what had to be assumed.
    """

    def __init__(
        self, capability: tuple[int, int], kernels: Kernels, assume: Callable[[str], None]
    ) -> None:
        self.capability = capability
        self.kernels = kernels
        self.assume = assume

    def install(self) -> None:
        """Register for the device, for the rest of the process."""
        aten = torch.library.Library("aten", "IMPL")
        aten.impl(_SDPA, self.attend, "AutogradPrivateUse1")
        aten.impl(_SDPA, self.attend, "PrivateUse1")  # inference mode has no autograd key
        _kept.append(aten)
        beside, processors = self.kernels.beside, multiprocessors(self.capability)
        beside(
            _ATEN._scaled_dot_product_flash_attention.default,
            lambda args: _flash_splits(args, processors),
        )
        beside(
            _ATEN._scaled_dot_product_flash_attention_backward.default,
            lambda args: _flash_buffers(args, processors),
        )
        beside(_ATEN._scaled_dot_product_efficient_attention_backward.default, _efficient_buffers)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """`aten::scaled_dot_product_attention`; tensors are `(batch, heads, length, head size)`."""
        choice = self.choose(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
        if choice == "math":
            return _ATEN._scaled_dot_product_attention_math(  # type: ignore[no-any-return]
                query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale,
                enable_gqa=enable_gqa,
            )[0]  # fmt: skip
        if choice == "flash":
            return _flash(query, key, value, dropout_p, is_causal, scale)
        needs_grad = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (query, key, value)
        )
        mask = None if attn_mask is None else _additive_mask(attn_mask, query, key)
        if choice == "cudnn":
            self.assume("cuDNN attention: its workspace is not counted")
            forward = _ATEN._scaled_dot_product_cudnn_attention
            arguments = (query, key, value, mask, needs_grad, dropout_p, is_causal, False)
            return forward(*arguments, scale=scale)[0]  # type: ignore[no-any-return]
        if query.shape[1] != key.shape[1]:
            key, value = _repeated(key, query.shape[1]), _repeated(value, query.shape[1])
        return _ATEN._scaled_dot_product_efficient_attention(  # type: ignore[no-any-return]
            query, key, value, mask, needs_grad, dropout_p, is_causal, scale=scale
        )[0]

    def choose(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        dropout: float,
        is_causal: bool,
        enable_gqa: bool,
    ) -> Choice:
        """`select_sdp_backend`, with the switches of `torch.backends.cuda`."""
        enabled = torch.backends.cuda
        if not _fusable(query, key, value, enable_gqa):
            return "math"
        if (
            self.capability[0] in (9, 10)
            and enabled.cudnn_sdp_enabled()
            and _cudnn_shapes(query, key, value, dropout)
        ):
            return "cudnn"
        if enabled.flash_sdp_enabled() and self._flash_can(
            query, key, value, mask, dropout, is_causal
        ):
            return "flash"
        if enabled.mem_efficient_sdp_enabled() and self._efficient_can(query, key, value):
            return "efficient"
        return "math"

    def _flash_can(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        dropout: float,
        is_causal: bool,
    ) -> bool:
        """`can_use_flash_attention`."""
        head = query.shape[-1]
        if mask is not None or self.capability < (8, 0) or query.dtype not in _HALVES:
            return False
        if head > 256 or not head == key.shape[-1] == value.shape[-1]:
            return False
        if is_causal and query.shape[-2] != key.shape[-2]:
            return False
        trains = any(tensor.requires_grad for tensor in (query, key, value))
        narrow = (8, 6) <= self.capability <= (8, 9) or self.capability >= (12, 0)
        return not (trains and narrow) or head <= 192 or (dropout == 0 and head > 224)

    def _efficient_can(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
        """`can_use_mem_efficient_attention`."""
        newer = self.capability >= (8, 0)
        if query.dtype not in (torch.float16, torch.float32) and not (
            newer and query.dtype == torch.bfloat16
        ):
            return False
        half = query.dtype in _HALVES
        alignment = 4 if newer else 1  # minimum_gemm_alignment
        if newer or (self.capability >= (7, 0) and half):
            alignment = max(alignment, 8 if half else 4)
        head, head_value = query.shape[-1], value.shape[-1]
        if not (head == key.shape[-1] and head > 0 and head_value > 0):
            return False
        return head % alignment == 0 and head_value % alignment == 0


def _fusable(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, enable_gqa: bool) -> bool:
    """Constraints that all fused kernels share (sdp_utils_cpp.h)."""
    if not query.dim() == key.dim() == value.dim() == 4:
        return False
    if not query.dtype == key.dtype == value.dtype:
        return False
    if 0 in (query.shape[-2], key.shape[-2]) or query.shape[0] != key.shape[0]:
        return False
    if any(tensor.stride(-1) != 1 and tensor.shape[-1] > 1 for tensor in (query, key, value)):
        return False
    heads, key_heads = query.shape[1], key.shape[1]
    if key_heads != value.shape[1]:
        return False
    return heads == key_heads or (enable_gqa and heads % key_heads == 0)


def _cudnn_shapes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float
) -> bool:
    """`can_use_cudnn_attention` with the cuDNN (9.15.1 or newer) of CUDA 13 wheels."""
    heads = (query.shape[-1], value.shape[-1])
    return (
        query.dtype in _HALVES
        and max(heads) <= 128
        and all(head % 8 == 0 for head in heads)
        and key.shape[-2] > 1
        and not (dropout and query.shape[-2] == 1)
        and (dropout * 16).is_integer()
    )


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    dropout: float, is_causal: bool, scale: float | None,
) -> torch.Tensor:  # fmt: skip
    head = query.shape[-1]
    if head % 8:  # pad_last_dim<8>
        missing = 8 - head % 8
        scale = scale or 1 / math.sqrt(head)
        query, key, value = (
            torch.nn.functional.pad(tensor, (0, missing)) for tensor in (query, key, value)
        )
    out: torch.Tensor = _ATEN._scaled_dot_product_flash_attention(
        query, key, value, dropout, is_causal, False, scale=scale
    )[0]
    return out[..., :head] if out.shape[-1] != head else out


def _additive_mask(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """`convert_boolean_attn_mask` and `preprocess_mask`: added, aligned to 16, expanded."""
    if mask.dtype == torch.bool:
        low = torch.scalar_tensor(-math.inf, dtype=query.dtype, device=query.device)
        mask = torch.where(mask, torch.zeros_like(low), low)
    width = mask.shape[-1]
    if width % 16:
        mask = torch.nn.functional.pad(mask, (0, 16 - width % 16))[..., :width]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def _repeated(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values of grouped heads, one for each head of the query."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _head_rounded(head: int) -> int:
    return _round_up(head, 32) if head <= 192 else 256


def _flash_splits(args: Sequence[Any], processors: int) -> dict[str, int]:
    """`set_params_splitkv`: few queries have their keys split, and the parts summed in fp32.

    After `flash_api.cpp` at pytorch 03b7c19; torch 2.13 has the same two functions by name.
    """
    query, key = args[0], args[1]
    batch, heads, length, head = query.shape
    if len(args) > 3 and args[3]:  # splitting is not implemented for dropout
        return {}
    if length == 1 and heads > key.shape[1]:  # seqlenq_ngroups_swapped
        length, heads = heads // key.shape[1], key.shape[1]
    block = 256 if head <= 64 else 128 if head <= 128 else 64
    splits = _splits(batch * heads * -(-length // 64), 2 * processors, -(-key.shape[2] // block))
    if splits == 1:
        return {}
    parts = splits * batch * heads * length * 4
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


def _flash_buffers(args: Sequence[Any], processors: int) -> dict[str, int]:
    """`mha_bwd`: `softmax_d` and `dq_accum` are fp32; grouped heads get expanded dk and dv.

    Where algorithms must be deterministic, `dq_accum` is there once for each split.
    """
    query, key = args[1], args[2]
    batch, heads, length, head = query.shape
    rounded = _round_up(length, 128)
    splits = 1
    if torch.are_deterministic_algorithms_enabled() and (
        not torch.is_deterministic_algorithms_warn_only_enabled()
    ):
        splits = -(-processors // (batch * heads))
    buffers = {
        "softmax_d": batch * heads * rounded * 4,
        "dq_accum": splits * batch * rounded * heads * _head_rounded(head) * 4,
    }
    if key.shape[1] != heads:
        expanded = batch * key.shape[2] * heads * head * query.dtype.itemsize
        buffers |= {"dk_expanded": expanded, "dv_expanded": expanded}
    return buffers


def _efficient_buffers(args: Sequence[Any]) -> dict[str, int]:
    """`_efficient_attention_backward`: `delta`, and for halves the fp32 sums of dq."""
    query = args[1]
    batch, heads, length, head = query.shape
    buffers = {"delta": batch * heads * length * 4}
    if query.dtype in _HALVES:
        # workspace_elements_gq: blocks of 64 queries by columns of 64, and a header of 8 words
        blocks, columns = -(-length // 64), -(-head // 64)
        buffers["workspace"] = batch * heads * blocks * columns * (64 * 64 + 8) * 4
    return buffers
