"""Autocast on the device: CUDA's lists of operations, and its cache of cast weights.

The lists are those of `aten/src/ATen/autocast_mode.h` of torch 2.13
(`AT_FORALL_LOWER_PRECISION_FP`, `AT_FORALL_FP32`, `AT_FORALL_FP32_SET_OPT_DTYPE`,
`AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE`, `AT_FORALL_PROMOTE`); the rules are those of
`autocast_mode.cpp` and of the templates in the header.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

import torch

from ftcheck.vgpu.device import DEVICE_TYPE

__all__ = ["FP32", "FP32_SET_OPT_DTYPE", "LOWER_PRECISION", "PROMOTE", "install"]

LOWER_PRECISION: Final = (
    "_convolution.deprecated",
    "_convolution",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "convolution",
    "prelu",
    "addmm",
    "addmv",
    "addr",
    "matmul",
    "einsum",
    "mm",
    "mv",
    "linalg_vecdot",
    "linear",
    "addbmm",
    "baddbmm",
    "bmm",
    "chain_matmul",
    "linalg_multi_dot",
    "_thnn_fused_lstm_cell",
    "_thnn_fused_gru_cell",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
    "_scaled_dot_product_flash_attention",
    "scaled_dot_product_attention",
)
"""Run in fp16 or bf16, whichever was asked for."""
FP32: Final = (
    "acos",
    "asin",
    "cosh",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log2",
    "log1p",
    "reciprocal",
    "rsqrt",
    "sinh",
    "tan",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
    "pow.Scalar",
    "softplus",
    "layer_norm",
    "native_layer_norm",
    "rms_norm",
    "group_norm",
    "frobenius_norm.dim",
    "nuclear_norm",
    "nuclear_norm.dim",
    "cosine_similarity",
    "poisson_nll_loss",
    "cosine_embedding_loss",
    "nll_loss",
    "nll_loss2d",
    "hinge_embedding_loss",
    "kl_div",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "mse_loss",
    "margin_ranking_loss",
    "multilabel_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "multi_margin_loss",
    "binary_cross_entropy_with_logits",
    "dist",
    "pdist",
    "cdist",
    "renorm",
    "logsumexp",
    "upsample_nearest1d",
    "_upsample_nearest_exact1d",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "_upsample_bicubic2d_aa",
)
"""Run in fp32."""
FP32_SET_OPT_DTYPE: Final = (
    "prod",
    "prod.dim_int",
    "softmax.int",
    "log_softmax.int",
    "cumprod",
    "cumsum",
    "linalg_vector_norm",
    "linalg_matrix_norm",
    "linalg_matrix_norm.str_ord",
    "sum",
    "sum.dim_IntList",
)
"""Run with fp32 as the dtype of the result, unless one was given."""
PROMOTE: Final = (
    "addcdiv",
    "addcmul",
    "atan2",
    "bilinear",
    "cross",
    "dot",
    "vdot",
    "grid_sampler",
    "index_put",
    "tensordot",
    "scatter_add",
)
"""Run in the widest of the dtypes given."""

_KEY: Final = "AutocastPrivateUse1"
_kept: list[torch.library.Library] = []


class _Cache:
    """Casts of fp32 leaves that require gradients, kept until the outermost autocast ends."""

    def __init__(self) -> None:
        self._casts: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor]] = {}

    def clear(self) -> None:
        self._casts.clear()

    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`cached_cast` of autocast_mode.cpp."""
        if not _eligible(tensor) or tensor.dtype == dtype:
            return tensor
        lower = torch.get_autocast_dtype(DEVICE_TYPE)
        may_keep = (
            dtype == lower
            and tensor.dtype == torch.float32
            and tensor.requires_grad
            and tensor.is_leaf
            and not tensor._is_view()
            and torch.is_autocast_cache_enabled()
        )
        if not may_keep:
            return tensor.to(dtype)
        kept = self._casts.get(id(tensor))
        if kept is not None and kept[0]() is tensor:
            return kept[1]
        cast = tensor.to(dtype)
        self._casts[id(tensor)] = (weakref.ref(tensor), cast)
        return cast


_cache = _Cache()


def install() -> None:
    """Register the lists for the device, for the rest of the process."""
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, _KEY)
    aten = torch.library.Library("aten", "IMPL")
    for names, make in (
        (LOWER_PRECISION, _lower),
        (FP32, _fp32),
        (FP32_SET_OPT_DTYPE, _fp32_set_opt_dtype),
        (PROMOTE, _promote),
    ):
        for name in names:
            aten.impl(name, make(_overload(name)), _KEY)
    aten.impl("norm.Scalar", _norm(_overload("norm.ScalarOpt_dtype"), 2), _KEY)
    aten.impl("norm.ScalarOpt_dim", _norm(_overload("norm.ScalarOpt_dim_dtype"), 4), _KEY)
    aten.impl("binary_cross_entropy", _banned, _KEY)
    _kept.extend([others, aten])
    clear = torch.clear_autocast_cache

    def clear_both() -> None:
        _cache.clear()
        clear()

    torch.clear_autocast_cache = clear_both


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _eligible(tensor: torch.Tensor) -> bool:
    """`is_autocast_eligible` and `is_eligible`: floating, on the device, not double."""
    return (
        tensor.is_floating_point()
        and tensor.dtype != torch.float64
        and tensor.device.type == DEVICE_TYPE
    )


_AUTOCAST_KEY: Any = getattr(torch._C.DispatchKey, "AutocastPrivateUse1")  # noqa: B009 - no stub


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_AUTOCAST_KEY))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return _cache.cast(value, dtype)
    if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
        return type(value)([_cast(item, dtype) for item in value])
    return value


def _casting(op: Any, dtype_of: Callable[[Any, Any], torch.dtype]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            dtype = dtype_of(args, kwargs)
            casts = [_cast(value, dtype) for value in args]
            return op(*casts, **{name: _cast(value, dtype) for name, value in kwargs.items()})

    return run


def _lower(op: Any) -> Callable[..., Any]:
    return _casting(op, lambda args, kwargs: torch.get_autocast_dtype(DEVICE_TYPE))


def _fp32(op: Any) -> Callable[..., Any]:
    return _casting(op, lambda args, kwargs: torch.float32)


def _promote(op: Any) -> Callable[..., Any]:
    def widest(args: Any, kwargs: Any) -> torch.dtype:
        dtype = torch.get_autocast_dtype(DEVICE_TYPE)
        for value in (*args, *kwargs.values()):
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, torch.Tensor) and _eligible(item):
                    if item.dtype == torch.float32:
                        return torch.float32
                    if item.dtype != dtype:
                        dtype = torch.promote_types(dtype, item.dtype)
        return dtype

    return _casting(op, widest)


def _fp32_set_opt_dtype(op: Any) -> Callable[..., Any]:
    names = [argument.name for argument in op._schema.arguments]
    position = names.index("dtype")
    keyword_only = op._schema.arguments[position].kwarg_only

    def run(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            given = args[position] if position < len(args) else kwargs.get("dtype")
            if _eligible(args[0]) and given is None:
                if not keyword_only and position < len(args):
                    args = (*args[:position], torch.float32, *args[position + 1 :])
                else:
                    kwargs = {**kwargs, "dtype": torch.float32}
            return op(*args, **kwargs)

    return run


def _norm(op: Any, arguments: int) -> Callable[..., Any]:
    """`fp32_append_dtype`: the overload with a dtype, where the argument is eligible."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with _without_autocast():
            if not _eligible(args[0]):
                return torch.norm(*args, **kwargs)
            if arguments == 2:
                power = args[1] if len(args) > 1 else kwargs.get("p", 2)
                return op(args[0], power, dtype=torch.float32)
            keep = args[3] if len(args) > 3 else kwargs.get("keepdim", False)
            return op(args[0], args[1], args[2], keep, dtype=torch.float32)

    return run


def _banned(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError(
        "torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to autocast."
    )
