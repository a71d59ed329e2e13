"""Several processes: accelerate starts them; rank 0 writes and prints."""

from __future__ import annotations

import os
from typing import TypeVar

from ftcheck.pipeline.devices import launched_on_cpu

__all__ = ["is_main_process", "process_count", "same_on_all", "wait_for_all"]

Value = TypeVar("Value")


def process_count() -> int:
    """Processes of this run, from what the launcher left in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is rank 0."""
    return int(os.environ.get("RANK", "0")) == 0


def same_on_all(value: Value) -> Value:
    """The value that rank 0 has, on every rank. Any picklable value."""
    if process_count() == 1:
        return value
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=launched_on_cpu() or not torch.cuda.is_available())  # opens the process group
    values = [value]
    broadcast_object_list(values)
    return values[0]


def wait_for_all() -> None:
    """Wait until every process is here."""
    if process_count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
