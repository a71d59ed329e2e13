"""Scaled dot product attention: the kernel that the card would choose, and what it takes.

The choice mirrors `select_sdp_backend` of `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`;
what is done to masks and odd head sizes before mirrors `scaled_dot_product_attention` of
`aten/src/ATen/native/transformers/attention.cpp`, both of torch 2.13. What kernels allocate beside
their results is in `attention_buffers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

import torch

from ftcheck.vgpu import attention_buffers
from ftcheck.vgpu.chip import Chip
from ftcheck.vgpu.kernels import Kernels

__all__ = ["Attention", "Choice"]

Choice = Literal["flash", "efficient", "cudnn", "math"]

_ATEN: Final = torch.ops.aten
_HALVES: Final = (torch.float16, torch.bfloat16)
_SDPA: Final = "scaled_dot_product_attention"
_kept: list[torch.library.Library] = []


class Attention:
    """Attention of a card.

    Args:
        chip: Of the card.
        kernels: Where the kernels of forward and backward passes are run.
        assume: Told what had to be assumed.
    """

    def __init__(self, chip: Chip, kernels: Kernels, assume: Callable[[str], None]) -> None:
        self.chip = chip
        self.capability = chip.capability
        self.kernels = kernels
        self.assume = assume

    def install(self) -> None:
        """Register for the device, for the rest of the process."""
        aten = torch.library.Library("aten", "IMPL")
        aten.impl(_SDPA, self.attend, "AutogradPrivateUse1")
        aten.impl(_SDPA, self.attend, "PrivateUse1")  # inference mode has no autograd key
        _kept.append(aten)
        attention_buffers.install(self.kernels, self.chip)

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
                query,
                key,
                value,
                attn_mask,
                dropout_p,
                is_causal,
                None,
                scale=scale,
                enable_gqa=enable_gqa,
            )[0]
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
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
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
