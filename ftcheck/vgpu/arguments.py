"""What operations are called with: shapes, keys, meta twins, and on which devices it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from ftcheck.vgpu.device import DEVICE_TYPE, device

__all__ = [
    "cache_key",
    "check_devices",
    "contiguous_strides",
    "layout_of",
    "only_out",
    "point_at",
    "tensors_in",
    "to_meta",
]

_SET_STORAGE: Final = torch.ops.aten.set_.source_Storage_storage_offset


def only_out(op: Any) -> bool:
    """Whether what is written is not read: `out=` variants, and those that overwrite."""
    name = op._schema.name
    return any(argument.is_out for argument in op._schema.arguments) or name in (
        "aten::fill_",
        "aten::zero_",
    )


def contiguous_strides(size: Sequence[int]) -> list[int]:
    stride = [1] * len(size)
    for position in range(len(size) - 2, -1, -1):
        stride[position] = stride[position + 1] * max(size[position + 1], 1)
    return stride


def layout_of(value: Any) -> Any:
    """Sizes, strides and dtype of a result; a result that is no tensor stays as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return (value.shape, value.stride(), value.dtype)


def cache_key(value: Any) -> Any:
    """What the shapes of results depend on, hashable."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype, value.device.type)
    if isinstance(value, (list, tuple)):
        return tuple([cache_key(item) for item in value])
    if isinstance(value, (float, bool)):
        return (type(value), value)
    return value


def point_at(
    tensor: torch.Tensor, source: Any, offset: int, size: Sequence[int], stride: Sequence[int]
) -> None:
    """Make a tensor look at a storage, or at that of another tensor."""
    storage = source.untyped_storage() if isinstance(source, torch.Tensor) else source
    # The CPU kernel only moves sizes and pointers, and does not look at the device.
    _SET_STORAGE._op_dk(torch._C.DispatchKey.CPU, tensor, storage, offset, size, stride)


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [item for item in value if isinstance(item, torch.Tensor)]
    return []


def to_meta(value: Any, metas: dict[int, torch.Tensor] | None = None) -> Any:
    if isinstance(value, torch.Tensor):
        if value.device.type == "cpu" and value.dim() == 0:
            return value
        meta = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        if metas is not None:
            meta = metas.setdefault(id(value), meta)
        return meta
    if isinstance(value, (list, tuple)):
        return type(value)([to_meta(item, metas) for item in value])
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, torch.Generator):
        return None
    return value


def check_devices(arguments: Sequence[Any], *, indices: bool = False) -> None:
    """Raise what CUDA raises where tensors of the host are given beside those of the card."""
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            if argument.device.type != DEVICE_TYPE and argument.dim() > 0 and not indices:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two "
                    f"devices, {device()} and {argument.device}!"
                )
        elif (
            isinstance(argument, (list, tuple))
            and argument
            and not indices
            and isinstance(argument[0], torch.Tensor)
        ):
            check_devices(argument)
