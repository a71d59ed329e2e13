"""Scripts with a training loop of their own: followed from forward passes and optimizer steps."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["Loop"]

_MOST_BATCHES: Final = 16


def _parameters(model: Any) -> Iterator[str]:
    """Names under which a model takes what is given by its place."""
    return iter(inspect.signature(model.forward).parameters)


class Loop:
    """Notes the batches that a model of transformers is trained on, until some steps were made.

    Attributes:
        off: Set where a `Trainer` has taken over.

    Args:
        reached: Called with a trainer that holds the model, its optimizer and the batches.
        steps: Optimizer steps after which it is called.
    """

    def __init__(self, reached: Callable[[Any], None], steps: int) -> None:
        self._reached, self._left = reached, steps
        self._batches: list[dict[str, Any]] = []
        self._model: Any = None
        self._state: dict[str, Any] = {}
        self.off = False

    def install(self) -> None:
        """Watch forward passes and steps of this process."""
        import torch
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(self._step)
        inner, loop = torch.nn.Module.__call__, self

        def call(module: Any, *arguments: Any, **named: Any) -> Any:
            if not loop.off and (arguments or "input_ids" in named) and loop._is_model(module):
                given = {**dict(zip(_parameters(module), arguments, strict=False)), **named}
                if "input_ids" in given:
                    loop._saw(module, given)
            return inner(module, *arguments, **named)

        torch.nn.Module.__call__ = call  # type: ignore[method-assign] # what is watched

    @staticmethod
    def _is_model(module: Any) -> bool:
        return hasattr(module, "peft_config") or hasattr(module, "generation_config")

    def _saw(self, model: Any, given: dict[str, Any]) -> None:
        import torch

        if not model.training or not torch.is_grad_enabled():
            return
        if self._model is None or (
            hasattr(model, "peft_config") and not hasattr(self._model, "peft_config")
        ):
            self._model = model
            self._state = {
                name: value.detach().clone()
                for name, value in model.named_parameters()
                if value.requires_grad
            }
        if model is self._model and len(self._batches) < _MOST_BATCHES:
            self._batches.append(
                {
                    name: value.detach().clone()
                    for name, value in given.items()
                    if isinstance(value, torch.Tensor)
                }
            )

    def _step(self, optimizer: Any, arguments: Any, named: Any) -> None:
        if self.off or self._model is None or not self._batches:
            return
        self._left -= 1
        if self._left <= 0:
            self.off = True
            self._reached(self._trainer(optimizer))

    def _trainer(self, optimizer: Any) -> Any:
        """A trainer with the loop's model as it was at the start, its optimizer and its batches."""
        import torch
        from transformers import Trainer, TrainingArguments

        with torch.no_grad():
            for name, value in self._model.named_parameters():
                if name in self._state:
                    value.copy_(self._state[name])
        optimizer.state.clear()
        rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(prefix="ftcheck-loop-"),
            per_device_train_batch_size=1,
            learning_rate=max(rates),
            report_to=[],
            use_cpu=True,
            remove_unused_columns=False,
            max_steps=1000,
        )
        return Trainer(
            model=self._model,
            args=arguments,
            train_dataset=self._batches,
            data_collator=lambda rows: rows[0],
            optimizers=(optimizer, None),
        )
