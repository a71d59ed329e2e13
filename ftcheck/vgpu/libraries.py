"""What must be adapted in libraries, so that they take the device for the card it stands in for."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any

import torch

from ftcheck.vgpu import facade
from ftcheck.vgpu.device import DEVICE_TYPE
from ftcheck.vgpu.errors import Unmeasured
from ftcheck.vgpu.hollow import save_hollow
from ftcheck.vgpu.quantized import Quantized, has_operators
from ftcheck.vgpu.record import Recorder

__all__ = ["environment", "install", "on_import"]

_WORTH_BYTES = int(1.5 * 1024**3)
"""What transformers takes to be worth a large allocation."""


def environment() -> dict[str, str]:
    """Variables that accelerate reads: the device to choose where none is given."""
    return {"ACCELERATE_TORCH_DEVICE": f"{DEVICE_TYPE}:0"}


def install(quantized: Quantized, recorder: Recorder) -> None:
    """Adapt libraries now if they are imported, otherwise as soon as they are.

    Args:
        quantized: Kernels for bitsandbytes.
        recorder: Knows what was alive.
    """
    os.environ.update(environment())
    # Pinned memory is the host's; asking for it needs hooks that cannot be written in Python.
    host: Any = torch.Tensor
    host.pin_memory = lambda tensor, device=None: tensor
    host.is_pinned = lambda tensor, device=None: False
    on_import("accelerate.accelerator", _adapt_accelerator)
    on_import("safetensors", _adapt_safe_open)
    on_import("safetensors.torch", _adapt_safetensors)
    on_import("transformers.utils.import_utils", _adapt_import_utils)
    on_import("transformers.modeling_utils", partial(_adapt_modeling_utils, recorder))
    on_import("transformers.integrations.bitsandbytes", _adapt_availability)
    if "bitsandbytes" not in sys.modules:  # it takes functions of a build with CUDA, if it is there
        sys.meta_path.insert(0, _Watcher("bitsandbytes", lambda module: None, facade.as_it_is))
    on_import("bitsandbytes.functional", quantized.install)
    on_import("bitsandbytes.nn.modules", _adapt_bitsandbytes)


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
    _replace(module.is_torch_bf16_gpu_available, lambda: True)  # emulated where there is none


def _adapt_safe_open(module: Any) -> None:
    """Read files to the host: what reads them in Rust knows no other devices than torch's own.

    transformers moves each weight to its device itself, and before 5.0 asks for it there at once.
    """
    open_file = module.safe_open

    def safe_open(filename: Any, framework: str, device: Any = "cpu", **more: Any) -> Any:
        on_card = str(device).partition(":")[0] in (DEVICE_TYPE, "cuda")
        return open_file(filename, framework, "cpu" if on_card else device, **more)

    _replace(open_file, safe_open)


def _adapt_safetensors(module: Any) -> None:
    """Write what lies on the device as files without contents.

    The tensors are copied to the host one by one, as the real function does.
    """
    save = module.save_file

    def save_file(tensors: Any, filename: Any, metadata: Any = None) -> None:
        if not any(tensor.device.type == DEVICE_TYPE for tensor in tensors.values()):
            save(tensors, filename, metadata)
            return
        for tensor in tensors.values():
            tensor.contiguous()
        save_hollow(tensors, filename, metadata)

    _replace(save, save_file)


def _adapt_modeling_utils(recorder: Recorder, module: Any) -> None:
    """Take the whole model from the allocator once before it is loaded, and give it back.

    `caching_allocator_warmup` of transformers does so for `device_map`, on types of devices that
    it knows. What the allocator has cached is taken to be what was alive at most, less what is.
    """
    count = getattr(module, "get_total_byte_count", None)
    if count is None:  # transformers before 4.52
        return

    def warm_up(model: Any, device_map: Any, quantizer: Any) -> None:
        devices = {name: torch.device(place) for name, place in device_map.items()}
        on_card = {name: place for name, place in devices.items() if place.type == DEVICE_TYPE}
        for place, size_bytes in count(model, on_card, quantizer).items():
            wanted = _warm_up_bytes(int(size_bytes), recorder.cached_bytes())
            torch.empty(wanted // 2, dtype=torch.float16, device=place)

    _replace(module.caching_allocator_warmup, warm_up)


def _warm_up_bytes(size_bytes: int, unused_bytes: int) -> int:
    """The rule of `caching_allocator_warmup`, transformers 5.24."""
    if size_bytes - unused_bytes > unused_bytes:
        return size_bytes - unused_bytes
    return unused_bytes + 1 if size_bytes - unused_bytes > _WORTH_BYTES else 0


def _adapt_availability(module: Any) -> None:
    """Let transformers take bitsandbytes for usable: its kernels are there."""
    if has_operators():
        _replace(module.validate_bnb_backend_availability, lambda raise_exception=False: True)


def _adapt_bitsandbytes(module: Any) -> None:
    """Quantize into a new parameter.

    bitsandbytes replaces the data of a parameter of the host by that of the card, which torch only
    lets devices do that it knows (`has_compatible_shallow_copy_type` in c10/core/TensorImpl.h).
    """
    for kind in (module.Params4bit, module.Int8Params):
        if not hasattr(kind, "_quantize"):  # before 0.46: transformers refuses it without CUDA
            continue
        kind._quantize = _quantizing_anew(kind, kind._quantize)


def _quantizing_anew(kind: Any, quantize: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def quantize_anew(parameter: Any, target: Any) -> Any:
        if not has_operators():
            raise Unmeasured(
                "this bitsandbytes",
                "its kernels are no operators of torch",
                next_step="Install bitsandbytes 0.46 or newer.",
            )
        if parameter.device.type == torch.device(target).type:
            return quantize(parameter, target)
        dtype = torch.float16 if kind.__name__ == "Int8Params" else parameter.dtype
        data = parameter.data.contiguous().to(device=target, dtype=dtype)
        return quantize(kind(data, requires_grad=False, **parameter.__dict__), target)

    return quantize_anew


def _replace(function: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Put a function in the place of another wherever a module has that by any name."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is function:
                setattr(module, name, other)


def _grad_scaler(distributed_type: object = None, **kwargs: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(DEVICE_TYPE, **kwargs)


class _Cuda:
    """The device, except that it says it were of type `cuda`."""

    def __init__(self, real: torch.device) -> None:
        self.real = real
        self.type = "cuda" if real.type == DEVICE_TYPE else real.type

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def on_import(name: str, adapt: Callable[[ModuleType], None]) -> None:
    """Call `adapt` with a module once it is there."""
    if name in sys.modules:
        adapt(sys.modules[name])
        return
    sys.meta_path.insert(0, _Watcher(name, adapt))


class _Watcher(importlib.abc.MetaPathFinder):
    """Finds one module as others would, runs it within `around`, and adapts it then."""

    def __init__(
        self,
        name: str,
        adapt: Callable[[ModuleType], None],
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._name = name
        self._adapt = adapt
        self._around = around
        self._asks_others = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._name or self._asks_others:
            return None
        self._asks_others = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asks_others = False
        if spec is None or spec.loader is None:
            return None
        run, adapt, around = spec.loader.exec_module, self._adapt, self._around

        def run_and_adapt(module: ModuleType) -> None:
            sys.meta_path.remove(self)  # not before: many only ask whether there is such a module
            with around():
                run(module)
            adapt(module)

        spec.loader.exec_module = run_and_adapt  # type: ignore[method-assign] # of this module only
        return spec
