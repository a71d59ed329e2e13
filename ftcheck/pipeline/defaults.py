"""A recipe with every default filled in, as the installed versions have them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftcheck.pipeline.training import build_arguments
from ftcheck.recipe import Arguments, Recipe
from ftcheck.recipe.hf_fields import fields
from ftcheck.recipe.values import argument_faults
from ftcheck.sources.base_model import EMBEDDED_MODEL
from ftcheck.sources.data_set import EMBEDDED_DATA

__all__ = ["with_defaults"]

_NOT_DECISIONS = frozenset(
    {
        "output_dir",
        "logging_dir",
        "run_name",
        "disable_tqdm",
        "hub_token",
        "push_to_hub_token",
        "local_rank",
        "ddp_backend",
        "deepspeed",
        "fsdp",
        "fsdp_config",
        "use_cpu",
        "no_cuda",
        "accelerator_config",
        "base_model_name_or_path",
        "peft_version",
        "inference_mode",
    }
)
"""Arguments that say where or by whom a recipe runs, not what it does."""


def with_defaults(recipe: Recipe) -> Recipe:
    """Fill in every argument that the recipe leaves open and the library gives a value.

    Paths of local files become absolute, so that the recipe means the same in another folder.
    """
    arguments = build_arguments(recipe, Path("unused"))
    training = _filled("training", recipe.training, arguments.to_dict())
    lora, quantization = recipe.lora, recipe.quantization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself says what these say
        if lora is not None:
            from peft import LoraConfig

            lora = _filled("lora", lora, LoraConfig(**lora).to_dict())
        if quantization is not None:
            from transformers import BitsAndBytesConfig

            given = BitsAndBytesConfig(**quantization).to_dict()
            quantization = _filled("quantization", quantization, given)
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(
            recipe.model, name_or_path=_absolute(recipe, recipe.model.name_or_path)
        ),
        data=dataclasses.replace(
            recipe.data,
            path=_absolute(recipe, recipe.data.path),
            eval_path=recipe.data.eval_path and _absolute(recipe, recipe.data.eval_path),
        ),
        training=training,
        lora=lora,
        quantization=quantization,
    )


def _filled(section: Any, given: Arguments, actual: Mapping[str, Any]) -> Arguments:
    known = fields(section)
    filled = {
        name: value
        for name, value in actual.items()
        if name in known
        and name not in given
        and name not in _NOT_DECISIONS
        and value is not None
        and isinstance(value, (bool, int, float, str, list, dict))
        and value not in ([], {})
        and not list(argument_faults(section, known[name], value))
    }
    return given.replace(**filled)


def _absolute(recipe: Recipe, path: str) -> str:
    if path in (EMBEDDED_DATA, EMBEDDED_MODEL):
        return path
    local = recipe.resolve(path)
    return str(local.resolve()) if local.exists() else path
