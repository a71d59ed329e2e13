"""What storages hold, as far as modules and optimizers say it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ftcheck.allocator.categories import ADAPTERS, GRADIENTS, OPTIMIZER, QUANTIZATION, WEIGHTS
from ftcheck.vgpu.record import Recorder

__all__ = ["Labels"]


class Labels:
    """Names parameters, gradients and the optimizer's state in the records.

    Args:
        recorder: Holds the records.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._parameters: weakref.WeakValueDictionary[int, nn.Parameter] = (
            weakref.WeakValueDictionary()
        )

    def install(self) -> None:
        """Follow models and optimizers, for the rest of the process."""
        self.recorder.places.roots.append(self.name_model)
        self.recorder.places.before_backward.append(self._watch_backward)
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)

    def name_model(self, model: nn.Module) -> None:
        """Label the weights and buffers of a model, and find the width of its head."""
        adapted = any(type(module).__module__.startswith("peft.") for module in model.modules())
        for name, parameter in model.named_parameters():
            trains = adapted and parameter.requires_grad
            self.recorder.relabel([parameter], ADAPTERS if trains else WEIGHTS, name)
            self.recorder.relabel(_state_of(parameter), QUANTIZATION, name)
            self._parameters[id(parameter)] = parameter
        for name, buffer in model.named_buffers():
            self.recorder.relabel([buffer], WEIGHTS, name)
        self._find_vocabulary(model)

    def _name_gradients(self) -> None:
        """Label the gradients that parameters hold now."""
        for parameter in self._parameters.values():
            if parameter.grad is not None:
                self.recorder.relabel([parameter.grad], GRADIENTS)

    def _watch_backward(self) -> None:
        """Label gradients when the backward pass that has begun is over.

        Loops of people's own may have no optimizer that would announce its step.
        """
        torch.autograd.Variable._execution_engine.queue_callback(self._name_gradients)

    def _find_vocabulary(self, model: nn.Module) -> None:
        get = getattr(model, "get_output_embeddings", None)
        head = get() if callable(get) else None
        width = getattr(head, "out_features", None)
        if isinstance(width, int):
            self.recorder.places.vocabulary = width

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.recorder.places.in_optimizer = True
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.recorder.relabel([parameter.grad], GRADIENTS)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.recorder.places.in_optimizer = False
        for state in optimizer.state.values():
            self.recorder.relabel(_tensors(state), OPTIMIZER)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _state_of(parameter: nn.Parameter) -> Iterator[torch.Tensor]:
    """Scales that bitsandbytes keeps beside a quantized weight."""
    for name in ("SCB",):
        value = getattr(parameter, name, None)
        if isinstance(value, torch.Tensor):
            yield value
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        yield from (
            value
            for name in ("absmax", "code", "offset")
            if isinstance(value := getattr(state, name, None), torch.Tensor)
        )
        state = getattr(state, "state2", None)
