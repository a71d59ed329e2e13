"""What was predicted beside what a card says; on a virtual card there is nothing to compare with.

`pytest -m gpu` where there is a card, `pytest -m gpu --ftcheck-device=virtual` where there is none.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import ftcheck.vram
from ftcheck.allocator.recording import read_recording
from ftcheck.allocator.replay import replay
from ftcheck.pipeline.progress import Silent
from ftcheck.recipe import load_recipe
from ftcheck.vram.measurement import this_card
from ftcheck.vram.validation import validate
from tests.vram import subjects

pytestmark = pytest.mark.gpu


def test_the_reference_recipe_is_predicted_within_five_percent() -> None:
    recipe = load_recipe("gpt2-wikitext2")
    measured = ftcheck.vram.measure(recipe)
    predicted = ftcheck.vram.predict(recipe, card=this_card())
    assert measured.how == "measured"
    assert predicted.peak_allocated_bytes == pytest.approx(measured.peak_allocated_bytes, rel=0.05)
    assert predicted.peak_reserved_bytes == pytest.approx(measured.peak_reserved_bytes, rel=0.08)


@pytest.mark.parametrize("made", [subjects.trainer, subjects.step_that_drops_its_graph])
def test_trainers_and_steps_are_measured(made: Any) -> None:
    measured = ftcheck.vram.measure(made)
    assert measured.peak_allocated_bytes > 10 * 1024**2
    assert [phase.phase for phase in measured.phases][:2] == ["load", "step 1"]


def test_a_real_history_replays_to_the_reserved_peak_of_the_card() -> None:
    import torch

    this_card()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.memory._record_memory_history(max_entries=1_000_000)
    torch.cuda.reset_peak_memory_stats()
    try:
        step = subjects.step_that_drops_its_graph()
        for _ in range(3):
            step()
        torch.cuda.synchronize()
        snapshot = torch.cuda.memory._snapshot()
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    recording = read_recording(snapshot)
    result = replay(recording.trace)
    assert result.peak_reserved_bytes == torch.cuda.max_memory_reserved()
    assert recording.peak_reserved_bytes == torch.cuda.max_memory_reserved()
    assert result.peak_allocated_bytes == torch.cuda.max_memory_allocated()


@pytest.mark.timeout(3600)
def test_the_grid_reaches_its_goals(tmp_path: Path) -> None:
    outcome = validate(tmp_path, Silent())
    print(outcome.text)
    assert outcome.passed, outcome.text
