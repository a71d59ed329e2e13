"""The virtual GPU as the callable sees it, put together of its parts."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ftcheck.allocator.caching import Allocator
from ftcheck.allocator.trace import Trace
from ftcheck.vgpu import (
    autocast,
    counters,
    device,
    facade,
    libraries,
    reductions,
    scratch,
    tensors,
)
from ftcheck.vgpu.attention import Attention
from ftcheck.vgpu.chip import Chip
from ftcheck.vgpu.kernels import Kernels
from ftcheck.vgpu.labels import Labels
from ftcheck.vgpu.places import Places
from ftcheck.vgpu.quantized import Quantized
from ftcheck.vgpu.record import Recorder
from ftcheck.vgpu.values import Values
from ftcheck.vgpu.workspaces import Workspaces

__all__ = ["VirtualGpu"]


class VirtualGpu:
    """A card without hardware. One a process; it cannot be taken back.

    Attributes:
        capability: Compute capability of the card that is stood in for.
        device: What to give to `.to()` and `device=`.
        assumptions: What was assumed, in the order in which it came up, each once.
    """

    def __init__(self, capability: tuple[int, int] = (8, 9)) -> None:
        device.register(capability)
        self.capability = capability
        self.device = device.device()
        self.assumptions: list[str] = []
        self.phase_file: Path | None = None
        chip = self.chip = Chip(capability, self.assume)
        self.places = Places()
        self.values = Values(self.assume)
        self.recorder = Recorder(self.places, self.values)
        self.workspaces = Workspaces(self.recorder, capability)
        self.kernels = Kernels(self.recorder, self.values, self.workspaces)
        self.attention = Attention(chip, self.kernels, self.assume)
        self.labels = Labels(self.recorder)
        self.attention.install()
        scratch.install(self.kernels, chip)
        reductions.install(self.kernels, chip)
        self.kernels.install()
        autocast.install()
        self.places.install()
        self.labels.install()
        tensors.keep_parameters()
        libraries.install(Quantized(self.kernels, self.assume), self.recorder)

    def phase(self, name: str) -> None:
        """Name what follows, until the next call; every allocation carries it."""
        self.recorder.enter(name)
        if self.phase_file is not None:  # for whoever has to say where it was stopped
            self.phase_file.write_text(name, encoding="utf-8")

    def step_peak_bytes(self) -> int:
        """Most bytes that were allocated since the phase began."""
        return self.recorder.peak_bytes()

    def assume(self, text: str) -> None:
        """Note an assumption for the result; the same text is kept once."""
        if text not in self.assumptions:
            self.assumptions.append(text)

    def limit(self, allocator: Allocator) -> None:
        """Give it the memory of a card: counters count from now on, and it can be full.

        Call it before `as_cuda`. Without it, memory has no end, and only the trace knows of it.
        """
        counters.install(allocator, self.recorder)

    def as_cuda(self) -> None:
        """Let `cuda` mean this device, for the rest of the process."""
        facade.as_cuda(self.chip.processors)

    def materialize(self, model: nn.Module) -> nn.Module:
        """Put a model that was built under `torch.device("meta")` on the card, in place.

        Parameters and buffers keep their dtypes, and shared ones stay shared; there are no values.
        """
        return tensors.materialize(model, self.recorder)

    def trace(self) -> Trace:
        """What was allocated and freed so far."""
        return self.recorder.finish()
