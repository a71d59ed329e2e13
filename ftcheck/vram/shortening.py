"""A run in small: fewer steps, micro-batches and new tokens, and the memory of those left out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ftcheck.pipeline.generation import new_tokens
from ftcheck.recipe import Recipe
from ftcheck.recipe.hf_fields import fields
from ftcheck.vram.meter import MOST_STEPS, Meter
from ftcheck.vram.representative import Shape

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["further_cache", "further_inputs", "short_generation", "shortened"]

_NEW_TOKENS = 16


def shortened(recipe: Recipe, steps: int, accumulate: int | None, meter: Meter) -> Recipe:
    """A few optimizer steps of a few micro-batches, with nothing written in between."""
    changes: dict[str, Any] = {
        "max_steps": MOST_STEPS,
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "dataloader_num_workers": 0,
        "push_to_hub": False,
    }
    if accumulate is not None and steps > accumulate:
        changes["gradient_accumulation_steps"] = accumulate
        meter.assume(
            f"accumulation: {accumulate} of {steps} micro-batches of a step were run; the others "
            "repeat the last, and their inputs come on top"
        )
    here = fields("training")
    known = {name: value for name, value in changes.items() if name in here}
    for name in ("use_cpu", "no_cuda"):
        if recipe.training.get(name):
            known[name] = False
    model = dataclasses.replace(recipe.model, device="auto")
    training = recipe.training.replace(**known)
    return dataclasses.replace(recipe, model=model, training=training)


@contextlib.contextmanager
def further_inputs(
    meter: Meter, shape: Shape, arguments: TrainingArguments, short: TrainingArguments
) -> Iterator[None]:
    """Hold what the micro-batches that are not run would have on the card.

    `Trainer` fetches all micro-batches of a step before the first (`get_batch_samples`).
    """
    import torch

    missing = arguments.gradient_accumulation_steps - short.gradient_accumulation_steps
    if missing <= 0:
        yield
        return
    columns, int64_bytes = 3, 8  # input_ids, attention_mask, labels
    size = missing * shape.batch * shape.length * columns * int64_bytes
    held = torch.empty(size, dtype=torch.uint8).to(meter.device)
    yield
    del held


def short_generation(recipe: Recipe, meter: Meter) -> tuple[Recipe, int]:
    """A few new tokens, and how many were left out."""
    arguments, wanted = recipe.generation.arguments, new_tokens(recipe)
    if wanted <= _NEW_TOKENS or arguments.get("use_cache") is False:
        return recipe, 0
    meter.assume(
        f"generation: {_NEW_TOKENS} of {wanted} new tokens were run; the cache of the others comes "
        "on top"
    )
    generation = dataclasses.replace(
        recipe.generation, arguments=arguments.replace(max_new_tokens=_NEW_TOKENS)
    )
    return dataclasses.replace(recipe, generation=generation), wanted - _NEW_TOKENS


@contextlib.contextmanager
def further_cache(meter: Meter, model: Any, tokens: int, recipe: Recipe) -> Iterator[None]:
    """Hold the keys and values that new tokens which are not run would leave in the cache."""
    import torch

    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    arguments = recipe.generation.arguments
    texts = len(recipe.generation.prompts) * max(
        arguments.get("num_beams", 1), arguments.get("num_return_sequences", 1)
    )
    elements = 2 * config.num_hidden_layers * key_heads * head * texts * tokens
    held = torch.empty(elements, dtype=model.dtype, device=meter.device) if elements else None
    yield
    del held
