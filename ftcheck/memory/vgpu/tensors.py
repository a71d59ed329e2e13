"""Models without weights, put on the device."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from ftcheck.memory.vgpu import device
from ftcheck.memory.vgpu.record import WEIGHTS, Recorder

__all__ = ["materialize"]

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
        if tensor.device.type == device.DEVICE_TYPE:
            return tensor
        if id(tensor) not in moved:
            fresh = device.allocate(tensor.shape, tensor.stride(), tensor.dtype)
            record = recorder.allocated(fresh, "load", WEIGHTS)
            if record is not None:
                record.module = name
            moved[id(tensor)] = fresh
        return moved[id(tensor)]

    parameters: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in parameters:
                fresh = move(parameter, f"{prefix}.{name}" if prefix else name)
                parameters[id(parameter)] = nn.Parameter(fresh, parameter.requires_grad)
            module._parameters[name] = parameters[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = move(buffer, f"{prefix}.{name}" if prefix else name)
    return model
