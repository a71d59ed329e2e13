"""Memory without a card: the virtual GPU runs it, the simulated allocator is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ftcheck import vgpu
from ftcheck.allocator.conf import conf_from_environ
from ftcheck.cards import Card
from ftcheck.vram.meter import Meter
from ftcheck.vram.vram_report import VramReport, report_on
from ftcheck.vram.workload import Subject, Workload, workload_of

__all__ = ["predict", "predict_many"]

_CAPABILITY: Final = (8, 9)
"""Of RTX 40 cards: where no card was named, attention kernels are chosen as they choose."""

_ENVIRONMENT: Final = {
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # weights one by one, in one order
    "HF_DATASETS_OFFLINE": "1",  # a prediction fetches no data
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # nothing is computed
}

_PRELOAD: Final = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "transformers.trainer",
)
"""What nearly every recipe imports, before the first fork; what is not installed is left out."""


def predict(
    subject: Subject,
    *,
    card: str | Card | None = None,
    timeout_s: float = 600.0,
) -> VramReport:
    """Predict what a recipe, a `Trainer` or a step takes on a card.

    A child process runs it on the virtual GPU; no card is needed, and none is used.

    Args:
        subject: A recipe; or a function of a module, without arguments, that a child process can
            import. If it returns a `transformers.Trainer`, that is trained for a few steps,
            evaluated and saved; if it returns a function, that is called as a step; if it returns
            nothing, calling it was all.
        card: Name of a card or a card; `None` takes `[budget]` of a recipe.
        timeout_s: Seconds after which it is given up.

    Raises:
        Unmeasured: Something cannot be run on the virtual GPU.
        InputError: The subject or the card cannot be used.
        ChildFailed: The subject raised.
    """
    found = next(predict_many([subject], card=card, timeout_s=timeout_s))[1]
    if isinstance(found, Exception):
        raise found
    return found


def predict_many(
    subjects: Sequence[Subject],
    *,
    card: str | Card | None = None,
    capability: tuple[int, int] | None = None,
    timeout_s: float = 600.0,
) -> Iterator[tuple[int, VramReport | Exception]]:
    """Predict several, some side by side; the libraries are imported once for all.

    Args:
        subjects: As for `predict`.
        card: As for `predict`, for all of them.
        capability: Compute capability to choose kernels by; `None`: that of the card.
        timeout_s: Seconds after which each is given up.

    Yields:
        Position and report, in the order in which they end; or the error that `predict` raises.
    """
    settings = conf_from_environ(os.environ)
    workloads = [workload_of(subject, card) for subject in subjects]
    calls = [
        vgpu.Call(_run, (workload,), {}, capability or _capability(workload.card))
        for workload in workloads
    ]
    begun = time.monotonic()
    for number, result in vgpu.run_many(
        calls, timeout_s=timeout_s, env=_ENVIRONMENT, preload=_PRELOAD
    ):
        if isinstance(result, Exception):
            yield number, result
            continue
        workload = workloads[number]
        if not len(result.trace):
            yield number, _nothing(workload)
            continue
        assumptions = list(result.assumptions)
        if workload.card is None and capability is None:
            assumptions.append("card: none named; attention kernels of compute capability 8.9")
        yield (
            number,
            report_on(
                result.trace,
                subject=workload.name,
                card=workload.card,
                settings=settings,
                assumptions=assumptions,
                facts={**result.value, "rss_bytes": result.rss_bytes},
                seconds=time.monotonic() - begun,
            ),
        )


def _run(gpu: Meter, workload: Workload) -> dict[str, Any]:
    return workload.run(gpu)


def _nothing(workload: Workload) -> vgpu.Unmeasured:
    return vgpu.Unmeasured(
        workload.name,
        "nothing of it was put on the card",
        next_step='Move the model to "cuda", or give a function that makes a Trainer.',
    )


def _capability(budget: Card | None) -> tuple[int, int]:
    return _CAPABILITY if budget is None else budget.compute_capability
