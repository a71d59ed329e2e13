"""Scripts with a training loop of their own: followed from forward passes and optimizer steps."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

__all__ = ["Loop"]

_MOST_BATCHES: Final = 16
_WATCHED: Final = 16
"""Parameters whose gradients are watched: more than one, since some may get none."""


def _parameters(model: Any) -> Iterator[str]:
    """Names under which a model takes what is given by its place."""
    return iter(inspect.signature(model.forward).parameters)


class Loop:
    """Notes the batches that a model of transformers is trained on, until some steps were made.

    Attributes:
        off: Set where a `Trainer` has taken over.
        rates: The highest learning rate of each optimizer step.
        kept: Steps whose gradient was still there when the next one was added to it.

    Args:
        reached: Called with a trainer that holds the model, its optimizer and the batches.
        steps: Optimizer steps after which it is called.
    """

    def __init__(self, reached: Callable[[Any], None], steps: int) -> None:
        self._reached, self._left = reached, steps
        self._batches: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        self._forwards: list[bool] = []
        self._model: Any = None
        self._state: dict[str, Any] = {}
        self._hooks: list[Any] = []
        self._awaited: set[int] = set()
        self._watched: set[int] = set()
        self.off = False
        self.rates: list[float] = []
        self.kept = 0

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

        if not torch.is_grad_enabled():
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
            self._watch(model)
        if model is self._model:
            self._forwards.append(model.training)
            held = self._batches[model.training]
            if len(held) < _MOST_BATCHES:
                held.append(
                    {
                        name: value.detach().clone()
                        for name, value in given.items()
                        if isinstance(value, torch.Tensor)
                    }
                )

    def _step(self, optimizer: Any, arguments: Any, named: Any) -> None:
        if self.off or self._model is None or not self._forwards:
            return
        self._left -= 1
        self.rates.append(max(float(group["lr"]) for group in optimizer.param_groups))
        held = {id(one) for group in optimizer.param_groups for one in group["params"]}
        self._awaited = self._watched & held
        if self._left <= 0:
            self.off = True
            for hook in self._hooks:
                hook.remove()
            self._reached(self._trainer(optimizer))

    def _watch(self, model: Any) -> None:
        """Look, when a gradient comes in, whether that of the step before is still there."""
        for hook in self._hooks:
            hook.remove()
        trained = [one for one in model.parameters() if one.requires_grad][:_WATCHED]
        self._watched = {id(one) for one in trained}
        self._hooks = [one.register_hook(partial(self._comes_in, one)) for one in trained]

    def _comes_in(self, parameter: Any, _: Any) -> None:
        if id(parameter) in self._awaited:
            self._awaited = set()  # one tells of all
            self.kept += parameter.grad is not None and bool(parameter.grad.any())

    def _trainer(self, optimizer: Any) -> Any:
        """A trainer with the loop's model as it was at the start, its optimizer and its batches."""
        import torch
        from transformers import Trainer, TrainingArguments

        in_training = any(self._forwards)  # else the loop never calls train()

        class Followed(Trainer):  # type: ignore[misc] # transformers has no types
            """Trains in the mode in which the loop does."""

            def compute_loss(self, model: Any, *given: Any, **named: Any) -> Any:
                if not in_training:
                    model.eval()
                return super().compute_loss(model, *given, **named)

        batches = self._batches[in_training]
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
        return Followed(
            model=self._model,
            args=arguments,
            train_dataset=batches,
            data_collator=lambda rows: rows[0],
            optimizers=(optimizer, None),
        )
