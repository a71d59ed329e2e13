from __future__ import annotations

from typing import Any

import pytest

from ftcheck.errors import InputError
from ftcheck.pipeline import count_parameters, load_base, load_tokenizer, wrap
from ftcheck.pipeline.adapter import unwrapped
from ftcheck.recipe import Recipe
from tests.helpers.recipes import small_recipe
from tests.helpers.versions import skip_unless_runnable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def wrapped(recipe: Recipe) -> Any:
    return wrap(load_base(recipe, load_tokenizer(recipe)), recipe)


@pytest.mark.filterwarnings("ignore")
def test_the_reference_at_full_size_has_811008_of_125250816() -> None:
    """GPT2Config() with random weights: `c_proj` adapts attention and MLP."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = wrap(GPT2LMHeadModel(GPT2Config()), small_recipe())
    counts = count_parameters(model)
    assert counts.trainable == 811_008
    assert counts.total == 125_250_816
    assert counts.adapted == {"attn.c_attn": 12, "attn.c_proj": 12, "mlp.c_proj": 12}


@pytest.mark.parametrize(
    "bits", [[], ["quantization.load_in_8bit=true"], ["quantization.load_in_4bit=true"]]
)
def test_counts_do_not_depend_on_bits(bits: list[str]) -> None:
    skip_unless_runnable(bits)
    counts = count_parameters(wrapped(small_recipe(*bits)))
    assert counts.trainable == 45_056
    assert counts.total == 1_088_256 + 45_056
    assert counts.adapted == {"attn.c_attn": 4, "attn.c_proj": 4, "mlp.c_proj": 4}


def test_trainable_names_are_exactly_the_adapter() -> None:
    model = wrapped(small_recipe())
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {
        f"base_model.model.transformer.h.{layer}.{kind}.lora_{ab}.default.weight"
        for layer in range(4)
        for kind in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")
        for ab in "AB"
    }


def test_the_seed_decides_the_first_adapter() -> None:
    import torch

    def first_a(seed: int) -> Any:
        torch.manual_seed(seed * 7919)  # whatever happened before
        model = wrapped(small_recipe(f"training.seed={seed}"))
        return next(p for name, p in model.named_parameters() if "lora_A" in name)

    assert torch.equal(first_a(1), first_a(1))
    assert not torch.equal(first_a(1), first_a(2))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (['lora.target_modules=["q_proj"]'], r"no module of .* is named 'q_proj'"),
        (['lora.target_modules=["c_attn", "v_proj"]'], r"no module of .* is named 'v_proj'"),
        (
            ['lora.target_modules="^nothing$"'],
            r"lora: .*[Nn]o modules? .*target|lora: Target modules",
        ),
    ],
)
def test_targets_that_match_nothing(overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        wrapped(small_recipe(*overrides))


def test_a_pattern_and_all_linear_are_left_to_peft() -> None:
    pattern = wrapped(small_recipe(r"lora.target_modules='.*\.0\.attn\.c_attn'"))
    assert count_parameters(pattern).adapted == {"attn.c_attn": 1}
    every = count_parameters(wrapped(small_recipe("lora.target_modules=all-linear"))).adapted
    assert set(every) == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}


def test_quantized_base_is_prepared_before_it_is_wrapped() -> None:
    """Prepared afterwards, the adapter would be frozen with the rest."""
    skip_unless_runnable(["quantization.load_in_8bit=true"])
    model = wrapped(small_recipe("quantization.load_in_8bit=true"))
    assert any(p.requires_grad for p in model.parameters())
    norm = unwrapped(model).transformer.ln_f.weight
    assert str(norm.dtype) == "torch.float32"
    assert not norm.requires_grad
