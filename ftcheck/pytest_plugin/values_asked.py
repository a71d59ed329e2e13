"""Who asks for a value that the virtual GPU does not compute: a library, or the test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ftcheck.vgpu.errors import Unmeasured

if TYPE_CHECKING:
    from ftcheck.vgpu.values import Values

__all__ = ["Asked", "mark_metrics", "mark_numbers"]

_CARRIERS: Final = (
    "torch",
    "numpy",
    "json",
    "copy",
    "ftcheck.vgpu",
    "ftcheck.pytest_plugin",
)
"""They ask because somebody asked them."""
_STEPS: Final = (
    "torch.optim",
    "torch.amp",
    "torch.nn.utils",
    "torch.autograd",
    "torch.utils.checkpoint",
)
_LIBRARIES: Final = (
    *_STEPS,
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "trl",
    "safetensors",
)
"""They train, generate and save, whatever the values are."""
_TELLERS: Final = ("transformers.tokenization", "transformers.testing_utils")
"""What they make of values is for whoever called them."""


class Asked:
    """Refuses values to all but libraries that go on whatever they are; those get nominal ones.

    Args:
        assume: Told of the libraries that got some.

    Attributes:
        given: Whether a library got any.
    """

    def __init__(self, assume: Callable[[str], None]) -> None:
        self.given = False
        self._assume = assume

    def __call__(self, what: str) -> None:
        """Somebody asks.

        Args:
            what: Such as "the value of a float32".

        Raises:
            Unmeasured: With the place that asked.
        """
        library, tells = "", False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if _within(name, _LIBRARIES):
                library = library or name
                tells = tells or name.startswith(_TELLERS)
            elif not _within(name, _CARRIERS):
                break
            frame = frame.f_back
        if library and not tells:
            package = library.partition(".")[0]
            self._assume(f"{package} got nominal values of what only a real card computes")
            self.given = True
            return
        where = "the test"
        if frame is not None:
            where = f"{os.path.relpath(frame.f_code.co_filename)}:{frame.f_lineno}"
        raise Unmeasured(where, f"it asks for {what}, which only a real card computes")


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


_ARITHMETIC: Final = (
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "pow",
    "rpow",
    "neg",
    "pos",
    "abs",
    "round",
)
_COMPARISONS: Final = ("lt", "le", "gt", "ge", "eq", "ne")


def mark_numbers(values: Values) -> Callable[[float], float]:
    """Let numbers that a library got, such as losses, know that they are nominal.

    What is computed from them knows it, too, and a test that compares them asks for a value. Only
    `Tensor.item` is followed, which is how trainers read losses and norms.

    Returns:
        What marks a number.
    """
    import torch

    from ftcheck.vgpu.device import DEVICE_TYPE

    class Nominal(float):
        """A number that stands for one which only a real card computes."""

        def __reduce__(self) -> tuple[Any, ...]:
            return float, (float.__float__(self),)

        def __copy__(self) -> Nominal:
            return self

        def __deepcopy__(self, memo: object) -> Nominal:
            return self

        __hash__ = float.__hash__

    def computing(name: str) -> Callable[..., Any]:
        def compute(self: float, *others: Any) -> Any:
            found = getattr(float, name)(self, *others)
            return Nominal(found) if type(found) is float else found

        return compute

    def comparing(name: str) -> Callable[..., Any]:
        def compare(self: float, other: Any) -> Any:
            values.asked("a number, such as a loss")
            return getattr(float, name)(self, other)

        return compare

    for names, make in ((_ARITHMETIC, computing), (_COMPARISONS, comparing)):
        for name in names:
            setattr(Nominal, f"__{name}__", make(f"__{name}__"))
    item: Any = torch.Tensor.item

    def marked(tensor: torch.Tensor) -> Any:
        found = item(tensor)
        nominal = tensor.device.type == DEVICE_TYPE and values.read_guess
        return Nominal(found) if nominal and type(found) is float else found

    tensors: Any = torch.Tensor
    tensors.item = marked
    return Nominal


_KNOWN: Final = ("_runtime", "_per_second", "_time", "epoch", "total_flos", "learning_rate")
"""Endings of what a `Trainer` puts among metrics that rests on no value of a tensor."""


def mark_metrics(asked: Asked, nominal: Callable[[float], float], module: Any) -> None:
    """Let the metrics of `Trainer.evaluate` and `predict` know that they are nominal.

    They are computed by numpy, from outputs that were copied to the host. They are marked in place
    before they are logged and returned.

    Args:
        asked: Knows whether a library got nominal values.
        nominal: Marks a number.
        module: `transformers.trainer`.
    """
    log, predicted = module.Trainer.log, module.CallbackHandler.on_predict

    def mark(metrics: dict[str, Any]) -> None:
        for name, value in metrics.items() if asked.given else ():
            if type(value) is float and not name.endswith(_KNOWN):
                metrics[name] = nominal(value)

    def marked_log(self: Any, logs: dict[str, Any], *others: Any, **named: Any) -> None:
        if any(name.endswith("_runtime") for name in logs):  # as those of evaluations have
            mark(logs)
        log(self, logs, *others, **named)

    def marked_predicted(
        self: Any, args: Any, state: Any, control: Any, metrics: dict[str, Any]
    ) -> Any:
        mark(metrics)
        return predicted(self, args, state, control, metrics)

    module.Trainer.log = marked_log
    module.CallbackHandler.on_predict = marked_predicted
