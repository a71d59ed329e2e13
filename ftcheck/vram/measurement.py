"""Memory on a card: the same run, watched by CUDA's own counters."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ftcheck.allocator.replay import PhasePeak
from ftcheck.cards import Card, Sources
from ftcheck.errors import InputError
from ftcheck.vgpu.errors import Unmeasured
from ftcheck.vram.vram_report import Failure, VramReport
from ftcheck.vram.workload import Subject, Workload, workload_of

__all__ = ["CudaMeter", "measure", "this_card"]


def this_card() -> Card:
    """The card of this machine, as its driver describes it.

    The context is what is taken of it while the allocator of this process holds nothing: other
    programs that use the card are in it.

    Raises:
        InputError: There is none.
        Unmeasured: It is a virtual one.
    """
    import torch

    if hasattr(torch, "vgpu"):
        raise Unmeasured("this card", "it is a virtual one, whose memory is only predicted")
    if not torch.cuda.is_available():
        raise InputError(
            f"--measure needs a CUDA card; torch {torch.__version__} finds none here.",
            next_step="Leave --measure out to predict, or run it on a machine with a card.",
        )
    torch.zeros(1, device="cuda")  # makes the context
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    properties = torch.cuda.get_device_properties(0)
    driver = "as the driver says"
    return Card(
        name=properties.name.lower().replace(" ", "-"),
        title=properties.name,
        capacity_bytes=total_bytes,
        compute_capability=(properties.major, properties.minor),
        context_overhead_bytes=total_bytes - free_bytes - torch.cuda.memory_reserved(),
        sources=Sources(capacity=driver, compute_capability=driver, context_overhead=driver),
    )


@dataclass(slots=True)
class CudaMeter:
    """A card, and the peaks of each phase on it; a `Meter` of the workload.

    Attributes:
        device: `cuda:0`.
        assumptions: What was noted.
        peaks: Phase to its peaks, in the order in which they began.
        current: The phase that it is in.
    """

    device: str = "cuda:0"
    assumptions: list[str] = field(default_factory=list)
    peaks: dict[str, PhasePeak] = field(default_factory=dict)
    current: str = ""

    def phase(self, name: str) -> None:
        """Keep the peaks of the phase that ends, and begin new ones."""
        import torch

        self.close()
        self.current = name
        torch.cuda.reset_peak_memory_stats()

    def close(self) -> None:
        """Keep the peaks of the phase that ends."""
        import torch

        if not self.current:
            return
        torch.cuda.synchronize()
        before = self.peaks.get(self.current)
        self.peaks[self.current] = PhasePeak(
            phase=self.current,
            allocated_bytes=max(
                torch.cuda.max_memory_allocated(), before.allocated_bytes if before else 0
            ),
            reserved_bytes=max(
                torch.cuda.max_memory_reserved(), before.reserved_bytes if before else 0
            ),
        )

    @property
    def most_reserved_bytes(self) -> int:
        """Most bytes that the allocator held in any phase."""
        return max((peak.reserved_bytes for peak in self.peaks.values()), default=0)

    def assume(self, text: str) -> None:
        """Note what the result rests on."""
        if text not in self.assumptions:
            self.assumptions.append(text)

    def as_cuda(self) -> None:
        """It is one."""

    def step_peak_bytes(self) -> int:
        """Most bytes that were allocated since the phase began."""
        import torch

        return int(torch.cuda.max_memory_allocated())


def measure(subject: Subject, *, card: str | Card | None = None) -> VramReport:
    """Run a recipe, a `Trainer` or a step on the card of this machine, and read its counters.

    Call it in a process that has used the card for nothing else: what it had allocated counts.
    For a recipe the same short run is made as for a prediction, with every micro-batch, and with
    a base model of the right size without its weights.

    Args:
        subject: As for `predict`.
        card: The budget to hold it against; `None` takes `[budget]` of a recipe, else this card.

    Raises:
        InputError: There is no card, or the subject cannot be used.
    """
    begun = time.monotonic()
    here = this_card()
    workload = workload_of(subject, card)
    budget = workload.card or here
    meter = CudaMeter()
    facts = _run(meter, workload)
    failure = None
    if meter.most_reserved_bytes > budget.allocator_bytes:
        # It may run all the same: a full card makes the allocator give its cache back first.
        failure = _tried_on_less(workload, budget, here)
    facts = {**facts, "measured_on": here.title}
    return _report(
        meter,
        budget,
        subject=workload.name,
        facts=facts,
        failure=failure,
        seconds=time.monotonic() - begun,
    )


def _run(meter: CudaMeter, workload: Workload) -> dict[str, Any]:
    try:
        return workload.run(meter, accumulate=None)
    finally:
        meter.close()


def _tried_on_less(workload: Workload, budget: Card, here: Card) -> Failure | None:
    """Run it once more with the memory of the budget; what CUDA says if that is too little."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(budget.allocator_bytes / here.capacity_bytes)
    meter = CudaMeter()
    try:
        _run(meter, workload)
    except torch.OutOfMemoryError as error:
        return Failure(message=str(error), phase=meter.current, op="", module="")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return None


def _report(
    meter: CudaMeter,
    budget: Card,
    *,
    subject: str,
    facts: dict[str, Any],
    failure: Failure | None,
    seconds: float,
) -> VramReport:
    phases = tuple(meter.peaks.values())
    allocated = max((phase.allocated_bytes for phase in phases), default=0)
    reserved = meter.most_reserved_bytes
    context_bytes = budget.context_overhead_bytes
    return VramReport(
        subject=subject,
        how="measured",
        card=budget,
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
        fragmentation=1 - allocated / reserved if reserved else 0.0,
        context_bytes=context_bytes,
        needed_bytes=reserved + context_bytes,
        fits=failure is None,
        failure=failure,
        phases=phases,
        peak=None,
        assumptions=tuple(meter.assumptions),
        facts=facts,
        seconds=seconds,
    )
