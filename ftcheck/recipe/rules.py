"""Contradictions between values that are each fine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ftcheck.recipe.schema import Arguments, Recipe
from ftcheck.recipe.values import Fault
from ftcheck.units import parse_bytes

__all__ = ["contradictions"]

_LAUNCHER_OWNS = {"local_rank", "tpu_num_cores"}


def contradictions(recipe: Recipe) -> Iterator[Fault]:
    """Every contradiction in a recipe whose values each have the right type.

    Yields:
        Faults whose key is `section.key`.
    """
    for rule in _RULES:
        yield from rule(recipe)


def _bits(recipe: Recipe) -> Iterator[Fault]:
    quantization = recipe.quantization
    if quantization is None:
        return
    both = quantization.get("load_in_8bit") and quantization.get("load_in_4bit")
    if both:
        yield Fault(
            key="quantization.load_in_4bit",
            text="got true beside load_in_8bit = true, expected at most one of them.",
        )
    elif not (quantization.get("load_in_8bit") or quantization.get("load_in_4bit")):
        yield Fault(
            key="quantization",
            text="expected load_in_8bit = true or load_in_4bit = true.",
            hint="Leave the section out for weights that are not quantized.",
        )
    if recipe.lora is None:
        yield Fault(
            key="quantization",
            text="quantized weights cannot be trained, and there is no [lora] section.",
            hint="Add [lora], or leave [quantization] out.",
        )


def _precision(recipe: Recipe) -> Iterator[Fault]:
    training = recipe.training
    if training.get("fp16") and training.get("bf16"):
        yield Fault(
            key="training.bf16", text="got true beside fp16 = true, expected at most one of them."
        )
    if training.get("fp16") and recipe.lora is None and recipe.model.dtype == "float16":
        yield Fault(
            key="training.fp16",
            text='got true beside model.dtype = "float16" without [lora]: '
            "mixed precision needs trainable weights in float32.",
            hint='Set model.dtype = "float32".',
        )


def _steps(recipe: Recipe) -> Iterator[Fault]:
    if recipe.training.get("max_steps") == 0:
        yield Fault(
            key="training.max_steps",
            text="got 0, expected 1 or more, or -1 to go by num_train_epochs.",
        )


def _eval_strategy(recipe: Recipe) -> str:
    """`eval_strategy`, under either name."""
    training = recipe.training
    strategy: str = training.get("eval_strategy", training.get("evaluation_strategy", "no"))
    return strategy


def _evaluation(recipe: Recipe) -> Iterator[Fault]:
    data, training = recipe.data, recipe.training
    sources = [n for n in ("eval_path", "eval_split", "eval_fraction") if getattr(data, n)]
    for name in sources[1:]:
        yield Fault(key=f"data.{name}", text=f"set beside data.{sources[0]}, expected one of them.")
    if sources:
        return
    if data.eval_rows is not None:
        yield Fault(
            key="data.eval_rows",
            text="set without rows to evaluate on.",
            hint="Set data.eval_split, data.eval_path or data.eval_fraction.",
        )
    strategy = _eval_strategy(recipe)
    if strategy != "no" or training.get("load_best_model_at_end"):
        key = "eval_strategy" if strategy != "no" else "load_best_model_at_end"
        yield Fault(
            key=f"training.{key}",
            text="asks for evaluation, and [data] names no rows to evaluate on.",
            hint="Set data.eval_split, data.eval_path or data.eval_fraction.",
        )


def _best_model(recipe: Recipe) -> Iterator[Fault]:
    training = recipe.training
    strategy = _eval_strategy(recipe)
    if training.get("load_best_model_at_end") and strategy == "no":
        yield Fault(
            key="training.load_best_model_at_end",
            text='got true, and eval_strategy is "no": no best one is ever known.',
            hint='Set eval_strategy = "steps" or "epoch".',
        )


def _packing(recipe: Recipe) -> Iterator[Fault]:
    tokenization, training = recipe.tokenization, recipe.training
    grouped = training.get("group_by_length") or (
        training.get("train_sampling_strategy") == "group_by_length"
    )
    if grouped and (tokenization.packing or tokenization.padding == "max_length"):
        yield Fault(
            key="tokenization.packing" if tokenization.packing else "tokenization.padding",
            text="every row has the same length, so grouping by length does nothing.",
            hint='Set padding = "longest" without packing, or leave the grouping out.',
        )


def _devices(recipe: Recipe) -> Iterator[Fault]:
    training = recipe.training
    use_cpu = training.get("use_cpu", training.get("no_cuda"))
    if use_cpu and recipe.model.device in ("cuda", "mps"):
        yield Fault(
            key="model.device", text=f'got "{recipe.model.device}" beside training.use_cpu = true.'
        )
    for name in sorted(_LAUNCHER_OWNS & set(training)):
        yield Fault(
            key=f"training.{name}",
            text="is set by the launcher.",
            hint="Start with: accelerate launch -m ftcheck run RECIPE",
        )


def _budget(recipe: Recipe) -> Iterator[Fault]:
    if recipe.budget.vram is not None:
        try:
            parse_bytes(recipe.budget.vram)
        except ValueError as error:
            yield Fault(key="budget.vram", text=f"{error}.")


def _accepted(recipe: Recipe) -> Iterator[Fault]:
    for name, reason in recipe.checks.accept.items():
        if not reason.strip():
            yield Fault(key=f"checks.accept.{name}", text="got an empty reason, expected one.")


def _beams(recipe: Recipe) -> Iterator[Fault]:
    arguments: Arguments | Mapping[str, Any] = recipe.generation.arguments
    returned, beams = arguments.get("num_return_sequences", 1), arguments.get("num_beams", 1)
    if returned > beams and not arguments.get("do_sample"):
        yield Fault(
            key="generation.num_return_sequences",
            text=f"got {returned} beside num_beams = {beams} without do_sample = true.",
        )


_RULES: tuple[Callable[[Recipe], Iterator[Fault]], ...] = (
    _bits,
    _precision,
    _steps,
    _evaluation,
    _best_model,
    _packing,
    _devices,
    _budget,
    _accepted,
    _beams,
)
