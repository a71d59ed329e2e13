"""Fine-tuning on a card, or on the virtual one: steps, quantized bases, generation, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcheck.pipeline import (
    build_trainer,
    evaluate,
    generate,
    load_base,
    load_data,
    load_tokenizer,
    tokenize,
    wrap,
)
from ftcheck.recipe import Recipe
from tests.helpers.recipes import small_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

QUANTIZED = {
    "int8": ("quantization.load_in_8bit=true",),
    "nf4": (
        "quantization.load_in_4bit=true",
        "quantization.bnb_4bit_quant_type=nf4",
        "quantization.bnb_4bit_compute_dtype=float16",
    ),
}


def trainer_of(recipe: Recipe, folder: Path) -> Any:
    tokenizer = load_tokenizer(recipe)
    tokens = tokenize(load_data(recipe), tokenizer, recipe)
    model = wrap(load_base(recipe, tokenizer), recipe)
    return build_trainer(model, tokens, tokenizer, recipe, folder / "checkpoints")


@pytest.mark.vram_budget("128 MiB", of="reserved")
def test_two_steps_within_a_budget(gpu: Any, tmp_path: Path) -> None:
    trainer = trainer_of(small_recipe("training.max_steps=2"), tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2
    assert {parameter.device for parameter in trainer.model.parameters()} == {gpu.device}
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_base_is_smaller(gpu: Any, vram: Any, kind: str) -> None:
    plain, quantized = small_recipe(), small_recipe(*QUANTIZED[kind])
    tokenizer = load_tokenizer(plain)
    with vram.measure() as before:
        model = load_base(plain, tokenizer)
    del model
    with vram.measure() as after:
        model = load_base(quantized, tokenizer)
    assert 0 < after.allocated_peak_bytes < before.allocated_peak_bytes
    stored = {"int8": "torch.int8", "nf4": "torch.uint8"}[kind]
    kinds = {str(value.dtype) for name, value in model.named_parameters() if "attn" in name}
    assert stored in kinds
    assert {value.device for value in model.parameters()} == {gpu.device}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_two_steps_on_a_quantized_base(gpu: Any, vram: Any, tmp_path: Path, kind: str) -> None:
    with vram.limit("192 MiB", of="allocated"):
        trainer = trainer_of(small_recipe("training.max_steps=2", *QUANTIZED[kind]), tmp_path)
        trainer.train()
    assert trainer.state.global_step == 2


def test_generation_adds_tokens_on_the_card(gpu: Any) -> None:
    import torch

    recipe = small_recipe()
    tokenizer = load_tokenizer(recipe)
    model = load_base(recipe, tokenizer)
    ids = torch.tensor([[1, 2, 3]], device=gpu.device)
    with torch.no_grad():
        found = model.generate(ids, min_new_tokens=8, max_new_tokens=8, pad_token_id=0)
    assert found.shape == (1, 11)
    assert found.device == gpu.device


def test_training_lowers_the_loss(gpu: Any, tmp_path: Path) -> None:
    """What only a real card can say."""
    trainer = trainer_of(
        small_recipe("training.max_steps=20", "training.learning_rate=0.01"), tmp_path
    )
    before = evaluate(trainer)
    trainer.train()
    after = evaluate(trainer)
    assert before is not None
    assert after is not None
    assert after.loss < before.loss


def test_a_text_begins_with_its_prompt(gpu: Any) -> None:
    """What only a real card can say, for tokens that it picks are in the text."""
    recipe = small_recipe()
    tokenizer = load_tokenizer(recipe)
    (text,) = generate(load_base(recipe, tokenizer), tokenizer, recipe, ("def ",))
    assert text.startswith("def ")


def test_the_training_loss_is_a_number_of_the_card(gpu: Any, tmp_path: Path) -> None:
    """What only a real card can say, though the trainer goes on without it."""
    result = trainer_of(small_recipe("training.max_steps=2"), tmp_path).train()
    assert 0 < result.training_loss < 20


def plain_trainer(folder: Path) -> Any:
    """The library's own, whose evaluation goes through numpy."""
    from transformers import Trainer

    made = trainer_of(small_recipe(), folder)
    return Trainer(
        model=made.model,
        args=made.args,
        eval_dataset=made.eval_dataset,
        data_collator=made.data_collator,
        compute_metrics=lambda seen: {"largest": float(seen.predictions.max())},
    )


@pytest.mark.parametrize("name", ["eval_loss", "eval_largest"])
def test_metrics_of_an_evaluation_are_of_the_card(gpu: Any, tmp_path: Path, name: str) -> None:
    """What only a real card can say, though numpy computes them, on the host."""
    assert -50 < plain_trainer(tmp_path).evaluate()[name] < 50


def test_logged_metrics_are_of_the_card(gpu: Any, tmp_path: Path) -> None:
    """What only a real card can say."""
    trainer = plain_trainer(tmp_path)
    trainer.evaluate()
    assert 0 < trainer.state.log_history[-1]["eval_loss"] < 20


def test_metrics_of_a_prediction_are_of_the_card(gpu: Any, tmp_path: Path) -> None:
    """What only a real card can say."""
    trainer = plain_trainer(tmp_path)
    metrics = trainer.predict(trainer.eval_dataset).metrics
    assert 0 < metrics["test_loss"] < 20


def test_the_time_of_an_evaluation_is_known(gpu: Any, tmp_path: Path) -> None:
    metrics = plain_trainer(tmp_path).evaluate()
    assert metrics["eval_runtime"] > 0
    assert metrics["eval_samples_per_second"] > 0
