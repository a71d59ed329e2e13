"""Step 5, training: `transformers.Trainer`, watched."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.errors import InputError
from ftcheck.pipeline.devices import choose_device
from ftcheck.pipeline.library_bugs import mend_trainer, unprepared_again
from ftcheck.pipeline.tokens import IGNORED_LABEL, TokenizedData
from ftcheck.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn
    from transformers import (
        PreTrainedTokenizerBase,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

__all__ = [
    "Evaluation",
    "build_arguments",
    "build_collator",
    "build_trainer",
    "cut_short",
    "evaluate",
    "rng_kept",
]

_OURS = {"report_to": "none", "logging_steps": 10, "label_names": ["labels"]}
"""Arguments that a recipe leaves open and that ftcheck does not leave to the library: no report to
services that happen to be installed; a loss curve; an eval_loss under every version of peft."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Loss on the evaluation rows.

    Attributes:
        loss: Mean negative log-likelihood over the label tokens of all rows, in nats.
        perplexity: Its exponential; infinite where that overflows.
        tokens: Label tokens that were predicted.
    """

    loss: float
    perplexity: float
    tokens: int


def build_arguments(recipe: Recipe, output_dir: Path) -> TrainingArguments:
    """`TrainingArguments` of a recipe.

    Raises:
        InputError: The class refuses a value; its own words are in the message.
    """
    from transformers import TrainingArguments

    given = {**_OURS, **recipe.training, "output_dir": str(output_dir), "disable_tqdm": True}
    if choose_device(recipe) == "cpu":
        given[_cpu_argument()] = True
    try:
        return TrainingArguments(**given)
    except (ValueError, TypeError, ImportError) as error:
        raise _refused(recipe, error) from error


def _refused(recipe: Recipe, error: Exception) -> InputError:
    """What `TrainingArguments` or `Trainer` say of a value, at the line of the argument named."""
    text = str(error).split("\n")[0].rstrip(".")
    named = [name for name in recipe.training if name in text]
    key = f"training.{named[0]}" if named else "training"
    return recipe.fault(key, text, "Change the value, or leave it out.")


@cache
def _cpu_argument() -> str:
    from ftcheck.recipe.hf_fields import fields

    return "use_cpu" if "use_cpu" in fields("training") else "no_cuda"


def build_trainer(
    model: nn.Module,
    tokens: TokenizedData,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    output_dir: Path,
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trainer:
    """A `Trainer` for a recipe, ready to train.

    Raises:
        InputError: `Trainer` refuses an argument; its own words are in the message.

    Args:
        model: What `wrap` returned.
        tokens: What `tokenize` returned.
        tokenizer: The tokenizer of both.
        recipe: The recipe.
        output_dir: Folder of the checkpoints.
        callbacks: Added to the Trainer's own.
    """
    from transformers.trainer_callback import PrinterCallback

    arguments = build_arguments(recipe, output_dir)
    try:
        trainer: Trainer = _trainer_class()(
            model=model,
            args=arguments,
            train_dataset=tokens.train,
            eval_dataset=tokens.evaluation,
            data_collator=build_collator(tokenizer, recipe),
            callbacks=list(callbacks),
        )
    except (ValueError, ImportError, RuntimeError) as error:
        raise _refused(recipe, error) from error
    trainer.remove_callback(PrinterCallback)
    mend_trainer(trainer)
    return trainer


def build_collator(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Any:
    """What makes a batch of rows: pads them where `padding = "longest"`."""
    from transformers import DataCollatorForSeq2Seq, default_data_collator

    settings = recipe.tokenization
    if settings.packing or settings.padding == "max_length":
        return default_data_collator
    # Named for Seq2Seq, it is the collator that pads labels as well as inputs.
    label_pad = IGNORED_LABEL if settings.labels == "pads_masked" else tokenizer.pad_token_id
    return DataCollatorForSeq2Seq(tokenizer, padding="longest", label_pad_token_id=label_pad)


@cache
def _trainer_class() -> type[Trainer]:
    """`Trainer` whose `eval_loss` is the mean over label tokens, under every version.

    The library's mean is one over batches, weighted by rows, of a loss that some versions divide
    by the wrong count (`gpt2-loss-type`), so that it moves with the eval batch size.
    """
    import torch
    from transformers import Trainer

    class TokenMeanTrainer(Trainer):
        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            self._loss_sum = torch.zeros((), dtype=torch.float64)
            self._label_count = 0
            output = super().evaluation_loop(*args, **kwargs)
            key = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
            if key in output.metrics:
                output.metrics[key] = self._token_mean()
            return output

        def prediction_step(
            self, model: Any, inputs: Any, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any, Any]:
            inputs, repeated = self._without_repeats(inputs)
            accepts = getattr(self, "model_accepts_loss_kwargs", True)
            self.model_accepts_loss_kwargs = False  # the model then returns its plain mean
            try:
                step = super().prediction_step(model, inputs, *args, **kwargs)
            finally:
                self.model_accepts_loss_kwargs = accepts
            labels = inputs.get("labels")
            if step[0] is not None and labels is not None and not repeated:
                count = int((labels[..., 1:] != IGNORED_LABEL).sum())
                if count:  # a batch without labels has a mean of NaN
                    self._loss_sum += step[0].double().cpu() * count
                    self._label_count += count
            result: tuple[Any, Any, Any] = step
            return result

        def _without_repeats(self, inputs: Any) -> tuple[Any, bool]:
            """Rows of this process without those that fill up the last batch of all processes.

            accelerate repeats rows from the front so that every process gets a batch. Where a
            process has nothing else, it keeps one row, and the second value is true.
            """
            state, rank = self.accelerator.gradient_state, self.args.process_index
            if self.args.world_size == 1 or not state.end_of_dataloader or state.remainder <= 0:
                return inputs, False
            size = next(iter(inputs.values())).shape[0]
            own = min(max(state.remainder - rank * size, 0), size)
            return {name: value[: max(own, 1)] for name, value in inputs.items()}, own == 0

        def _token_mean(self) -> float:
            sums = torch.stack([self._loss_sum, torch.tensor(float(self._label_count)).double()])
            if self.args.world_size > 1:
                sums = self.accelerator.reduce(sums.to(self.args.device), reduction="sum").cpu()
            self.label_count = int(sums[1])
            return float(sums[0] / sums[1]) if sums[1] else math.nan

    return TokenMeanTrainer


def cut_short(trainer: Trainer, steps: int) -> None:
    """Let a trainer of people's own make a few steps, and save and evaluate nothing meanwhile.

    Args:
        trainer: Changed in place; `EarlyStoppingCallback`, which insists on evaluations, is taken
            out.
        steps: Optimizer steps.
    """
    arguments = trainer.args
    arguments.max_steps = steps
    for name in ("eval_strategy", "evaluation_strategy", "save_strategy"):
        if hasattr(arguments, name):
            setattr(arguments, name, type(getattr(arguments, name))("no"))
    arguments.load_best_model_at_end = False
    arguments.eval_on_start = False
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "EarlyStoppingCallback":
            trainer.remove_callback(callback)


def evaluate(trainer: Trainer) -> Evaluation | None:
    """Evaluate without leaving a trace: random generators, log and model are as before.

    Returns:
        The loss, or `None` where the trainer has no evaluation rows.
    """
    if trainer.eval_dataset is None:
        return None
    history = list(trainer.state.log_history)
    with rng_kept(), unprepared_again(trainer):
        metrics = trainer.evaluate()
    trainer.state.log_history = history
    loss = float(metrics["eval_loss"])
    return Evaluation(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        tokens=int(getattr(trainer, "label_count", 0)),
    )


@contextlib.contextmanager
def rng_kept() -> Iterator[None]:
    """Restore the states of Python's, numpy's and torch's random generators at exit."""
    import random

    import numpy as np
    import torch

    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
