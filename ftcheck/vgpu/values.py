"""The few values that decide about memory: masks, token counts, flags, single numbers.

Contents of tensors are not there, with two exceptions. Integers and booleans that came from the
host (token ids, masks, labels) and what is computed from them alone are computed for real on the
CPU, so that "is there padding in this mask" is answered as on a card. And single floating numbers
(losses, norms, scales) are carried along, with 1 where nothing is known.

Values are held per storage, so that views see what is written through others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from ftcheck.vgpu.storage import base_address

__all__ = ["MOST_ELEMENTS", "Values"]

MOST_ELEMENTS: Final = 2**22
"""Values of larger tensors are not kept; computing them would take longer than all the rest."""
_MOST_FLOATS: Final = 16
_NOMINAL_TOKEN: Final = 3
"""What `argmax` and `multinomial` pick: no end-of-text token of the usual vocabularies."""
_PICKS: Final = frozenset({"aten::argmax", "aten::multinomial"})


class Values:
    """Known contents of storages of the device, by their address."""

    def __init__(self, assume: Callable[[str], None]) -> None:
        self._known: dict[int, torch.UntypedStorage] = {}
        self._guessed: set[int] = set()
        self._assume = assume
        self.asked: Callable[[str], None] = lambda what: None
        """Called before something that is not known is given to the host; it may refuse."""
        self.rests_on_guess = False
        """Whether a nominal value went into the last call of `compute`."""
        self.read_guess = False
        """Whether the last number that was read was nominal."""
        self.size_of: Callable[[int], int] = lambda address: 0
        """Bytes of the storage at an address; the recorder knows."""

    def forget(self, key: int) -> None:
        """A storage is gone, or its contents are no longer known."""
        self._known.pop(key, None)
        self._guessed.discard(key)

    @staticmethod
    def may_have(tensor: torch.Tensor) -> bool:
        """Whether contents of this kind of tensor are kept at all; cheap."""
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
            return tensor.dim() == 0 or tensor.numel() <= _MOST_FLOATS
        return tensor.numel() <= MOST_ELEMENTS

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The contents of a tensor of the device, as a CPU tensor that shares its storage.

        Returns:
            `None` where they are not known. A tensor of the CPU is returned as it is.
        """
        if tensor.device.type == "cpu":
            return tensor
        storage = self._known.get(base_address(tensor))
        if storage is None:
            return None
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())

    def is_guessed(self, tensor: torch.Tensor) -> bool:
        """Whether the contents are nominal, not computed."""
        return base_address(tensor) in self._guessed

    def write(
        self, tensor: torch.Tensor, contents: torch.Tensor | None, *, guessed: bool = False
    ) -> None:
        """Set what a tensor of the device holds; `None`: not known any more.

        Args:
            tensor: All of a storage, or a part of one whose contents are known.
            contents: On the CPU, broadcast to its shape.
            guessed: Whether they rest on something nominal.
        """
        key = base_address(tensor)
        if contents is None or not self.may_have(tensor):
            self.forget(key)
            return
        size_bytes = self.size_of(key)
        whole = tensor.numel() * tensor.dtype.itemsize == size_bytes
        if key not in self._known:
            if not whole:
                return  # a part of something unknown
            self._known[key] = torch.UntypedStorage(size_bytes)
        view = self.of(tensor)
        if view is not None:
            view.copy_(contents)
        if guessed:
            self._guessed.add(key)
        elif whole:
            self._guessed.discard(key)

    def compute(self, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation on known contents; `None` where one of them is not known.

        In-place operations change the known contents themselves. Random operations and those that
        the CPU refuses are not known either.
        """
        self.rests_on_guess = False
        if torch.Tag.nondeterministic_seeded in op.tags:
            return None
        try:
            known_args = [self._swap(value) for value in args]
            known_kwargs = {name: self._swap(value) for name, value in kwargs.items()}
        except LookupError:
            return None
        with torch.no_grad():
            return op(*known_args, **known_kwargs)

    def guess(self, tensor: torch.Tensor, op: str) -> None:
        """Fill in what is not known: 1 for single numbers, a nominal token for picks."""
        if op in _PICKS:
            nominal: float = _NOMINAL_TOKEN
            self._assume(f"tokens that the card would pick are taken as {_NOMINAL_TOKEN}")
        elif tensor.dtype.is_floating_point and tensor.numel() == 1:
            nominal = 1.0
            self._assume("losses, norms and scales that the card would compute are taken as 1")
        else:
            return
        self.write(tensor, torch.full(tensor.shape, nominal, dtype=tensor.dtype), guessed=True)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The contents for a copy to the host; `None` where they are not known."""
        known = self.of(tensor) if self.may_have(tensor) else None
        if known is None or self.is_guessed(tensor):
            self.asked(f"the values of a {_kind(tensor)} tensor of shape {list(tensor.shape)}")
        return known

    def read(self, tensor: torch.Tensor, where: str) -> Any:
        """The number in a tensor of one element, as `.item()` gives it."""
        known = self.of(tensor)
        self.read_guess = known is None or self.is_guessed(tensor)
        if self.read_guess:
            self.asked(f"the value of a {_kind(tensor)}")
        if known is not None:
            return known.item()
        nominal = torch.ones((), dtype=tensor.dtype).item()
        self._assume(
            f"a {_kind(tensor)} that the card would compute was read"
            f"{f' in {where}' if where else ''}: taken as {nominal}"
        )
        return nominal

    def _swap(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if not self.may_have(value):
                raise LookupError
            known = self.of(value)
            if known is None:
                raise LookupError
            self.rests_on_guess = self.rests_on_guess or self.is_guessed(value)
            return known
        if isinstance(value, (list, tuple)):
            return type(value)(self._swap(item) for item in value)
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if isinstance(value, torch.Generator):
            raise LookupError
        return value


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
