"""Many short runs on the virtual GPU: the libraries are imported once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ftcheck.allocator.trace import Event
from ftcheck.vgpu import Call, Result, run_many

__all__ = ["run_all", "workspaces"]


def run_all(calls: Sequence[Call]) -> Callable[..., Result]:
    """Make calls, and return what looks like `ftcheck.vgpu.run` for those that were made.

    Raises:
        Exception: What a call raised, when its result is asked for.
        KeyError: A call was not made.
    """
    outcomes: dict[str, Result | Exception] = {}
    for number, outcome in run_many(calls, preload=("torch", "transformers")):
        outcomes[_key(calls[number])] = outcome

    def run(
        function: Callable[..., Any],
        *args: Any,
        capability: tuple[int, int] = (8, 9),
        **kwargs: Any,
    ) -> Result:
        outcome = outcomes[_key(Call(function, args, kwargs, capability))]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return run


def _key(call: Call) -> str:
    return repr((call.function.__name__, call.args, sorted(call.kwargs.items()), call.capability))


def workspaces(result: Result) -> list[tuple[str, int]]:
    """Phase and bytes of each workspace of cuBLAS."""
    events: list[Event] = [event for event in result.trace if event.action == "alloc"]
    return [
        (event.tags.phase, event.size_bytes)
        for event in events
        if event.tags.op == "cuBLAS workspace"
    ]
