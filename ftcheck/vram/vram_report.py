"""What a run takes on a card: peaks, what holds them, and whether it fits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.categories import ACTIVATIONS, OTHER
from ftcheck.allocator.replay import PhasePeak, ReplayResult, replay, smallest_card
from ftcheck.allocator.trace import Event, Trace
from ftcheck.cards import Card

__all__ = ["Block", "Failure", "Holding", "Peak", "VramReport", "report_on"]

_KIND: Final = re.compile(r"\((\w+)\)$")
_LARGEST: Final = 10

How = Literal["predicted", "measured", "replayed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What part of the memory one kind of thing holds."""

    name: str
    """A category, or a kind of module."""
    size_bytes: int
    """As requested, before the allocator rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One allocation that was alive at the peak."""

    size_bytes: int
    category: str
    op: str
    module: str
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The moment of most allocated memory.

    Attributes:
        phase: Such as `step 2`.
        op: The operation that asked for the last block, such as `aten::_softmax`.
        module: The module that was running, or whose backward was.
        holdings: What was alive, by category, largest first.
        activations: The saved activations among it, by kind of module, largest first.
        blocks: The largest single allocations.
    """

    phase: str
    op: str
    module: str
    holdings: tuple[Holding, ...]
    activations: tuple[Holding, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Where memory ran out.

    Attributes:
        message: CUDA's sentence with the numbers of this run.
        phase: Such as `step 1`.
        op: The operation that asked.
        module: The module that was running, or whose backward was.
    """

    message: str
    phase: str
    op: str
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VramReport:
    """The memory of a run; `how` says where its figures come from.

    Attributes:
        subject: Name of the recipe, or of the function that was run.
        how: `predicted` on the virtual GPU, `measured` on a card, or `replayed` from a snapshot.
        card: The budget; `None` where none was named.
        peak_allocated_bytes: Most bytes in use (`torch.cuda.max_memory_allocated`).
        peak_reserved_bytes: Most bytes that the allocator took (`torch.cuda.max_memory_reserved`)
            where nothing limits it.
        fragmentation: Share of the reserved peak that was not in use, from 0 to 1.
        context_bytes: What the CUDA context takes beside the allocator; 0 where no card is named.
        needed_bytes: The smallest card that works, context included; `None` if it was measured
            without a history of the allocator.
        fits: Whether it runs on the card; `None` where none was named.
        failure: Where memory ran out on the card.
        phases: Peaks of each phase, in order.
        peak: Where the most was allocated, and what held it; `None` without a trace.
        assumptions: What the figures rest on, one line each.
        facts: Parameters, batch and length, and what else the run told.
        seconds: Wall time of the prediction or of the run.
        trace: Every allocation and free; `None` if it was not recorded.
        settings: Of the allocator.
    """

    subject: str
    how: How
    card: Card | None
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    fragmentation: float
    context_bytes: int
    needed_bytes: int | None
    fits: bool | None
    failure: Failure | None
    phases: tuple[PhasePeak, ...]
    peak: Peak | None
    assumptions: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float
    trace: Trace | None = field(default=None, repr=False, compare=False)
    settings: AllocatorSettings = field(default_factory=AllocatorSettings, repr=False)

    @property
    def headroom_bytes(self) -> int | None:
        """What is left of the card; negative where it does not fit."""
        if self.card is None or self.needed_bytes is None:
            return None
        return self.card.capacity_bytes - self.needed_bytes

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types, without the trace."""
        kept = {name: getattr(self, name) for name in _PLAIN}
        return {
            **kept,
            "card": None if self.card is None else asdict(self.card),
            "headroom_bytes": self.headroom_bytes,
            "failure": None if self.failure is None else asdict(self.failure),
            "phases": [asdict(phase) for phase in self.phases],
            "peak": None if self.peak is None else asdict(self.peak),
            "assumptions": list(self.assumptions),
        }


_PLAIN: Final = (
    "subject",
    "how",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "fragmentation",
    "context_bytes",
    "needed_bytes",
    "fits",
    "facts",
    "seconds",
)


def report_on(
    trace: Trace,
    *,
    subject: str,
    card: Card | None,
    how: How = "predicted",
    settings: AllocatorSettings | None = None,
    assumptions: Sequence[str] = (),
    facts: dict[str, Any] | None = None,
    seconds: float = 0.0,
) -> VramReport:
    """Replay a trace without a limit and on a card, and say what was seen.

    Args:
        trace: Every allocation and free of the run.
        subject: What was run.
        card: The budget; `None` gives no verdict.
        how: Where the trace comes from: the virtual GPU or a snapshot.
        settings: Of the allocator, as `PYTORCH_ALLOC_CONF` says; `None`: the defaults.
        assumptions: What the trace rests on.
        facts: What else the run told.
        seconds: Wall time of the run.
    """
    settings = settings if settings is not None else AllocatorSettings()
    free = replay(trace, None, settings)
    on_card = free
    if card is not None and free.peak_reserved_bytes > card.allocator_bytes:
        on_card = replay(
            trace, card.allocator_bytes, settings, device_total_bytes=card.capacity_bytes
        )
    context_bytes = 0 if card is None else card.context_overhead_bytes
    return VramReport(
        subject=subject,
        how=how,
        card=card,
        peak_allocated_bytes=free.peak_allocated_bytes,
        peak_reserved_bytes=free.peak_reserved_bytes,
        fragmentation=free.fragmentation,
        context_bytes=context_bytes,
        needed_bytes=smallest_card(trace, settings) + context_bytes,
        fits=None if card is None else on_card.fits,
        failure=_failure(trace, on_card),
        phases=free.phases,
        peak=_peak(trace, free.peak_allocated_index),
        assumptions=tuple(assumptions),
        facts=facts or {},
        seconds=seconds,
        trace=trace,
        settings=settings,
    )


def _failure(trace: Trace, result: ReplayResult) -> Failure | None:
    if result.out_of_memory is None or result.failed_index is None:
        return None
    tags = trace[result.failed_index].tags
    return Failure(
        message=result.out_of_memory.cuda_message(),
        phase=tags.phase,
        op=tags.op,
        module=tags.module,
    )


def _peak(trace: Trace, index: int) -> Peak | None:
    if index < 0:
        return None
    alive = trace.alive_after(index)
    tags = trace[index].tags
    kinds: Counter[str] = Counter()
    for event in alive:
        if event.tags.category == ACTIVATIONS:
            kinds[_kind(event)] += event.size_bytes
    categories: Counter[str] = Counter()
    for event in alive:
        categories[event.tags.category or OTHER] += event.size_bytes
    largest = sorted(alive, key=lambda event: event.size_bytes, reverse=True)[:_LARGEST]
    return Peak(
        phase=tags.phase,
        op=tags.op,
        module=tags.module,
        holdings=_holdings(categories),
        activations=_holdings(kinds),
        blocks=tuple(
            Block(
                size_bytes=event.size_bytes,
                category=event.tags.category or OTHER,
                op=event.tags.op,
                module=event.tags.module,
                phase=event.tags.phase,
            )
            for event in largest
        ),
    )


def _kind(event: Event) -> str:
    """`GPT2Attention` of `h.0.attn (GPT2Attention)`."""
    found = _KIND.search(event.tags.module)
    return found[1] if found else event.tags.module or "outside of modules"


def _holdings(sizes: Counter[str]) -> tuple[Holding, ...]:
    return tuple(Holding(name=name, size_bytes=size) for name, size in sizes.most_common())
