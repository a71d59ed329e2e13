"""What kernels ask of the chip before they decide how to split their work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Chip"]

_KIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    processors: int
    """Multiprocessors of a large card (NVIDIA's data sheets)."""
    threads: int
    """Most threads of a multiprocessor (CUDA programming guide, "Technical Specifications")."""
    shared_bytes: int
    """Most shared memory that a block may opt in to (the same table)."""


_KINDS: Final = {
    (7, 0): _Kind(processors=80, threads=2048, shared_bytes=96 * _KIB),  # V100
    (7, 5): _Kind(processors=72, threads=1024, shared_bytes=64 * _KIB),  # Quadro RTX 6000
    (8, 0): _Kind(processors=108, threads=2048, shared_bytes=163 * _KIB),  # A100
    (8, 6): _Kind(processors=84, threads=1536, shared_bytes=99 * _KIB),  # A40
    (8, 7): _Kind(processors=16, threads=1536, shared_bytes=163 * _KIB),  # Jetson AGX Orin
    (8, 9): _Kind(processors=142, threads=1536, shared_bytes=99 * _KIB),  # L40S
    (9, 0): _Kind(processors=132, threads=2048, shared_bytes=227 * _KIB),  # H100 SXM
    (10, 0): _Kind(processors=148, threads=2048, shared_bytes=227 * _KIB),  # B200
    (12, 0): _Kind(processors=188, threads=1536, shared_bytes=99 * _KIB),  # RTX PRO 6000
}
_USUAL: Final = _Kind(processors=108, threads=1536, shared_bytes=99 * _KIB)


class Chip:
    """A large chip of a compute capability.

    Attributes:
        threads: Most threads of a multiprocessor.
        shared_bytes: Most shared memory of a block.

    Args:
        capability: Compute capability.
        assume: Told what had to be assumed.
    """

    def __init__(self, capability: tuple[int, int], assume: Callable[[str], None]) -> None:
        kind = _KINDS.get(capability, _USUAL)
        self.capability = capability
        self.threads = kind.threads
        self.shared_bytes = kind.shared_bytes
        self._processors = kind.processors
        self._assume = assume

    def processors(self) -> int:
        """Multiprocessors; a smaller card of the capability has fewer, and takes less scratch."""
        self._assume(
            f"scratch memory of kernels is that of a card with {self._processors} multiprocessors"
        )
        return self._processors
