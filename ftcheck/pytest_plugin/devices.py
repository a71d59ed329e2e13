"""The card that a test gets: a real one, or the virtual GPU; one face for both."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from ftcheck.cards import Card, from_vram
from ftcheck.errors import InputError
from ftcheck.pytest_plugin.settings import Settings

if TYPE_CHECKING:
    import torch

    from ftcheck.allocator.caching import Allocator
    from ftcheck.vgpu import Unmeasured
    from ftcheck.vgpu.gpu import VirtualGpu as Device

__all__ = ["HANDLE", "CudaGpu", "Gpu", "VirtualGpu", "stood_in_for"]

_ASSUMED_BYTES: Final = 8 * 1024**3
_ASSUMED_CAPABILITY: Final = (8, 9)
"""Of RTX 40 cards."""


class Gpu(ABC):
    """A card. What it counts is of this process and of PyTorch's allocator, as `torch.cuda` has it.

    Attributes:
        card: Its figures, with their sources.
        device: For `.to(gpu.device)` and `device=`; on the virtual GPU `"cuda"` means it, too.
        assumed: What was assumed about it; empty for a real one and for one that was named.
    """

    kind: Literal["cuda", "virtual"]

    def __init__(self, card: Card, device: torch.device, assumed: str = "") -> None:
        self.card = card
        self.device = device
        self.assumed = assumed

    def __repr__(self) -> str:
        return f"<{self.kind} GPU {self.name}>"

    @property
    def name(self) -> str:
        """As the maker writes it; of the virtual one, that of the card that it stands in for."""
        return self.card.title

    @property
    def capacity_bytes(self) -> int:
        """All of its memory."""
        return self.card.capacity_bytes

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Major and minor."""
        return self.card.compute_capability

    @property
    def how(self) -> Literal["measured", "predicted"]:
        """What its figures are."""
        return "measured" if self.kind == "cuda" else "predicted"

    @property
    def place(self) -> str:
        """For a sentence: how a figure came about, and on what."""
        return f"{self.how} on {self.name}" + (f", {self.assumed}" if self.assumed else "")

    @property
    @abstractmethod
    def allocated_bytes(self) -> int:
        """In tensors now, after rounding."""

    @property
    @abstractmethod
    def reserved_bytes(self) -> int:
        """Held from the driver now."""

    @property
    @abstractmethod
    def allocated_peak_bytes(self) -> int:
        """Most that was in tensors since `reset_peaks`."""

    @property
    @abstractmethod
    def reserved_peak_bytes(self) -> int:
        """Most that was held since `reset_peaks`."""

    @property
    @abstractmethod
    def allocations(self) -> int:
        """How often memory was taken so far."""

    def refused(self) -> Unmeasured | None:
        """The first thing that only a real card could have done, if there was one."""
        return None

    def assumptions(self) -> list[str]:
        """What the test rests on so far, one line each."""
        return []

    @abstractmethod
    def reset_peaks(self) -> None:
        """Begin new peaks, at what is held now."""

    @abstractmethod
    def empty_cache(self) -> None:
        """Give back what is held and not in use."""


class CudaGpu(Gpu):
    """The first CUDA card that this process sees; making it makes the CUDA context.

    Raises:
        InputError: There is none.
    """

    kind = "cuda"

    def __init__(self) -> None:
        import torch

        from ftcheck.vram.measurement import this_card

        super().__init__(this_card(), torch.device("cuda", 0))
        self._cuda: Any = torch.cuda

    @property
    def allocated_bytes(self) -> int:
        return int(self._cuda.memory_allocated(0))

    @property
    def reserved_bytes(self) -> int:
        return int(self._cuda.memory_reserved(0))

    @property
    def allocated_peak_bytes(self) -> int:
        return int(self._cuda.max_memory_allocated(0))

    @property
    def reserved_peak_bytes(self) -> int:
        return int(self._cuda.max_memory_reserved(0))

    @property
    def allocations(self) -> int:
        return int(self._cuda.memory_stats(0)["allocation.all.allocated"])

    def reset_peaks(self) -> None:
        self._cuda.synchronize(0)
        self._cuda.reset_peak_memory_stats(0)

    def empty_cache(self) -> None:
        self._cuda.synchronize(0)
        self._cuda.empty_cache()


class VirtualGpu(Gpu):
    """The virtual GPU with the memory of a card: its figures are those of a simulated allocator."""

    kind = "virtual"

    def __init__(self, card: Card, device: Device, allocator: Allocator, assumed: str = "") -> None:
        super().__init__(card, device.device, assumed)
        self._virtual = device
        self._allocator = allocator

    @property
    def allocated_bytes(self) -> int:
        return self._allocator.allocated.current

    @property
    def reserved_bytes(self) -> int:
        return self._allocator.reserved.current

    @property
    def allocated_peak_bytes(self) -> int:
        return self._allocator.allocated.peak

    @property
    def reserved_peak_bytes(self) -> int:
        return self._allocator.reserved.peak

    @property
    def allocations(self) -> int:
        return self._allocator.allocations

    def refused(self) -> Unmeasured | None:
        return self._virtual.kernels.unmeasured

    def assumptions(self) -> list[str]:
        return list(self._virtual.assumptions)

    def reset_peaks(self) -> None:
        self._allocator.reset_peaks()

    def empty_cache(self) -> None:
        self._allocator.empty_cache()


HANDLE: Final = pytest.StashKey[Gpu]()
"""The card of this process, once there is one."""


def stood_in_for(settings: Settings) -> tuple[Card, str]:
    """The card that the virtual GPU stands in for, and what was assumed about it.

    Raises:
        pytest.UsageError: `--ftcheck-card` or `--ftcheck-vram` says none that there is.
    """
    name, vram = settings["card"], settings["vram"]
    if name is None and vram is None:
        assumed = dataclasses.replace(
            from_vram(_ASSUMED_BYTES), title="an 8 GiB card", compute_capability=_ASSUMED_CAPABILITY
        )
        return assumed, "which is assumed: --ftcheck-card names none"
    from ftcheck.vram.budget import named_budget

    try:
        card = named_budget(name, vram)
    except InputError as error:
        raise pytest.UsageError(f"--ftcheck-card, --ftcheck-vram: {error}") from error
    assert card is not None
    return card, ""
