"""The device under the name `cuda`, for code that people wrote for a card.

`torch.device("cuda")` can be made on any build of torch; what cannot be done there is to put
tensors on it. A mode above all functions of torch puts the virtual GPU in its place, and the
functions of `torch.cuda` that scripts ask are answered by the device's own module.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode

from ftcheck.vgpu.device import DEVICE_TYPE, device

__all__ = ["as_cuda", "as_it_is"]

_ASKED: Final = (
    "is_available",
    "is_initialized",
    "device_count",
    "current_device",
    "set_device",
    "synchronize",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "get_rng_state",
    "set_rng_state",
    "get_rng_state_all",
    "set_rng_state_all",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "max_memory_allocated",
    "max_memory_reserved",
    "reset_peak_memory_stats",
)
"""Functions of `torch.cuda` that the device's module has, too."""
_PLACES: Final = frozenset({torch.Tensor.to, torch.Tensor.cuda})
_entered: list[TorchFunctionMode] = []
_real: dict[str, Any] = {}
"""Functions of `torch.cuda` as torch has them."""


def as_cuda(processors: Callable[[], int]) -> None:
    """Let `cuda` mean the virtual GPU, for the rest of the process.

    Args:
        processors: Multiprocessors of the card, for `get_device_properties`.
    """
    if _entered:
        return
    module = getattr(torch, DEVICE_TYPE)
    for name in _ASKED:
        _real[name] = getattr(torch.cuda, name)
        for place in (torch.cuda, torch.cuda.random, torch.cuda.memory):
            if hasattr(place, name):
                setattr(place, name, getattr(module, name))
    major, minor = module.capability
    total = getattr(module, "total_memory", 0)
    torch.cuda.get_device_properties = lambda device=None: SimpleNamespace(  # type: ignore[assignment, return-value] # no card, no real properties
        name=module.get_device_name(),
        major=major,
        minor=minor,
        multi_processor_count=processors(),
        **({"total_memory": total} if total else {}),
    )
    for name in ("_exchange_device", "_maybe_exchange_device"):  # of `with torch.cuda.device(...)`
        setattr(torch.cuda, name, lambda _: 0)
    for kind in (torch.autocast, torch.amp.GradScaler):
        _rename(kind)
    mode = _Mode()
    mode.__enter__()
    _entered.append(mode)


@contextlib.contextmanager
def as_it_is() -> Iterator[None]:
    """Let `torch.cuda` answer for itself, for a library that then looks for CUDA's functions."""
    virtual = {name: getattr(torch.cuda, name) for name in _real}
    vars(torch.cuda).update(_real)
    try:
        yield
    finally:
        vars(torch.cuda).update(virtual)


def _rename(kind: Any) -> None:
    """Let a class that takes a type of device take `cuda` for the virtual one."""
    init = kind.__init__

    @functools.wraps(init)
    def renamed(self: Any, *args: Any, **kwargs: Any) -> None:
        names = ("device_type", "device")
        if args and _is_cuda(args[0]):
            args = (DEVICE_TYPE, *args[1:])
        for name in names:
            if _is_cuda(kwargs.get(name)):
                kwargs[name] = DEVICE_TYPE
        init(self, *args, **kwargs)

    kind.__init__ = renamed


class _Mode(TorchFunctionMode):
    """Puts the virtual GPU where `cuda` is asked for."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _PLACES:
            return self._moved(func, args, dict(kwargs or {}))
        if func == _IS_CUDA:  # each look at it makes a new wrapper
            return args[0].device.type == DEVICE_TYPE
        if kwargs and _is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": device()}
        return func(*args, **(kwargs or {}))

    def _moved(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if func is torch.Tensor.cuda:
            return args[0].to(device())
        places = tuple(
            device() if _is_cuda(value) or type(value) is int else value for value in args[1:]
        )
        named = {
            name: device() if name == "device" and _is_cuda(value) else value
            for name, value in kwargs.items()
        }
        return func(args[0], *places, **named)


_IS_CUDA: Final = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined] # a getter of C


def _is_cuda(place: Any) -> bool:
    if isinstance(place, torch.device):
        return place.type == "cuda"
    return isinstance(place, str) and place.partition(":")[0] == "cuda"
