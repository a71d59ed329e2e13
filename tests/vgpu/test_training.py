"""The unmodified Trainer on the virtual GPU: sizes that follow from arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ftcheck.allocator.replay import replay
from ftcheck.environment import installed_version
from ftcheck.vgpu import Result, Unmeasured, run
from tests.vgpu import jobs

pytestmark = [
    pytest.mark.skipif(
        not (installed_version("torch") or "").startswith("2.13"),
        reason="the device type is tried with torch 2.13",
    )
]

LORA = 811_008
GPT2 = 124_439_808
MIB = 2**20


@pytest.fixture(scope="module")
def reference() -> Result:
    """GPT-2 with LoRA, fp16, 1 × 128, two steps of four micro-batches."""
    return run(jobs.train)


def phases(result: Result) -> Iterator[tuple[str, int]]:
    """Phase and requested live bytes after each event."""
    alive = 0
    sizes: dict[int, int] = {}
    for event in result.trace:
        if event.action == "alloc":
            sizes[event.block] = event.size_bytes
            alive += event.size_bytes
        else:
            alive -= sizes.pop(event.block)
        yield event.tags.phase, alive


def peak_of(result: Result, phase: str) -> int:
    return max(alive for name, alive in phases(result) if name == phase)


def test_it_trains_to_its_end(reference: Result) -> None:
    assert reference.value["steps"] == 2
    assert reference.value["trainable"] == LORA
    assert reference.alive_bytes == 0


def test_loading_takes_the_weights(reference: Result) -> None:
    """Tied weights once, in float32; each block rounded up to 512 by the allocator alone."""
    weights = 4 * (GPT2 + LORA)
    after_load = [alive for name, alive in phases(reference) if name == "load"][-1]
    assert weights <= after_load <= weights + MIB


def test_the_peak_is_that_of_the_reference_table(reference: Result) -> None:
    """Live bytes of the same case by other means: 898 MiB, without two workspaces of cuBLAS."""
    workspaces = 2 * 8_519_680 / MIB
    assert reference.trace.requested_peak_bytes / MIB == pytest.approx(898 + workspaces, abs=2)
    found = replay(reference.trace)
    assert found.peak_reserved_bytes >= found.peak_allocated_bytes
    assert found.peak_allocated_bytes >= reference.trace.requested_peak_bytes


@pytest.mark.slow
def test_two_runs_give_the_same_trace(reference: Result) -> None:
    again = run(jobs.train)
    assert list(again.trace.rows()) == list(reference.trace.rows())


@pytest.mark.slow
@pytest.mark.parametrize(("lora", "expected_mib"), [(True, 6439), (False, 7658)])
def test_large_batches_agree_with_the_reference_table(lora: bool, expected_mib: int) -> None:
    """8 × 512: three fp32 copies of (batch, seq, vocab) lie at the peak.

    Live bytes of the same case by another implementation, without the workspaces of cuBLAS. It is
    48 MiB above: as much as twelve fp16 masks of (8, 1, 512, 512), which an all-ones mask with its
    real values does not become.
    """
    found = run(jobs.train, lora=lora, batch=8, length=512)
    assert found.trace.requested_peak_bytes > 3 * 8 * 512 * 50257 * 4
    assert found.trace.requested_peak_bytes / MIB == pytest.approx(expected_mib, rel=0.01)


@pytest.mark.slow
def test_full_fine_tuning_holds_gradients_and_adam() -> None:
    found = run(jobs.train, lora=False)
    # Weights, gradients, two moments; the last step has all four.
    assert peak_of(found, "step 2") > 4 * 4 * GPT2
    assert peak_of(found, "step 2") > peak_of(found, "step 1")


@pytest.mark.slow
def test_checkpointing_takes_less() -> None:
    plain = run(jobs.train, batch=4, length=256)
    less = run(jobs.train, batch=4, length=256, gradient_checkpointing=True)
    assert less.trace.requested_peak_bytes <= plain.trace.requested_peak_bytes
    assert held_in_forward(less) < held_in_forward(plain) / 2


def held_in_forward(result: Result) -> int:
    """Bytes alive, beyond the weights, when the first logits of a micro-batch come to be."""
    alive, base = 0, 0
    sizes: dict[int, int] = {}
    for event in result.trace:
        if event.action == "alloc":
            sizes[event.block] = event.size_bytes
            alive += event.size_bytes
            is_logits = event.size_bytes >= 4 * 256 * 50257 * 2
            if is_logits and event.tags.phase.startswith("step"):
                return alive - event.size_bytes - base
        else:
            alive -= sizes.pop(event.block)
        if event.tags.phase == "load":
            base = alive
    raise AssertionError("no logits were seen")


def test_inputs_left_on_the_host_raise_what_cuda_raises() -> None:
    from ftcheck.vgpu import ChildFailed

    with pytest.raises(ChildFailed, match=r"Expected all tensors to be on the same device.*cpu"):
        run(jobs.left_behind)


@pytest.mark.slow
def test_what_the_child_may_not_do_is_said() -> None:
    from ftcheck.errors import InputError
    from ftcheck.vgpu import ChildDied, ChildTimedOut

    with pytest.raises(ChildDied):
        run(jobs.killed)
    with pytest.raises(ChildTimedOut):
        run(jobs.endless, timeout_s=6)
    with pytest.raises(InputError, match="cannot be sent to a child process"):
        run(lambda _: None)
    assert issubclass(Unmeasured, Exception)


@pytest.mark.slow
def test_a_graph_that_is_held_across_steps_shows() -> None:
    freed: Any = run(jobs.plain_loop, hold=False)
    held: Any = run(jobs.plain_loop, hold=True)
    assert peak_of(held, "step 2") > 1.3 * peak_of(freed, "step 2")
    assert peak_of(held, "step 1") == pytest.approx(peak_of(freed, "step 1"), rel=0.02)
