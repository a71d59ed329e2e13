"""Checkpoints: written, resumed, recomputed; and what training leaves behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.regression.outcomes import ELSEWHERE, by_version, said_by, versions_of
from tests.regression.plain import base, logged, lora, row, trainer

pytestmark = pytest.mark.filterwarnings("ignore")

CHECKPOINTING: dict[str, Any] = {
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
}


@by_version(
    (
        versions_of("checkpointing-without-input-gradients"),
        re.compile("^RuntimeError: element 0 of tensors does not require grad"),
    ),
    (ELSEWHERE, "nothing"),
)
def test_reentrant_checkpointing_over_a_frozen_base(tmp_path: Path) -> str:
    return said_by(trainer(tmp_path, lora(base()), **CHECKPOINTING).train)


@by_version((ELSEWHERE, True))
def test_input_gradients_mend_it_and_change_nothing(tmp_path: Path) -> bool:
    norms: list[float] = []
    for more in ({}, CHECKPOINTING):
        model = lora(base())
        model.enable_input_require_grads()
        one = trainer(tmp_path, model, **more)
        one.train()
        norms += logged(one, "grad_norm")
    return norms[0] == pytest.approx(norms[1], rel=1e-6)


@by_version((versions_of("cache-left-off"), False), (ELSEWHERE, True))
def test_use_cache_after_training(tmp_path: Path) -> bool:
    model = base()
    trainer(tmp_path, model).train()
    return bool(model.config.use_cache)


@by_version((ELSEWHERE, True))
def test_training_leaves_the_model_in_training_mode(tmp_path: Path) -> bool:
    model = base()
    trainer(tmp_path, model).train()
    return bool(model.training)


@by_version(({"transformers": "<4.46"}, []), (ELSEWHERE, ["checkpoint-2"]))
def test_checkpoints_of_a_run_shorter_than_save_steps(tmp_path: Path) -> list[str]:
    trainer(tmp_path, base(), max_steps=2, save_strategy="steps", save_steps=500).train()
    return [folder.name for folder in tmp_path.glob("checkpoint-*")]


ROWS = [row(16, start=start) for start in (5, 300, 700, 1100)]


def run(folder: Path, steps: int, **arguments: Any) -> Any:
    return trainer(
        folder,
        lora(base()),
        ROWS,
        max_steps=steps,
        save_strategy="steps",
        save_steps=6,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        **arguments,
    )


@by_version(
    (versions_of("rng-state-refused"), re.compile("Weights only load failed")),
    (versions_of("resume-repeats-data"), "other data"),
    (ELSEWHERE, "the same data"),
)
def test_a_resume_in_the_second_epoch(tmp_path: Path) -> str:
    """Four rows an epoch; six steps, then six more."""
    whole = run(tmp_path / "whole", 12)
    whole.train()
    run(tmp_path / "halves", 6).train()
    rest = run(tmp_path / "halves", 12)
    checkpoint = str(tmp_path / "halves" / "checkpoint-6")
    said = said_by(lambda: rest.train(resume_from_checkpoint=checkpoint))
    if said != "nothing":
        return said
    same = logged(rest, "loss")[-6:] == pytest.approx(logged(whole, "loss")[-6:], abs=2e-4)
    return "the same data" if same else "other data"


@by_version((versions_of("rng-state-refused"), None), (ELSEWHERE, 7))
def test_steps_of_a_run_of_six_that_is_resumed_at_its_end(tmp_path: Path) -> int | None:
    """It makes one more."""
    run(tmp_path, 6).train()
    again = run(tmp_path, 6)
    checkpoint = str(tmp_path / "checkpoint-6")
    said = said_by(lambda: again.train(resume_from_checkpoint=checkpoint))
    return int(again.state.global_step) if said == "nothing" else None


@by_version((ELSEWHERE, re.compile("KeyError: .*eval_loss")))
def test_the_best_model_by_a_metric_that_is_not_reported(tmp_path: Path) -> str:
    one = trainer(
        tmp_path,
        base(),
        label_names=["label"],
        load_best_model_at_end=True,
        eval_strategy="steps",
        metric_for_best_model="eval_loss",
        save_strategy="steps",
        save_steps=1,
        eval_steps=1,
    )
    return said_by(one.train)


@by_version((versions_of("evaluated-before-training"), True), (ELSEWHERE, False))
def test_an_evaluation_marks_the_model_as_prepared(tmp_path: Path) -> bool:
    """With several processes, training then goes without DistributedDataParallel."""
    one = trainer(tmp_path, base())
    one.evaluate()
    return bool(getattr(one.model, "_is_accelerate_prepared", False))
