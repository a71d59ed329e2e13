"""A base model without its weights: the architecture is real, the checkpoint is empty."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftcheck.pipeline.model import dtype_name
from ftcheck.recipe import Recipe
from ftcheck.sources.base_model import BaseModel
from ftcheck.vgpu.hollow import hollow_checkpoint

__all__ = ["empty_model"]


def empty_model(
    recipe: Recipe, source: BaseModel, folder: Path, assume: Callable[[str], None]
) -> BaseModel:
    """Write an empty checkpoint with the architecture of a base model.

    Args:
        recipe: Names the dtype.
        source: Where the base model is.
        folder: Is made; gets config.json and model.safetensors.
        assume: Receives what the architecture rests on, if not on the model's own configuration.

    Returns:
        The checkpoint, under the name of the model.

    Raises:
        InputError: It is no causal language model.
        Unavailable: The hub does not have its configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM

    stored = source.configuration
    if stored.assumption:
        assume(stored.assumption)
    config, trust = stored.config, source.trust_remote_code
    dtype = getattr(torch, stored.dtype if recipe.model.dtype == "auto" else recipe.model.dtype)

    def build() -> Any:
        try:
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
        except ValueError as error:
            raise recipe.fault(
                "model.name_or_path",
                f"{source.name} is a {config.model_type}, and transformers has no causal language "
                "model of that type",
                "Name a causal language model, such as gpt2.",
            ) from error
        setattr(model.config, dtype_name(), dtype)
        return model

    folder.mkdir()
    hollow_checkpoint(build, folder, dtype)
    return dataclasses.replace(source, location=str(folder), revision=None)
