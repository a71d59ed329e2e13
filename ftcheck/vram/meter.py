"""Where a workload runs: the virtual GPU, or a GPU that is measured."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["MOST_STEPS", "Meter", "peak_repeats", "phases"]

MOST_STEPS = 4
"""Optimizer steps after which a run ends, even if the peak has not repeated by then."""


class Meter(Protocol):
    """The virtual GPU, or a GPU that is measured."""

    @property
    def device(self) -> Any:
        """The device."""

    def phase(self, name: str) -> None:
        """Name what follows."""

    def assume(self, text: str) -> None:
        """Record what the result rests on."""

    def as_cuda(self) -> None:
        """Let people's own code find the device as `cuda`."""

    def step_peak_bytes(self) -> int:
        """Most bytes that were allocated since the phase began."""


def peak_repeats(peaks: list[int]) -> bool:
    """Whether the last step took no more than the one before."""
    return len(peaks) > 1 and peaks[-1] <= peaks[-2]


def phases(meter: Meter) -> Any:
    """A callback that names the steps, and ends the training once the peak repeats."""
    from transformers import TrainerCallback

    class Phases(TrainerCallback):  # type: ignore[misc] # transformers has no types for it
        def __init__(self) -> None:
            self.peaks: list[int] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            meter.phase(f"step {state.global_step + 1}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.peaks.append(meter.step_peak_bytes())
            if peak_repeats(self.peaks):
                control.should_training_stop = True

    return Phases()
