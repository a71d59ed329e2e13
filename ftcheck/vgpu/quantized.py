"""bitsandbytes: what its CUDA kernels allocate (`bitsandbytes/backends/cuda/ops.py` of 0.50).

Without these, the kernels that bitsandbytes has for every device would run, which are written
with torch and take other memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NoReturn

import torch

from ftcheck.vgpu.errors import Unmeasured
from ftcheck.vgpu.kernels import Kernels

__all__ = ["Quantized", "has_operators"]

_BY_SHAPE: Final = (
    "int8_linear_matmul",
    "quantize_4bit",
    "dequantize_4bit",
    "gemv_4bit",
    "quantize_blockwise",
    "dequantize_blockwise",
)
"""Kernels that allocate their results and nothing else."""
_IN_PLACE: Final = (
    "int8_linear_matmul.out",
    "dequantize_4bit.out",
    "gemv_4bit.out",
    "dequantize_blockwise.out",
    "optimizer_update_32bit",
    "optimizer_update_8bit_blockwise",
)


class Quantized:
    """Kernels of bitsandbytes on the device.

    Args:
        kernels: Run what allocates results only.
        assume: Told what had to be assumed.
    """

    def __init__(self, kernels: Kernels, assume: Callable[[str], None]) -> None:
        self.kernels = kernels
        self.assume = assume
        self._kept: list[torch.library.Library] = []

    def install(self, functional: Any) -> None:
        """Register for the device; bitsandbytes has been imported.

        Args:
            functional: The module `bitsandbytes.functional`.
        """
        if not has_operators():
            return  # refused where something is quantized
        library = torch.library.Library("bitsandbytes", "IMPL")
        self._kept.append(library)
        for name in _BY_SHAPE:
            library.impl(name, partial(self._by_shape, _op(name)), "PrivateUse1")
        for name in _IN_PLACE:
            if _exists(name):
                library.impl(name, _nothing, "PrivateUse1")
        library.impl("int8_vectorwise_quant", self._int8_rows, "PrivateUse1")
        library.impl("int8_mm_dequant", self._int8_results, "PrivateUse1")
        library.impl("int8_double_quant", self._int8_both, "PrivateUse1")
        if _exists("gemm_4bit"):
            library.impl("gemm_4bit", self._gemm_4bit, "PrivateUse1")
        functional.get_paged = self._paged
        functional.prefetch_tensor = _nothing
        fill = functional.fill
        functional.fill = lambda tensor, *args, **kwargs: (
            None if getattr(tensor, "is_paged", False) else fill(tensor, *args, **kwargs)
        )

    def _by_shape(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        return self.kernels.functional(op, args, kwargs)

    def _int8_rows(
        self, values: torch.Tensor, threshold: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """`int8_vectorwise_quant`: rows to int8; `threshold` looks for columns of outliers."""
        rows = values.numel() // values.shape[-1]
        scales = values.new_empty((rows,), dtype=torch.float32)
        quantized = torch.empty_like(
            values, dtype=torch.int8, memory_format=torch.contiguous_format
        )
        if threshold <= 0.0:
            return quantized, scales, None
        self.assume(
            "int8: no column of the activations holds outliers; each column that does would keep "
            "its half-precision values for the backward pass"
        )
        outliers = values.abs() >= threshold
        del outliers
        return quantized, scales, values.new_empty((0,), dtype=torch.int64)

    def _int8_results(
        self,
        products: torch.Tensor,
        row_stats: torch.Tensor,
        col_stats: torch.Tensor,
        dtype: torch.dtype | None = None,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`int8_mm_dequant`: sums in int32 to fp16, then to the dtype asked for."""
        result = torch.empty_like(products, dtype=torch.float16)
        if bias is not None and bias.dtype != torch.float16:
            result.add_(bias)
        return result.to(dtype or torch.float16)

    def _int8_both(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Unmeasured(
            "bitsandbytes::int8_double_quant", "training int8 weights themselves is not modelled"
        )

    def _paged(
        self, *shape: int, dtype: torch.dtype = torch.float32, device: Any = None
    ) -> torch.Tensor:
        """State of a paged optimizer: managed memory, which is not the allocator's."""
        del device
        self.assume(
            "paged optimizer: its state lies in memory that the driver moves between host and "
            "card; it is not counted"
        )
        state: Any = torch.empty(shape, dtype=dtype)
        state.is_paged, state.page_deviceid = True, 0
        return state  # type: ignore[no-any-return] # a tensor with two marks of bitsandbytes

    def _gemm_4bit(
        self,
        activations: torch.Tensor,
        weight: torch.Tensor,
        shape: Sequence[int],
        absmax: torch.Tensor,
        blocksize: int,
        quant_type: str,
        bias: torch.Tensor | None = None,
        absmax_8bit: torch.Tensor | None = None,
        absmax_code: torch.Tensor | None = None,
        absmax_offset: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`gemm_4bit` (inference) by its fallback: the weight dequantized, then a product."""
        self.assume("4 bits without gradients: weights are dequantized one by one, not fused")
        if absmax_8bit is not None:
            absmax = absmax_8bit.new_empty(absmax_8bit.shape, dtype=torch.float32)
        dequantize = torch.ops.bitsandbytes.dequantize_4bit.default
        whole = dequantize(weight, absmax, blocksize, quant_type, shape, activations.dtype)
        return torch.nn.functional.linear(activations, whole, bias)


def _op(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.bitsandbytes, packet), overload or "default")


def has_operators() -> bool:
    """Whether the kernels of bitsandbytes are operators of torch, which they are from 0.46 on."""
    return _exists("int8_linear_matmul")


def _exists(name: str) -> bool:
    packet, _, overload = name.partition(".")
    found = getattr(torch.ops.bitsandbytes, packet, None)
    return found is not None and (overload or "default") in found.overloads()


def _nothing(*args: Any, **kwargs: Any) -> None:
    """A kernel that writes to what it is given, and allocates nothing."""
