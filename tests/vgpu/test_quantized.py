"""bitsandbytes layers on the virtual GPU: sizes that follow from arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from ftcheck.vgpu import Result, run
from tests.vgpu import jobs

pytestmark = pytest.mark.slow

LINEAR = 12 * 768 * (2304 + 768 + 3072 + 3072)
"""Weights of the layers that are quantized: c_attn, c_proj, c_fc, c_proj of 12 blocks."""
REST = 50257 * 768 + 1024 * 768 + 12 * (4 * 768 + 2304 + 768 + 3072 + 768) + 2 * 768
"""Embeddings, biases and norms; the head is tied."""


def alive_after(result: Result, phase: str) -> int:
    """Requested bytes that are alive at the end of a phase."""
    last = max(number for number, event in enumerate(result.trace) if event.tags.phase == phase)
    return sum(event.size_bytes for event in result.trace.alive_after(last))


@pytest.fixture(scope="module", params=["nf4", "int8"])
def found(request: pytest.FixtureRequest) -> tuple[str, Result]:
    return request.param, run(jobs.kbit, kind=request.param)


def test_it_trains(found: tuple[str, Result]) -> None:
    assert found[1].value == {"steps": 2, "trainable": 811_008}


def test_weights_take_what_they_should(found: tuple[str, Result]) -> None:
    kind, result = found
    rows = 12 * (2304 + 768 + 3072 + 768)
    rest = 2 * REST + 2 * rows  # in fp16 until it is prepared; biases of new layers in fp32
    if kind == "int8":
        expected = rest + LINEAR + 4 * rows
    else:
        blocks = LINEAR // 64
        codes = 48 * (16 + 256 + 1) * 4 + 1024  # of nf4, of scales, their offset; a shared map
        expected = rest + LINEAR // 2 + blocks + 4 * (blocks // 256) + codes
    assert alive_after(result, "load") == pytest.approx(
        expected, rel=0, abs=48 * 64
    )  # tails of blocks


def test_layers_are_quantized_one_by_one(found: tuple[str, Result]) -> None:
    """Loading never holds more than one layer in half precision beside what stays."""
    _, result = found
    alive, peak = 0, 0
    for event in result.trace:
        if event.tags.phase == "load":
            alive += event.size_bytes if event.action == "alloc" else -event.size_bytes
            peak = max(peak, alive)
    assert peak <= alive_after(result, "load") + 3 * 2 * 768 * 3072


def test_what_is_assumed_is_said(found: tuple[str, Result]) -> None:
    kind, result = found
    word = "outliers" if kind == "int8" else "dequantized"
    assert any(word in line for line in result.assumptions)


def test_eight_bit_adam_takes_bytes_except_for_embeddings() -> None:
    """The Trainer has the states of embeddings kept in fp32."""
    result = run(jobs.train, lora=False, optim="adamw_bnb_8bit", config={"n_layer": 2})
    peak = result.trace.requested_peak_index
    state = [e for e in result.trace.alive_after(peak) if e.tags.category == "optimizer state"]
    embeddings = (50257 + 1024) * 768
    others = result.value["trainable"] - embeddings
    expected = 8 * embeddings + 2 * others
    # Above it: an fp32 scale for each block of 256; biases and norms stay in fp32.
    assert expected <= sum(event.size_bytes for event in state) <= 1.02 * expected


def test_the_state_of_a_paged_optimizer_is_not_the_allocator_s() -> None:
    """Eight-bit moments of 53 million weights, 106 MB, are on the card or are not."""
    arguments: dict[str, Any] = {
        "lora": False,
        "steps": 1,
        "accumulation": 1,
        "config": {"n_layer": 2},
    }
    paged = run(jobs.train, optim="paged_adamw_8bit", **arguments)
    plain = run(jobs.train, optim="adamw_bnb_8bit", **arguments)
    assert any("paged optimizer" in line for line in paged.assumptions)
    assert not any("paged optimizer" in line for line in plain.assumptions)
    assert plain.trace.requested_peak_bytes - paged.trace.requested_peak_bytes > 80 * 1024**2
