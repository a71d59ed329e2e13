"""Where the run is: the innermost module, forward, backward or optimizer.

In the backward pass there is no module on the stack. Autograd numbers its nodes in the order of
the forward pass, so the number of the running node says which module had made it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ftcheck.allocator.trace import Tags

__all__ = ["Places"]

_LABEL = "_ftcheck_place"


class Places:
    """Follows modules and optimizers from the moment of `install`.

    Attributes:
        backwards: Backward passes that have begun.
        in_optimizer: Whether an optimizer's step is running.
        vocabulary: Width of the output head; 0 while unknown.
        roots: Called with each outermost module before its first call, and when it has changed.
        before_backward: Called when a backward pass has begun.
    """

    def __init__(self) -> None:
        self.backwards = 0
        self.in_optimizer = False
        self.vocabulary = 0
        self.free_tags: dict[str, Tags] = {}
        self.roots: list[Callable[[nn.Module], None]] = []
        self.before_backward: list[Callable[[], None]] = []
        self._stack: list[nn.Module] = []
        self._starts: list[int] = [0]
        self._labels: list[str] = [""]
        self._task = -1
        self._node_number = -1
        self._node_label = ""

    def install(self) -> None:
        """Wrap the call of every module, for the rest of the process."""
        call = nn.Module._call_impl
        stack, enter, leave = self._stack, self._enter, self._leave

        def followed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            enter(module)
            try:
                return call(module, *args, **kwargs)
            finally:
                stack.pop()
                leave()

        nn.Module._call_impl = followed  # type: ignore[method-assign, assignment] # a hook on each call costs more
        followed.__name__ = call.__name__

    def module(self) -> str:
        """Dotted name and class of the innermost module, such as `h.0.attn (GPT2Attention)`."""
        if self._stack:
            return str(self._stack[-1].__dict__.get(_LABEL, ""))
        if self.in_backward():
            node = torch._C._current_autograd_node()
            if node is None:
                return ""
            number = node._sequence_nr()
            if number != self._node_number:
                self._node_number = number
                self._node_label = self._labels[bisect_right(self._starts, number) - 1]
            return self._node_label
        return ""

    def in_forward(self) -> bool:
        """Whether a module is running, the recomputation of a checkpoint included."""
        return bool(self._stack)

    def in_backward(self) -> bool:
        """Whether autograd is running; counts the passes."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            if task != -1:
                self.backwards += 1
                for listener in self.before_backward:
                    listener()
        return bool(task != -1)

    def _enter(self, module: nn.Module) -> None:
        if not self._stack:
            if torch._C._current_graph_task_id() == -1:
                self._forget()
            if _LABEL not in module.__dict__:
                self._name(module)
        self._stack.append(module)
        self._mark(module.__dict__.get(_LABEL) or self._late(module))

    def _leave(self) -> None:
        if self._stack:
            self._mark(self._stack[-1].__dict__.get(_LABEL, ""))

    def _mark(self, label: str) -> None:
        self._starts.append(torch._C._autograd._get_sequence_nr())
        self._labels.append(label)

    def _forget(self) -> None:
        """Drop the marks of passes that no backward will visit, but keep a bound on them."""
        if len(self._starts) > 200_000:
            del self._starts[1:100_000]
            del self._labels[1:100_000]

    def _late(self, module: nn.Module) -> str:
        """A module that was added after its root was named."""
        label = type(module).__name__
        module.__dict__[_LABEL] = label
        return label

    def _name(self, root: nn.Module) -> None:
        for name, module in root.named_modules():
            kind = type(module).__name__
            module.__dict__[_LABEL] = f"{name} ({kind})" if name else kind
        for listener in self.roots:
            listener(root)
