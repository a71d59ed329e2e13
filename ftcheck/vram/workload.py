"""What is run to see its memory: load, wrap, steps, evaluate, save, load again, generate.

The same on the virtual GPU and on a card: the steps are those of the pipeline, the meter is told
where they begin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
from ftcheck.pipeline.generation import check_prompts, new_tokens
from ftcheck.pipeline.tokens import TokenizedData, tokenizer_at_hand
from ftcheck.pipeline.training import build_arguments, cut_short
from ftcheck.recipe import Recipe
from ftcheck.recipe.hf_fields import fields
from ftcheck.sources.base_model import BaseModel, find_base_model
from ftcheck.vgpu.errors import Unmeasured
from ftcheck.vram.empty_model import empty_model
from ftcheck.vram.representative import Shape, longest_rows, rows, tokenized

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

__all__ = ["MOST_STEPS", "Meter", "Subject", "name_of", "run", "run_recipe", "run_subject"]

Subject = Recipe | Callable[[], Any]
"""A recipe, or a function that makes a `Trainer`, makes a step, or is all that is to be run."""

MOST_STEPS = 4
"""Optimizer steps after which it ends, whether or not the peak has come back by then."""


_EVAL_BATCHES = 2
_NEW_TOKENS = 16


class Meter(Protocol):
    """Where it runs: the virtual GPU, or a card that is measured."""

    @property
    def device(self) -> Any:
        """The device."""

    def phase(self, name: str) -> None:
        """Name what follows."""

    def assume(self, text: str) -> None:
        """Note what the result rests on."""

    def as_cuda(self) -> None:
        """Let people's own code find the device as `cuda`."""

    def step_peak_bytes(self) -> int:
        """Most bytes that were allocated since the phase began."""


def name_of(subject: Subject) -> str:
    """Name of a recipe or of a function, for a report."""
    if isinstance(subject, Recipe):
        return subject.name
    return str(getattr(subject, "__qualname__", subject))


def run(meter: Meter, subject: Subject, *, accumulate: int | None = 2) -> dict[str, Any]:
    """`run_recipe` or `run_subject`; the second has no use for `accumulate`."""
    if isinstance(subject, Recipe):
        return run_recipe(meter, subject, accumulate=accumulate)
    return run_subject(meter, subject)


def run_recipe(meter: Meter, recipe: Recipe, *, accumulate: int | None = 2) -> dict[str, Any]:
    """Run a recipe in small: the real model, its largest batch, until the peak comes back.

    Args:
        meter: Where.
        recipe: The recipe; its base model is replaced by a hollow checkpoint of the same size.
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
        return _run_recipe(meter, recipe, Path(folder), accumulate)


def _run_recipe(
    meter: Meter, recipe: Recipe, folder: Path, accumulate: int | None
) -> dict[str, Any]:
    published = find_base_model(recipe)
    tokenizer = tokenizer_at_hand(recipe, published, meter.assume)
    source = _without_weights(meter, recipe, published, folder / "base")
    arguments = build_arguments(recipe, folder / "checkpoints")
    sizes = (arguments.train_batch_size, arguments.eval_batch_size)
    own = tokenizer if published.has_tokenizer else None
    shapes = longest_rows(recipe, own, sizes, meter.assume)
    short = _shortened(recipe, arguments.gradient_accumulation_steps, accumulate, meter)
    tokens = _tokens(short, shapes, int(tokenizer.pad_token_id or 0))
    meter.phase("load")
    base = load_base(short, tokenizer, source=source)
    check_prompts(base, tokenizer, short)
    meter.phase("wrap")
    model = wrap(base, short)
    del base
    facts = {
        "parameters": dataclasses.asdict(count_parameters(model)),
        "train_batch": dataclasses.asdict(shapes[0]),
        "eval_batch": dataclasses.asdict(shapes[1]) if shapes[1] else None,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
    }
    trainer = build_trainer(model, tokens, tokenizer, short, folder / "checkpoints")
    with _further_inputs(meter, shapes[0], arguments, trainer.args):
        trainer.add_callback(_phases(meter))
        trainer.train()
    if tokens.evaluation is not None:
        meter.phase("eval")
        evaluate(trainer)
    meter.phase("save")
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    save(model, tokenizer, short, folder / "adapter", source=source)
    del model, trainer
    gc.collect()
    _generate(meter, short, source, folder / "adapter")
    return facts


def _tokens(recipe: Recipe, shapes: tuple[Shape, Shape | None], pad: int) -> TokenizedData:
    masked = recipe.tokenization.labels == "pads_masked"
    batches = recipe.gradient_accumulation_steps * MOST_STEPS
    train = rows(shapes[0], batches, pad, masked=masked)
    if shapes[1] is None:
        return tokenized(train, None)
    return tokenized(train, rows(shapes[1], _EVAL_BATCHES, pad, masked=masked))


def _without_weights(meter: Meter, recipe: Recipe, source: BaseModel, folder: Path) -> BaseModel:
    if assumption := source.configuration.assumption:
        meter.assume(assumption)
    folder.mkdir()
    return empty_model(recipe, source, folder)


def _generate(meter: Meter, recipe: Recipe, source: BaseModel, adapter: Path) -> None:
    meter.phase("reload")
    model, tokenizer = reload(recipe, adapter, source=source)
    if not recipe.generation.prompts:
        return
    meter.phase("generate")
    short, missing = _short_generation(recipe, meter)
    with _further_cache(meter, model, missing, recipe):
        generate(model, tokenizer, short)


def _short_generation(recipe: Recipe, meter: Meter) -> tuple[Recipe, int]:
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
def _further_cache(meter: Meter, model: Any, tokens: int, recipe: Recipe) -> Iterator[None]:
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


def _shortened(recipe: Recipe, steps: int, accumulate: int | None, meter: Meter) -> Recipe:
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
def _further_inputs(
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


def run_subject(meter: Meter, subject: Callable[[], Any]) -> dict[str, Any]:
    """Run what people have written: a function that makes a `Trainer`, or a step, or all of it.

    Args:
        meter: Where.
        subject: Called once. If it returns a `Trainer`, that is trained until its peak comes back,
            evaluated where it has rows for that, and saved. If it returns a function, that is
            called as a step until the peak comes back.
    """
    meter.as_cuda()
    meter.phase("load")
    made = subject()
    if callable(getattr(made, "train", None)) and hasattr(made, "args"):
        _run_trainer(meter, made)
    elif callable(made):
        _run_steps(meter, made)
    return {}


def _run_trainer(meter: Meter, trainer: Trainer) -> None:
    cut_short(trainer, MOST_STEPS)
    trainer.add_callback(_phases(meter))
    trainer.train()
    if trainer.eval_dataset is not None:
        meter.phase("eval")
        trainer.evaluate()
    meter.phase("save")
    with tempfile.TemporaryDirectory(prefix="ftcheck-vram-") as folder:
        trainer.save_model(folder)


def _run_steps(meter: Meter, step: Callable[[], Any]) -> None:
    peaks: list[int] = []
    while len(peaks) < MOST_STEPS and not _came_back(peaks):
        meter.phase(f"step {len(peaks) + 1}")
        step()
        peaks.append(meter.step_peak_bytes())


def _came_back(peaks: list[int]) -> bool:
    """Whether the last step took no more than the one before."""
    return len(peaks) > 1 and peaks[-1] <= peaks[-2]


def _phases(meter: Meter) -> Any:
    """A callback that names the steps, and ends the training once the peak has come back."""
    from transformers import TrainerCallback

    class Phases(TrainerCallback):  # type: ignore[misc] # transformers has no types for it
        def __init__(self) -> None:
            self.peaks: list[int] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            meter.phase(f"step {state.global_step + 1}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.peaks.append(meter.step_peak_bytes())
            if _came_back(self.peaks):
                control.should_training_stop = True

    return Phases()
