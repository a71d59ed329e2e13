"""Changes of a recipe that save memory, each predicted by running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ftcheck.errors import FtcheckError
from ftcheck.pipeline.progress import Progress, Silent
from ftcheck.recipe import Arguments, Recipe
from ftcheck.vram.prediction import predict_many
from ftcheck.vram.vram_report import VramReport

__all__ = ["Change", "Tried", "changes", "try_changes"]

_SHORTEST = 32
_CHUNK_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a recipe.

    Attributes:
        slug: Its name.
        edit: What to write into the recipe.
        cost: What it costs in time, steps or precision.
        recipe: The recipe with the change.
    """

    slug: str
    edit: str
    cost: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A change and what came of it.

    Attributes:
        slug: As in `Change`.
        edit: As in `Change`.
        cost: As in `Change`.
        needed_bytes: Smallest card that works with the change, context included; `None` if it
            could not be predicted.
        saved_bytes: What is saved of that; negative where it takes more.
        fits: Whether it runs on the card; `None` without a card.
        problem: Why it could not be predicted; empty if it could.
    """

    slug: str
    edit: str
    cost: str
    needed_bytes: int | None
    saved_bytes: int | None
    fits: bool | None
    problem: str


def changes(recipe: Recipe) -> tuple[Change, ...]:
    """The changes that a recipe has not made yet, and that could save memory."""
    return tuple(_changes(recipe))


def _changes(recipe: Recipe) -> Iterator[Change]:
    rows = recipe.tokenization
    if not recipe.checkpointing:
        yield _trained(
            recipe,
            "checkpointing",
            "each layer's forward pass is run twice",
            gradient_checkpointing=True,
        )
    batch, steps = recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps
    if batch > 1:
        yield _trained(
            recipe,
            "half-batch",
            "the same gradient in twice as many passes",
            per_device_train_batch_size=(batch + 1) // 2,
            gradient_accumulation_steps=steps * 2,
        )
    optimizer = str(recipe.training.get("optim", "adamw_torch"))
    if "8bit" not in optimizer and optimizer.startswith("adamw"):
        yield _trained(
            recipe, "8-bit-optimizer", "its state is rounded to 8 bits", optim="adamw_bnb_8bit"
        )
    yield from _smaller_weights(recipe)
    if recipe.model.loss_chunk_tokens is None:
        model = dataclasses.replace(recipe.model, loss_chunk_tokens=_CHUNK_TOKENS)
        yield Change(
            slug="loss-in-chunks",
            edit=f"model.loss_chunk_tokens = {_CHUNK_TOKENS}",
            cost="the softmax over the vocabulary is computed twice",
            recipe=dataclasses.replace(recipe, model=model),
        )
    if rows.max_length // 2 >= _SHORTEST:
        shorter = dataclasses.replace(rows, max_length=rows.max_length // 2)
        yield Change(
            slug="shorter-rows",
            edit=f"tokenization.max_length = {shorter.max_length}",
            cost=f"what lies beyond {shorter.max_length} tokens of a row is cut off",
            recipe=dataclasses.replace(recipe, tokenization=shorter),
        )
    if not rows.packing:
        yield Change(
            slug="packing",
            edit="tokenization.packing = true",
            cost="rows share blocks, and attend to each other; far fewer steps, as there are no "
            "pads",
            recipe=dataclasses.replace(
                recipe, tokenization=dataclasses.replace(rows, packing=True)
            ),
        )


def _smaller_weights(recipe: Recipe) -> Iterator[Change]:
    quantization = recipe.quantization or Arguments()
    half: Literal["bfloat16", "float16"] = "bfloat16" if recipe.training.get("bf16") else "float16"
    if recipe.lora is not None and not quantization.get("load_in_4bit"):
        settings: dict[str, Any] = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": half,
        }
        yield Change(
            slug="4-bits",
            edit=f"quantization: {_edits('', settings)}",
            cost="the base is rounded to 4 bits, and dequantized in each pass",
            recipe=dataclasses.replace(recipe, quantization=Arguments(settings)),
        )
    if recipe.lora is not None and not quantization:
        yield Change(
            slug="8-bits",
            edit="quantization: load_in_8bit = true",
            cost="the base is rounded to 8 bits; slower than 4 bits",
            recipe=dataclasses.replace(recipe, quantization=Arguments(load_in_8bit=True)),
        )
    mixed = recipe.training.get("bf16") or recipe.training.get("fp16")
    if recipe.lora is not None and mixed and recipe.model.dtype == "float32":
        yield Change(
            slug="half-precision-base",
            edit=f'model.dtype = "{half}"',
            cost="the frozen weights are rounded once, as autocast does in each pass",
            recipe=dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dtype=half)),
        )


def _trained(recipe: Recipe, slug: str, cost: str, **arguments: Any) -> Change:
    return Change(
        slug=slug,
        edit=_edits("training.", arguments),
        cost=cost,
        recipe=dataclasses.replace(recipe, training=recipe.training.replace(**arguments)),
    )


def _edits(prefix: str, arguments: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')

    return ", ".join(f"{prefix}{name} = {shown(value)}" for name, value in arguments.items())


def try_changes(
    recipe: Recipe,
    report: VramReport,
    *,
    timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> tuple[Tried, ...]:
    """Predict a recipe with each of its changes; those that save most come first.

    Args:
        recipe: The recipe.
        report: Its own prediction, on the card that the changes are held against.
        timeout_s: Seconds that each prediction may take.
        progress: Told of each change that was tried.
    """
    progress = progress or Silent()
    candidates = changes(recipe)
    progress.stage(f"Trying {len(candidates)} changes")
    tried = []
    for number, outcome in predict_many(
        [change.recipe for change in candidates], card=report.card, timeout_s=timeout_s
    ):
        tried.append(_tried(candidates[number], outcome, report))
        progress.steps(len(tried), len(candidates), None)
    return tuple(sorted(tried, key=_saving, reverse=True))


def _saving(tried: Tried) -> float:
    """What could not be predicted comes last."""
    return float("-inf") if tried.saved_bytes is None else tried.saved_bytes


def _tried(change: Change, outcome: VramReport | Exception, before: VramReport) -> Tried:
    needed = saved = fits = None
    problem = ""
    if isinstance(outcome, FtcheckError):
        problem = outcome.message.splitlines()[0]
    elif isinstance(outcome, Exception):
        raise outcome
    else:
        needed, fits = outcome.needed_bytes, outcome.fits
        if needed is not None and before.needed_bytes is not None:
            saved = before.needed_bytes - needed
    return Tried(
        slug=change.slug,
        edit=change.edit,
        cost=change.cost,
        needed_bytes=needed,
        saved_bytes=saved,
        fits=fits,
        problem=problem,
    )
