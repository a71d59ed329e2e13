"""What the installed versions can do, for tests that need more than the oldest has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from ftcheck.pipeline.library_bugs import LIBRARY_BUGS, in_range

__all__ = ["BASE_ON_RELOAD", "at_least", "base_model_on_reload", "skip_unless_runnable"]

BASE_ON_RELOAD: Final = "AutoModelForCausalLM as installed gives the base model for an adapter"


def at_least(distribution: str, version: str) -> bool:
    """Whether a distribution is installed in at least this version."""
    return in_range({distribution: f">={version}"})


def base_model_on_reload() -> bool:
    """Whether the installed versions give the base model for a folder with an adapter."""
    return any(
        bug.installed() for bug in LIBRARY_BUGS if bug.slug.startswith("base-model-on-reload")
    )


def skip_unless_runnable(overrides: Sequence[str]) -> None:
    """Skip a test whose recipe the installed versions cannot run on a CPU."""
    text = " ".join(overrides)
    on_cpu = at_least("transformers", "4.55") and at_least("bitsandbytes", "0.47")
    if "quantization." in text and not on_cpu:
        pytest.skip("bitsandbytes and transformers as installed cannot quantize on a CPU")
    if ("_8bit" in text and "optim" in text) and not at_least("bitsandbytes", "0.50"):
        pytest.skip("the 8-bit optimizers of the installed bitsandbytes need a GPU")
    if "reload_with=auto" in text and base_model_on_reload():
        pytest.skip(BASE_ON_RELOAD)
