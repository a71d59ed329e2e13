"""Other phases and settings: evaluation, generation, precisions, checkpointing, optimizers."""

from __future__ import annotations

import pytest

from ftcheck.vgpu import Result, run
from tests.vgpu import jobs

pytestmark = pytest.mark.slow

LOGITS = 2 * 128 * 50257 * 4


def by_category(result: Result) -> dict[str, int]:
    """Requested bytes at the peak, by what they hold."""
    sums: dict[str, int] = {}
    for event in result.trace.alive_after(result.trace.requested_peak_index):
        sums[event.tags.category] = sums.get(event.tags.category, 0) + event.size_bytes
    return sums


def test_logits_that_are_kept_show_in_the_evaluation() -> None:
    let_go = run(jobs.evaluate)
    kept = run(jobs.evaluate, keep_logits=True)
    more = kept.trace.requested_peak_bytes - let_go.trace.requested_peak_bytes
    # While the last logits are made, three others lie there; without, those of the call before.
    assert 2 * LOGITS <= more <= 3 * LOGITS
    assert kept.trace[kept.trace.requested_peak_index].tags.phase == "eval"


@pytest.mark.parametrize("only_loss", [True, False])
def test_the_trainer_evaluates(only_loss: bool) -> None:
    result = run(jobs.trainer_evaluates, prediction_loss_only=only_loss)
    assert result.value["eval_loss"] > 0
    assert result.alive_bytes == 0


def test_it_generates_to_the_last_token() -> None:
    assert run(jobs.generates).value == (1, 12)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_other_precisions_train(precision: str) -> None:
    result = run(jobs.train, config={"n_layer": 2}, fp16=False, bf16=precision == "bf16")
    attention = {event.tags.op for event in result.trace if "attention" in event.tags.op}
    expected = "flash" if precision == "bf16" else "efficient"
    assert attention
    assert all(expected in op for op in attention)
    assert any("workspace" in op or "delta" in op or "dq_accum" in op for op in attention)


@pytest.mark.parametrize("reentrant", [True, False])
def test_both_kinds_of_checkpoints_keep_the_inputs_of_blocks(reentrant: bool) -> None:
    result = run(
        jobs.train,
        batch=8,
        length=256,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
    )
    # At the loss: one (batch, seq, hidden) in fp32 a block, and what follows the last block.
    hidden = 8 * 256 * 768 * 4
    saved = by_category(result)["saved activations"]
    assert 12 * hidden <= saved <= 12 * hidden + 2 * 50257 * 768 + 6 * hidden


def test_upcasting_the_base_doubles_it() -> None:
    """The base in half precision, and in full; read before the first step."""

    def loaded(dtype: str) -> int:
        result = run(jobs.train, lora=False, fp16=False, dtype=dtype, config={"n_layer": 2})
        last = max(n for n, event in enumerate(result.trace) if event.tags.phase == "load")
        return sum(event.size_bytes for event in result.trace.alive_after(last))

    assert loaded("float32") == pytest.approx(2 * loaded("float16"), rel=0.01, abs=0)


def test_an_optimizer_that_holds_the_frozen_base_shows() -> None:
    plain = by_category(run(jobs.train, config={"n_layer": 2}))
    held = by_category(run(jobs.train, config={"n_layer": 2}, unfreeze=True))
    assert held["optimizer state"] > 50 * plain["optimizer state"]
    assert held["gradients"] > 50 * plain["gradients"]


def test_foreach_adam_takes_a_temporary_and_fused_adam_none() -> None:
    """`_multi_tensor_adam` holds the root of the second moments of all parameters at once."""
    peaks = {}
    for name in ("adamw_torch", "adamw_torch_fused"):
        result = run(jobs.train, lora=False, optim=name, config={"n_layer": 2})
        made = [
            event.size_bytes
            for event in result.trace
            if event.action == "alloc" and "sqrt" in event.tags.op
        ]
        peaks[name] = sum(made)
        trained = result.value["trainable"]
    assert peaks["adamw_torch_fused"] == 0
    assert peaks["adamw_torch"] == 2 * 4 * trained  # in each of two steps
