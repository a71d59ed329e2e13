"""Autocast by CUDA's lists, and attention by the card's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from ftcheck.vgpu import Call, Result
from tests.helpers.vgpu_runs import run_all
from tests.vgpu import probes

EXPECTED = {
    (7, 5): {
        "fp16": "efficient",
        "bf16": "math",
        "fp32": "efficient",
        "mask": "efficient",
        "head 100": "math",
        "head 100 mask": "math",
        "head 200": "efficient",
        "head 256 dropout": "efficient",
        "head 256 no grad": "efficient",
        "head 300": "math",
        "dropout": "efficient",
    },
    (8, 0): {
        "fp16": "flash",
        "bf16": "flash",
        "fp32": "efficient",
        "mask": "efficient",
        "head 100": "flash",
        "head 100 mask": "math",
        "head 200": "flash",
        "head 256 dropout": "flash",
        "head 256 no grad": "flash",
        "head 300": "math",
        "dropout": "flash",
    },
    (8, 9): {
        "fp16": "flash",
        "bf16": "flash",
        "fp32": "efficient",
        "mask": "efficient",
        "head 100": "flash",
        "head 100 mask": "math",
        "head 200": "efficient",
        "head 256 dropout": "efficient",
        "head 256 no grad": "flash",
        "head 300": "math",
        "dropout": "flash",
    },
    (9, 0): {
        "fp16": "cudnn",
        "bf16": "cudnn",
        "fp32": "efficient",
        "mask": "cudnn",
        "head 100": "flash",
        "head 100 mask": "math",
        "head 200": "flash",
        "head 256 dropout": "flash",
        "head 256 no grad": "flash",
        "head 300": "math",
        "dropout": "flash",
    },
}
"""By the conditions of sdp_utils.cpp; 0.1 is no multiple of 1/16, which cuDNN wants."""

HALVES = ("float16", "bfloat16")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run() -> Run:
    """`ftcheck.vgpu.run`, of the calls of this module, which are made together."""
    return run_all(
        [
            *(Call(probes.autocast, (half,)) for half in HALVES),
            *(Call(probes.kernels, (), {}, capability) for capability in EXPECTED),
        ]
    )


@pytest.mark.parametrize("half", HALVES)
def test_results_have_the_dtypes_of_cuda(run: Run, half: str) -> None:
    """https://pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior"""
    seen = run(probes.autocast, half).value
    lower = ("linear", "matmul", "bmm", "attention", "gelu")
    single = ("softmax", "log_softmax", "layer_norm", "cross_entropy", "sum", "pow", "norm")
    assert {seen[name] for name in lower} == {half}
    assert {seen[name] for name in (*single, "add", "addcmul", "embedding")} == {"float32"}
    assert seen["second cast"] == 0
    assert seen["let go"] == 8 * 8 * 2
    assert "unsafe to autocast" in seen["banned"]


@pytest.mark.parametrize("capability", sorted(EXPECTED))
def test_attention_takes_the_kernel_of_the_card(run: Run, capability: tuple[int, int]) -> None:
    seen: dict[str, Literal["flash", "efficient", "cudnn", "math"]] = run(
        probes.kernels, capability=capability
    ).value
    assert seen == EXPECTED[capability]
