"""What the installed versions can do, for tests that need more than the oldest has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ftcheck.pipeline.library_bugs import in_range

__all__ = ["at_least", "skip_unless_runnable"]


def at_least(distribution: str, version: str) -> bool:
    """Whether a distribution is installed in at least this version."""
    return in_range({distribution: f">={version}"})


def skip_unless_runnable(overrides: Sequence[str]) -> None:
    """Skip a test whose recipe the installed versions cannot run on a CPU."""
    text = " ".join(overrides)
    on_cpu = at_least("transformers", "4.55") and at_least("bitsandbytes", "0.47")
    if "quantization." in text and not on_cpu:
        pytest.skip("bitsandbytes and transformers as installed cannot quantize on a CPU")
    if ("_8bit" in text and "optim" in text) and not at_least("bitsandbytes", "0.50"):
        pytest.skip("the 8-bit optimizers of the installed bitsandbytes need a GPU")
    base_on_reload = at_least("transformers", "5.0") and not at_least("transformers", "5.6")
    if "reload_with=auto" in text and base_on_reload:
        pytest.skip("AutoModelForCausalLM of transformers 5.0 to 5.5 gives the base model")
