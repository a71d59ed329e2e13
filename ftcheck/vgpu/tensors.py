"""Models without weights, put on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ftcheck.allocator.categories import WEIGHTS
from ftcheck.vgpu.device import DEVICE_TYPE, device
from ftcheck.vgpu.record import Recorder

__all__ = ["keep_parameters", "materialize"]

Module = TypeVar("Module", bound=nn.Module)


def materialize(model: Module, recorder: Recorder) -> Module:
    """Give each parameter and buffer of a model storage on the device, in place.

    Tensors that are one stay one: a tied head is counted once. Views of one storage (which models
    of transformers do not have) become tensors of their own.

    Args:
        model: Built under `torch.device("meta")`, or on the CPU.
        recorder: Told of each tensor.
    """
    moved: dict[int, torch.Tensor] = {}

    def move(tensor: torch.Tensor, name: str) -> torch.Tensor:
        if tensor.device.type == DEVICE_TYPE:
            return tensor
        if id(tensor) not in moved and _quantizes(tensor):
            # bitsandbytes quantizes on the way from the host. Pages that nobody writes are free.
            source = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            kind: Any = type(tensor)
            quantized = kind(source, requires_grad=tensor.requires_grad, **tensor.__dict__)
            moved[id(tensor)] = quantized.to(device())
            recorder.relabel([moved[id(tensor)]], WEIGHTS, name)
        if id(tensor) not in moved:
            fresh = recorder.allocate(tensor.shape, tensor.stride(), tensor.dtype, "load", WEIGHTS)
            recorder.relabel([fresh], WEIGHTS, name)
            moved[id(tensor)] = fresh
        return moved[id(tensor)]

    parameters: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in parameters:
                fresh = move(parameter, f"{prefix}.{name}" if prefix else name)
                parameters[id(parameter)] = _parameter(fresh, parameter)
            module._parameters[name] = parameters[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = move(buffer, f"{prefix}.{name}" if prefix else name)
    return model


def keep_parameters() -> None:
    """Let `Module.to` keep parameters what they are, for the rest of the process.

    On CUDA it replaces the data of a parameter: a tied head stays tied, and an optimizer that was
    made before holds the parameters of the card. Torch does not do that for devices it does not
    know (`has_compatible_shallow_copy_type` in c10/core/TensorImpl.h), and makes new parameters.
    Here the first one that is made serves all holders, and its contents are swapped with those of
    the old one, as `torch.__future__.set_swap_module_params_on_conversion` has it.
    """
    apply = nn.Module._apply

    def apply_in_place(
        module: nn.Module, fn: Callable[..., Any], recurse: bool = True
    ) -> nn.Module:
        if isinstance(fn, _Once):  # an inner module of one that is being moved
            inner: nn.Module = apply(module, fn, recurse)
            return inner
        before = {
            (id(owner), name): parameter
            for owner in module.modules()
            for name, parameter in owner._parameters.items()
            if parameter is not None
        }
        result: nn.Module = apply(module, _Once(fn, set(map(id, before.values()))), recurse)
        after: dict[int, nn.Parameter] = {}
        for owner in module.modules():
            for name, parameter in list(owner._parameters.items()):
                old = before.get((id(owner), name))
                if parameter is not None and old is not None:
                    if id(old) not in after:
                        after[id(old)] = _swapped(old, parameter)
                    owner._parameters[name] = after[id(old)]
        return result

    nn.Module._apply = apply_in_place  # type: ignore[method-assign] # see above


def _swapped(old: nn.Parameter, new: nn.Parameter) -> nn.Parameter:
    """The old parameter with what the new one holds, a gradient included.

    It does what `torch.utils.swap_tensors` does, which refuses tensors with weak references; those
    stay good here, since nobody has any to the new one. A tensor that a graph holds cannot be
    swapped: the new parameter is returned.
    """
    both: Any = (old, new)
    held = any(parameter._use_count() > 1 for parameter in both)
    if old is new or type(old) is not type(new) or held:
        return new
    new._backward_hooks = old._backward_hooks
    after: Any = getattr(old, "_post_accumulate_grad_hooks", None)
    if after is not None:
        new._post_accumulate_grad_hooks = after
    old.__dict__, new.__dict__ = new.__dict__, old.__dict__
    torch._C._swap_tensor_impl(old, new)
    return old


class _Once:
    """A function of tensors that remembers what it gave for parameters."""

    def __init__(self, fn: Callable[..., Any], parameters: set[int]) -> None:
        self._fn = fn
        self._parameters = parameters
        self._given: dict[int, Any] = {}

    def __call__(self, tensor: torch.Tensor) -> Any:
        if id(tensor) not in self._parameters:
            return self._fn(tensor)
        if id(tensor) not in self._given:
            self._given[id(tensor)] = self._fn(tensor)
        return self._given[id(tensor)]


def _quantizes(tensor: torch.Tensor) -> bool:
    """Whether it is a parameter class of bitsandbytes (`Params4bit`, `Int8Params`)."""
    return type(tensor).__module__.startswith("bitsandbytes.")


def _parameter(fresh: torch.Tensor, old: nn.Parameter) -> nn.Parameter:
    if isinstance(fresh, nn.Parameter):
        return fresh
    return nn.Parameter(fresh, old.requires_grad)
