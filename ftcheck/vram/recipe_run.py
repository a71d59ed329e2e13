"""A recipe run in small to see its memory: load, wrap, steps, evaluate, save, reload, generate.

The same on the virtual GPU and on a GPU: the steps are those of the pipeline, and the meter is told
where each phase begins.
"""

from __future__ import annotations

import dataclasses
import gc
import tempfile
from pathlib import Path
from typing import Any

from ftcheck.pipeline import (
    build_trainer,
    count_parameters,
    evaluate,
    generate,
    load_base,
    reload,
    save,
    wrap,
)
from ftcheck.pipeline.generation import check_prompts
from ftcheck.pipeline.tokens import tokenizer_at_hand
from ftcheck.pipeline.training import build_arguments
from ftcheck.recipe import Recipe
from ftcheck.sources.base_model import BaseModel, find_base_model
from ftcheck.vgpu.errors import Unmeasured
from ftcheck.vram.empty_model import empty_model
from ftcheck.vram.meter import MOST_STEPS, Meter, phases
from ftcheck.vram.representative import largest_batches, representative_rows
from ftcheck.vram.shortening import further_cache, further_inputs, short_generation, shortened

__all__ = ["run_recipe"]


def run_recipe(meter: Meter, recipe: Recipe, *, accumulate: int | None = 2) -> dict[str, Any]:
    """Run a recipe in small: the real model, its largest batch, until the peak repeats.

    Args:
        meter: Where.
        recipe: The recipe; its base model is replaced by an empty checkpoint of the same size.
        accumulate: Micro-batches of a step, if the recipe accumulates more: from the second on
            they repeat each other. `None` runs all of them.

    Returns:
        Plain facts for the report: parameters, batch, length.

    Raises:
        InputError: The recipe, its data or its model cannot be used.
    """
    if recipe.training.get("torch_compile") and not str(meter.device).startswith("cuda"):
        raise Unmeasured(
            "training.torch_compile",
            "what compiled code allocates is planned by the compiler for a real card",
            next_step="Leave it out to see what it takes uncompiled.",
        )
    with tempfile.TemporaryDirectory(prefix="ftcheck-vram-") as folder:
        return _run(meter, recipe, Path(folder), accumulate)


def _run(meter: Meter, recipe: Recipe, folder: Path, accumulate: int | None) -> dict[str, Any]:
    source = find_base_model(recipe)
    tokenizer = tokenizer_at_hand(recipe, source, meter.assume)
    empty = empty_model(recipe, source, folder / "base", meter.assume)
    arguments = build_arguments(recipe, folder / "checkpoints")
    own = tokenizer if source.has_tokenizer else None
    batches = largest_batches(recipe, own, arguments, meter.assume)
    short = shortened(recipe, arguments.gradient_accumulation_steps, accumulate, meter)
    tokens = representative_rows(
        short, batches, MOST_STEPS * short.gradient_accumulation_steps, tokenizer
    )
    meter.phase("load")
    base = load_base(short, tokenizer, source=empty)
    check_prompts(base, tokenizer, short)
    meter.phase("wrap")
    model = wrap(base, short)
    del base
    facts = {
        "parameters": dataclasses.asdict(count_parameters(model)),
        "train_batch": dataclasses.asdict(batches.train),
        "eval_batch": dataclasses.asdict(batches.evaluation) if batches.evaluation else None,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
    }
    trainer = build_trainer(model, tokens, tokenizer, short, folder / "checkpoints")
    with further_inputs(meter, batches.train, arguments, trainer.args):
        trainer.add_callback(phases(meter))
        trainer.train()
    if tokens.evaluation is not None:
        meter.phase("eval")
        evaluate(trainer)
    meter.phase("save")
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    save(model, tokenizer, short, folder / "adapter", source=empty)
    del model, trainer
    gc.collect()
    _generate(meter, short, empty, folder / "adapter")
    return facts


def _generate(meter: Meter, recipe: Recipe, source: BaseModel, adapter: Path) -> None:
    meter.phase("reload")
    model, tokenizer = reload(recipe, adapter, source=source)
    if not recipe.generation.prompts:
        return
    meter.phase("generate")
    short, missing = short_generation(recipe, meter)
    with further_cache(meter, model, missing, recipe):
        generate(model, tokenizer, short)
