"""Sound recipes and trainers: each is trained and learns, and nothing is held against it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ftcheck.checks.finding import CheckReport
from ftcheck.pipeline import RunFolder, run
from ftcheck.recipe import Recipe, load_recipe
from ftcheck.subjects.check import check_recipe
from ftcheck.subjects.trainer import check_trainer
from tests.checks.cases import Build
from tests.checks.sound_trainers import SOUND_TRAINERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what the libraries say is not what is tested here
]

FEW = (
    "data.rows=240",
    "data.eval_rows=40",
    "training.num_train_epochs=2",
    "generation.max_new_tokens=8",
)
SOUND = {
    "as shipped": (),
    "labels are the ids, rows padded to their longest": ('tokenization.labels="input_ids"',),
    "own pad token, embedding resized": ('tokenization.pad_token="<pad>"',),
    "padded to max_length, pads masked": ('tokenization.padding="max_length"',),
    "no EOS, plain text": ("tokenization.append_eos=false",),
    "packed": ("tokenization.packing=true", "training.learning_rate=2e-2"),
    "8 bits": ("quantization.load_in_8bit=true",),
    "4 bits": ("quantization.load_in_4bit=true", 'quantization.bnb_4bit_quant_type="nf4"'),
    "checkpointing": (
        "training.gradient_checkpointing=true",
        "training.gradient_checkpointing_kwargs={use_reentrant=false}",
    ),
    "reentrant checkpointing": (
        "training.gradient_checkpointing=true",
        "training.gradient_checkpointing_kwargs={use_reentrant=true}",
    ),
    "cosine with warm-up": ('training.lr_scheduler_type="cosine"', "training.warmup_steps=6"),
    "constant rate": ('training.lr_scheduler_type="constant"',),
    "best at the end": (
        "training.load_best_model_at_end=true",
        'training.eval_strategy="epoch"',
        'training.save_strategy="epoch"',
        "training.save_total_limit=1",
    ),
    "accumulation 16": (
        "training.per_device_train_batch_size=1",
        "training.gradient_accumulation_steps=16",
    ),
    "bf16": ("training.bf16=true",),
    "fp16, which a CPU ignores": ("training.fp16=true",),
    "DoRA": ("lora.use_dora=true",),
    "modules_to_save": ('lora.modules_to_save=["ln_f"]',),
    "rank-stabilized, all layers": ("lora.use_rslora=true", 'lora.target_modules="all-linear"'),
    "biases trained": ('lora.bias="lora_only"',),
    "8-bit optimizer": ('training.optim="adamw_8bit"',),
}


def learns(recipe: Recipe, folder: Path) -> None:
    result = run(recipe, RunFolder.at(folder / "run"))
    assert result.before is not None
    assert result.after is not None
    assert result.after.loss < result.before.loss - 0.05


def said(report: CheckReport) -> list[str]:
    return [f"{one.code} {one.sentence}" for one in report.findings if one.fails]


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND)
def test_a_sound_recipe_learns_and_passes(tmp_path: Path, changes: tuple[str, ...]) -> None:
    recipe = load_recipe("quickstart", overrides=(*FEW, *changes))
    report = check_recipe(recipe)
    assert said(report) == []
    assert report.ok
    learns(recipe, tmp_path)


def test_all_parameters_trained_at_a_lower_rate(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", overrides=(*FEW, "training.learning_rate=1e-3"))
    recipe = dataclasses.replace(recipe, lora=None)
    assert said(check_recipe(recipe)) == []
    learns(recipe, tmp_path)


@pytest.mark.parametrize("build", SOUND_TRAINERS.values(), ids=SOUND_TRAINERS)
def test_a_sound_trainer_passes_and_learns(tmp_path: Path, build: Build) -> None:
    made = build(tmp_path)
    assert said(check_trainer(made)) == []
    before = made.evaluate()["eval_loss"]
    made.train()
    assert made.evaluate()["eval_loss"] < before - 0.05


@pytest.mark.parametrize("name", ["gpt2-wikitext2", "gpt2-wikitext2-nf4"])
def test_the_published_recipes_pass_without_their_model(name: str) -> None:
    assert said(check_recipe(load_recipe(name))) == []
