"""What must be adapted in libraries, so that they take the device for the card it stands in for."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from ftcheck.memory.vgpu.device import DEVICE_TYPE
from ftcheck.memory.vgpu.quantized import Quantized

__all__ = ["environment", "install"]


def environment() -> dict[str, str]:
    """Variables that accelerate reads: the device to choose where none is given."""
    return {"ACCELERATE_TORCH_DEVICE": f"{DEVICE_TYPE}:0"}


def install(quantized: Quantized) -> None:
    """Adapt libraries now if they are imported, otherwise as soon as they are.

    Args:
        quantized: Kernels for bitsandbytes.
    """
    os.environ.update(environment())
    # Pinned memory is the host's; asking for it needs hooks that cannot be written in Python.
    host: Any = torch.Tensor
    host.pin_memory = lambda tensor, device=None: tensor
    host.is_pinned = lambda tensor, device=None: False
    _on_import("accelerate.accelerator", _adapt_accelerator)
    _on_import("transformers.utils.import_utils", _adapt_import_utils)
    _on_import("bitsandbytes.functional", quantized.install)
    _on_import("bitsandbytes.nn.modules", _adapt_bitsandbytes)


def _adapt_accelerator(module: Any) -> None:
    """Let `Accelerator` use fp16, and a `GradScaler` of the device.

    `Accelerator.__init__` compares the type of its device with a list of names; it is told `cuda`
    there, and only there.
    """
    init = module.Accelerator.__init__

    def init_as_cuda(self: Any, *args: Any, **kwargs: Any) -> None:
        own = type(self).device
        type(self).device = property(lambda accelerator: _Cuda(own.__get__(accelerator)))
        try:
            init(self, *args, **kwargs)
        finally:
            type(self).device = own

    module.Accelerator.__init__ = init_as_cuda
    module.get_grad_scaler = _grad_scaler
    module.is_bf16_available = lambda ignore_tpu=False: True


def _adapt_import_utils(module: Any) -> None:
    """Let `TrainingArguments` ask the device, not CUDA, whether it has bf16."""
    module.is_torch_bf16_gpu_available = lambda: True  # CUDA emulates it where it has none


def _adapt_bitsandbytes(module: Any) -> None:
    """Quantize into a new parameter.

    bitsandbytes replaces the data of a parameter of the host by that of the card, which torch only
    lets devices do that it knows (`has_compatible_shallow_copy_type` in c10/core/TensorImpl.h).
    """
    for kind in (module.Params4bit, module.Int8Params):
        kind._quantize = _quantizing_anew(kind, kind._quantize)


def _quantizing_anew(kind: Any, quantize: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def quantize_anew(parameter: Any, target: Any) -> Any:
        if parameter.device.type == torch.device(target).type:
            return quantize(parameter, target)
        dtype = torch.float16 if kind.__name__ == "Int8Params" else parameter.dtype
        data = parameter.data.contiguous().to(device=target, dtype=dtype)
        return quantize(kind(data, requires_grad=False, **parameter.__dict__), target)

    return quantize_anew


def _grad_scaler(distributed_type: object = None, **kwargs: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(DEVICE_TYPE, **kwargs)


class _Cuda:
    """The device, except that it says it were of type `cuda`."""

    def __init__(self, real: torch.device) -> None:
        self.real = real
        self.type = "cuda" if real.type == DEVICE_TYPE else real.type

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def _on_import(name: str, adapt: Callable[[ModuleType], None]) -> None:
    """Call `adapt` with a module once it is there."""
    if name in sys.modules:
        adapt(sys.modules[name])
        return
    sys.meta_path.insert(0, _Watcher(name, adapt))


class _Watcher(importlib.abc.MetaPathFinder):
    """Finds one module as others would, and adapts it after it has run."""

    def __init__(self, name: str, adapt: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._adapt = adapt

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        run, adapt = spec.loader.exec_module, self._adapt

        def run_and_adapt(module: ModuleType) -> None:
            run(module)
            adapt(module)

        spec.loader.exec_module = run_and_adapt  # type: ignore[method-assign] # of this module only
        return spec
