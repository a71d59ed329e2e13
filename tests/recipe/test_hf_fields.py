"""What is parsed from the installed sources, held against the imported classes."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Literal, get_args

import pytest

from ftcheck.recipe.hf_fields import fields
from ftcheck.recipe.limits import LIMITS


def test_training_fields_are_those_of_the_class() -> None:
    from transformers import TrainingArguments

    real = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert set(fields("training")) == real


def test_lora_fields_are_those_of_the_class() -> None:
    from peft import LoraConfig

    real = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    assert set(fields("lora")) == real


def test_quantization_fields_are_those_of_the_class() -> None:
    from transformers import BitsAndBytesConfig

    real = set(inspect.signature(BitsAndBytesConfig.__init__).parameters) - {"self", "kwargs"}
    assert set(fields("quantization")) == real


def test_generation_fields_are_attributes_of_the_class() -> None:
    from transformers import GenerationConfig

    known = set(fields("generation"))
    config = GenerationConfig()
    assert len(known) > 40
    assert {name for name in known if not hasattr(config, name)} <= {"trust_remote_code"}
    assert {"max_new_tokens", "temperature", "do_sample", "top_p"} <= known


def test_choices_are_choices() -> None:
    optimizers = get_args(fields("training")["optim"].annotation)
    assert "adamw_torch" in optimizers
    assert str not in optimizers
    assert set(get_args(fields("training")["eval_strategy"].annotation)) == {
        "no",
        "steps",
        "epoch",
    }


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("training", "learning_rate", 1e-4),
        ("training", "learning_rate", 1),
        ("training", "report_to", "none"),
        ("training", "report_to", ["tensorboard"]),
        ("training", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("lora", "target_modules", "all-linear"),
        ("lora", "target_modules", ["c_attn"]),
        ("lora", "init_lora_weights", "pissa_niter_16"),
        ("lora", "init_lora_weights", False),
        ("lora", "rank_pattern", {"c_attn": 4}),
        ("lora", "modules_to_save", ["lm_head"]),
        ("quantization", "bnb_4bit_compute_dtype", "bfloat16"),
        ("generation", "eos_token_id", [1, 2]),
    ],
)
def test_sound_values_pass(section: Any, name: str, value: Any) -> None:
    from ftcheck.recipe.values import argument_faults

    assert list(argument_faults(section, fields(section)[name], value)) == []


def test_every_limit_names_an_argument_of_some_version() -> None:
    for key in LIMITS:
        section, name = key.split(".")
        known: Any = fields(section)
        gone: Literal["warmup_ratio"] = "warmup_ratio"  # since 5.15, and still translated
        assert name in known or name == gone
