"""Sixty ways in which fine-tuning fails for people, and what ftcheck has for each.

A check (`FT...`), a row in the table of library bugs (its slug), a sentence for the exception (part
of its message), or a test of the pipeline, which does it right (`tests/...::name`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcheck.checks.explained import EXPLAINED
from ftcheck.checks.registry import all_checks
from ftcheck.pipeline.library_bugs import LIBRARY_BUGS

ROOT = Path(__file__).parents[2]
MODES: dict[str, tuple[str, ...]] = {
    "never stops: EOS masked with the pads": ("FT209",),
    "wrapped before prepare_model_for_kbit_training": ("FT306",),
    "loss divided by unshifted labels": ("FT412", "gpt2-loss-type"),
    "collator replaces masked labels": ("FT206",),
    "gradient grows with accumulation": ("FT407", "accumulated-gradient"),
    "reentrant checkpointing, B stays zero": ("FT410",),
    "every label is -100": ("FT203",),
    "stale cache of map": ("FT106",),
    "generations as of the base": ("FT802", "FT803", "FT804", "base-model-on-reload"),
    "adapter on another base": ("FT805",),
    "merge into a quantized base": ("FT505",),
    "tied weights diverge": ("FT309", "FT310"),
    "resume repeats data": ("resume-repeats-data",),
    "no eval_loss": ("FT421",),
    "new tokens random after loading": ("FT807",),
    "warm-up of 1.0": ("FT427",),
    "dtype that the version chose": ("FT503", "FT507"),
    "adapter drawn before the seed": ("FT314",),
    "doubled BOS": ("FT212",),
    "no EOS appended": ("FT210",),
    "labels shifted by hand": ("FT204",),
    "part of target_modules ignored": ("FT302",),
    "c_proj in the MLP": ("FT303",),
    "generates in train mode": ("FT901",),
    "use_cache left off": ("FT904", "cache-left-off"),
    "fp16 on a CPU": ("FT502",),
    "silent DataParallel": ("FT603",),
    "apply_chat_template returns a dict": ("FT426", "excessive nesting"),
    "auto_find_batch_size": ("FT417",),
    "prompt format differs": ("FT906", "FT218"),
    "right padding": ("FT902",),
    "no mask, no pad id": ("FT903",),
    "logits of the whole evaluation": ("FT418",),
    "metric_for_best_model not reported": ("FT419",),
    "Weights only load failed": ("rng-state-refused", "Weights only load failed"),
    "no valid checkpoint": ("Can't find a valid checkpoint",),
    "finished run trains one step more": ("tests/pipeline/test_resume.py::last",),
    "out of memory in the logits": ("FT701",),
    "preparation upcasts": ("FT701",),
    "out of memory at optimizer.step": ("FT701",),
    "element 0 does not require grad": (
        "does not require grad",
        "checkpointing-without-input-gradients",
    ),
    "model did not return a loss": ("FT201", "did not return a loss"),
    "unscale FP16 gradients": ("FT501", "unscale FP16 gradients"),
    "NaN after the first steps": ("FT424", "FT503"),
    "no bf16 here": ("FT506", "doesn't support bf16"),
    "tensors on different devices": ("FT601", "Expected all tensors"),
    "dispatched on the CPU": ("FT602", "Some modules are dispatched"),
    "automatic map over two cards": ("FT602", "FT603"),
    "quantized model moved": ("FT604", "is not supported for"),
    "purely quantized model": ("purely quantized",),
    "bitsandbytes wants CUDA": ("CUDA is required but",),
    "CUDA setup failed": ("CUDA Setup failed",),
    "target modules not found": ("FT301", "Target modules"),
    "index out of range": ("FT214", "FT216", "index out of range"),
    "ragged labels, no pad token": ("FT213", "excessive nesting", "Asking to pad"),
    "empty corpus, dropped columns": ("FT101", "FT105", "num_samples=0", "No columns"),
    "removed arguments": ("evaluation_strategy", "overwrite_output_dir", "load_in_8bit"),
    "peft and transformers do not meet": ("HybridCache",),
    "golden loss flakes": ("FT416",),
    "the hub does not answer": ("429", "couldn't connect to"),
}


def test_all_sixty_are_there() -> None:
    assert len(MODES) == 60


@pytest.mark.parametrize("handlers", MODES.values(), ids=MODES)
def test_each_failure_mode_is_handled(handlers: tuple[str, ...]) -> None:
    codes = {one.code for one in all_checks()}
    slugs = {bug.slug for bug in LIBRARY_BUGS}
    messages = [part for part, _ in EXPLAINED]
    for name in handlers:
        file, _, word = name.partition("::")
        known = (
            name in codes
            or name in slugs
            or any(name in part or part in name for part in messages)
            or (word and word in (ROOT / file).read_text(encoding="utf-8"))
        )
        assert known, name
