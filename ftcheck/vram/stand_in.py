"""A base model without its weights: the architecture is real, the checkpoint is hollow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.assets import model_dir
from ftcheck.pipeline.model import dtype_name
from ftcheck.pipeline.tokens import load_tokenizer, model_available, model_location
from ftcheck.recipe import Recipe
from ftcheck.sources.published import published_model
from ftcheck.vgpu.hollow import hollow_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["configuration", "has_weights", "other_tokenizer", "own_tokenizer", "stand_in_model"]

Assume = Callable[[str], None]


def stand_in_model(recipe: Recipe, folder: Path, assume: Assume) -> Recipe:
    """The recipe with a hollow checkpoint in place of its base model.

    The configuration is that of the recipe's folder, of the hub's cache on this machine, of the
    table of published sizes, or of the hub, whichever comes first.

    Args:
        recipe: Names the model.
        folder: Empty; gets config.json and model.safetensors.
        assume: Told what the result rests on.

    Raises:
        InputError: There is no such model, or it is no causal language model.
        Unavailable: The hub does not have it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config, stored = configuration(recipe, assume)
    wanted = stored if recipe.model.dtype == "auto" else recipe.model.dtype
    trust = recipe.model.trust_remote_code
    dtype = getattr(torch, wanted)

    def build() -> Any:
        try:
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
        except ValueError as error:
            raise recipe.fault(
                "model.name_or_path",
                f"{recipe.model.name_or_path} is a {config.model_type}, and transformers has no "
                "causal language model of that type",
                "Name a causal language model, such as gpt2.",
            ) from error
        setattr(model.config, dtype_name(), dtype)
        return model

    hollow_checkpoint(build, folder, dtype)
    model = dataclasses.replace(recipe.model, name_or_path=str(folder), revision=None)
    return dataclasses.replace(recipe, model=model)


def configuration(recipe: Recipe, assume: Assume) -> tuple[Any, str]:
    """The configuration of a recipe's model, and the dtype of its published weights.

    It is that of the recipe's folder, of the hub's cache on this machine, of the table of published
    sizes, or of the hub, whichever comes first.

    Raises:
        Unavailable: The hub does not have it.
    """
    from transformers import AutoConfig

    name = recipe.model.name_or_path
    place = model_location(recipe)
    options = {
        "revision": recipe.model.revision or "main",
        "trust_remote_code": recipe.model.trust_remote_code,
    }
    if Path(place).is_dir():
        return _with_dtype(_read(recipe, place, options))
    if _cached(recipe, "config.json"):
        return _with_dtype(AutoConfig.from_pretrained(place, local_files_only=True, **options))
    published = published_model(name)
    if published is not None:
        assume(f"model: the architecture of {name} as published; its weights were not loaded")
        config = AutoConfig.for_model(published.model_type, **published.config)
        return config, published.dtype
    return _with_dtype(_read(recipe, place, options))


def _read(recipe: Recipe, place: str, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    with model_available(recipe, "configuration of"):
        return AutoConfig.from_pretrained(place, **options)


def _with_dtype(config: Any) -> tuple[Any, str]:
    stored = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return config, str(stored).removeprefix("torch.") if stored is not None else "float32"


def own_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase | None:
    """The recipe's tokenizer, if it is on this machine.

    Args:
        recipe: With the model as the user named it.
    """
    here = Path(model_location(recipe)).is_dir() or any(
        _cached(recipe, file) for file in ("tokenizer.json", "tokenizer_config.json")
    )
    return load_tokenizer(recipe) if here else None


def has_weights(recipe: Recipe) -> bool:
    """Whether the weights of a recipe's model are on this machine."""
    folder = Path(model_location(recipe))
    if folder.is_dir():
        return any(folder.glob("*.safetensors"))
    names = ("model.safetensors", "model.safetensors.index.json")
    return any(_cached(recipe, name) for name in names)


def other_tokenizer(recipe: Recipe, assume: Assume) -> PreTrainedTokenizerBase:
    """The embedded tokenizer, for a recipe whose own is not on this machine."""
    from transformers import AutoTokenizer

    assume(
        f"tokenizer: that of {recipe.model.name_or_path} is not on this machine; prompts are cut "
        "into tokens by another"
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(model_dir()))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _cached(recipe: Recipe, filename: str) -> bool:
    """Whether the hub's cache on this machine has a file of the model."""
    from huggingface_hub import try_to_load_from_cache

    name, revision = recipe.model.name_or_path, recipe.model.revision
    return isinstance(try_to_load_from_cache(name, filename, revision=revision), str)
