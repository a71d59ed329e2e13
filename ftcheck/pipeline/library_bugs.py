"""Library bugs that make a run's numbers wrong: which are active here, and what was done.

Each row was measured by running the recipe under the versions named; a range starts at the first
version that was seen bad and ends before the first that was seen good again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet

from ftcheck.environment import installed_version
from ftcheck.recipe import Arguments, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

__all__ = [
    "LIBRARY_BUGS",
    "LOSS_TYPE_MENDS",
    "LibraryBug",
    "Situation",
    "active_bugs",
    "in_range",
    "mend_base_model",
    "mend_biases",
    "mend_torch_load",
    "mend_trainer",
    "quantized_biases",
    "unprepared_again",
    "versions_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What decides whether a bug shows: the recipe, its base model (unwrapped) and the device."""

    recipe: Recipe
    base: PreTrainedModel
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryBug:
    """One library bug.

    Attributes:
        slug: Its name here.
        versions: Distribution to the versions that have it; all must match.
        applies: Whether it shows in a situation, given those versions.
        effect: What goes wrong.
        handled: What ftcheck does about it.
        source: Where it is described.
    """

    slug: str
    versions: Mapping[str, str]
    applies: Callable[[Situation], bool]
    effect: str
    handled: str
    source: str

    def installed(self) -> bool:
        """Whether the installed versions have it."""
        return in_range(self.versions)


def in_range(versions: Mapping[str, str]) -> bool:
    """Whether every distribution is installed in a version of its range."""
    return all(
        (version := installed_version(name)) is not None
        and SpecifierSet(wanted).contains(version, prereleases=True)
        for name, wanted in versions.items()
    )


LOSS_TYPE_MENDS: Mapping[str, str] = {"transformers": ">=5.10"}
"""Versions that count shifted labels where a model has a `loss_type` (source, and a regression)."""


def _always(situation: Situation) -> bool:
    del situation
    return True


def _several_processes(situation: Situation) -> bool:
    del situation
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _divides_by_unshifted_labels(situation: Situation) -> bool:
    helped = getattr(situation.base, "loss_type", None) is not None
    return not (helped and in_range(LOSS_TYPE_MENDS))


def _base_model_on_reload(slug: str, versions: Mapping[str, str], *, source: str) -> LibraryBug:
    """The same of two causes: each has its versions."""
    return LibraryBug(
        slug=slug,
        versions=versions,
        applies=lambda situation: situation.recipe.model.reload_with == "auto",
        effect="AutoModelForCausalLM.from_pretrained(adapter folder) gives the base model",
        handled="the logits are compared with those before saving; a difference stops the run",
        source=source,
    )


def _accumulates(situation: Situation) -> bool:
    return situation.recipe.gradient_accumulation_steps > 1


def _has_all_pad_rows(situation: Situation) -> bool:
    recipe = situation.recipe
    return not (
        recipe.data.drop_empty or recipe.tokenization.packing or recipe.tokenization.append_eos
    )


def _packs_4bit(situation: Situation) -> bool:
    quantization = situation.recipe.quantization or Arguments()
    return (
        situation.device == "cpu"
        and bool(quantization.get("load_in_4bit"))
        and not quantization.get("bnb_4bit_use_double_quant")
    )


def _quantized_under_autocast(situation: Situation) -> bool:
    training = situation.recipe.training
    half = training.get("bf16") or (training.get("fp16") and situation.device != "cpu")
    return situation.recipe.quantization is not None and bool(half)


LIBRARY_BUGS: tuple[LibraryBug, ...] = (
    LibraryBug(
        slug="gpt2-loss-type",
        versions={"transformers": ">=4.49"},
        applies=_divides_by_unshifted_labels,
        effect="the loss of models without a loss_type (GPT-2) is divided by labels counted before "
        "the causal shift: training loss and gradient are (L−1)/L of the true ones for rows of L "
        "labels, and from 4.57 eval_loss too, which then moves with the eval batch size",
        handled="eval_loss is taken as the mean over label tokens; the training loss is left as a "
        'plain script has it; model.loss_type = "ForCausalLM" mends it from transformers 5.10',
        source="huggingface/transformers#46204",
    ),
    LibraryBug(
        slug="accumulated-gradient",
        versions={"transformers": ">=4.46,<4.49"},
        applies=_accumulates,
        effect="losses of accumulated batches are summed where their mean is meant: the gradient "
        "is gradient_accumulation_steps times too large",
        handled="accelerate is told the accumulation steps, and divides each loss by them",
        source="huggingface/transformers#34191",
    ),
    LibraryBug(
        slug="all-pad-rows",
        versions={"transformers": ">=4.46,<4.54"},
        applies=_has_all_pad_rows,
        effect="with SDPA attention a row of pads alone has a gradient some 2,000 times too large",
        handled="nothing; set data.drop_empty = true",
        source="measured: gradient norm 4,520 instead of 2",
    ),
    LibraryBug(
        slug="resume-repeats-data",
        versions={"transformers": ">=4.52,<5", "accelerate": ">=1.7"},
        applies=_always,
        effect="a run that is resumed after its first epoch gets the rows in the order of epoch 1",
        handled="such a resume is refused, unless --inexact-resume is given",
        source="huggingface/transformers#40691",
    ),
    LibraryBug(
        slug="rng-state-refused",
        versions={"transformers": "<4.49", "torch": ">=2.6"},
        applies=_always,
        effect='a resume stops with "Weights only load failed" at rng_state.pth',
        handled="numpy's types in that file are allowed before it is read",
        source="huggingface/transformers#34631",
    ),
    LibraryBug(
        slug="packed-4bit-weights",
        versions={"bitsandbytes": ">=0.49"},
        applies=_packs_4bit,
        effect="on a CPU with AVX512-BF16 an evaluation repacks 4-bit weights in place; training "
        "on then fails, and saving changes the live model",
        handled="the repacking is switched off",
        source="bitsandbytes.nn.Linear4bit.forward, 0.49 to 0.50",
    ),
    LibraryBug(
        slug="biases-rounded-in-place",
        versions={"bitsandbytes": ">=0.44"},
        applies=_quantized_under_autocast,
        effect="a quantized layer that gets half-precision inputs rounds its own bias to that type "
        "for good: the base under the adapter is no longer the one on disk",
        handled="the biases are set back after training",
        source="bitsandbytes.nn.Linear8bitLt.forward, Linear4bit.forward; measured, 0.49–0.50",
    ),
    LibraryBug(
        slug="checkpointing-without-input-gradients",
        versions={"transformers": "<5"},
        applies=lambda situation: situation.recipe.checkpointing,
        effect="reentrant checkpointing over a frozen base: element 0 of tensors does not require "
        "grad",
        handled="input gradients are switched on",
        source="huggingface/peft#137",
    ),
    LibraryBug(
        slug="evaluated-before-training",
        versions={"accelerate": ">=1.14"},
        applies=_several_processes,
        effect="Trainer.evaluate() before train() marks the model as prepared, and training then "
        "runs without DistributedDataParallel: each process follows its own gradient",
        handled="the mark is taken away after such an evaluation",
        source="measured: gradient norm 1.030 instead of 0.902 in two processes",
    ),
    LibraryBug(
        slug="cache-left-off",
        versions={"transformers": ">=5"},
        applies=_always,
        effect="Trainer leaves config.use_cache = False behind: generation without a cache, and "
        "the setting is saved",
        handled="it is set back after training",
        source="measured: True up to 4.57, False from 5.0",
    ),
    _base_model_on_reload(
        "base-model-on-reload",
        {"transformers": ">=5.0,<5.6"},
        source="measured with peft 0.18.1 to 0.21.2",
    ),
    _base_model_on_reload(
        "base-model-on-reload-by-old-peft",
        {"transformers": ">=5.13.1", "peft": "<0.20"},
        source="measured: transformers 5.23.0 with peft 0.19.1; well from peft 0.20 on",
    ),
)


def versions_of(slug: str) -> Mapping[str, str]:
    """The versions that have a bug of the table: distribution to range."""
    return _bug(slug).versions


def active_bugs(situation: Situation) -> tuple[LibraryBug, ...]:
    """Bugs of the installed versions that show in a situation."""
    return tuple(bug for bug in LIBRARY_BUGS if bug.installed() and bug.applies(situation))


def _bug(slug: str) -> LibraryBug:
    return next(bug for bug in LIBRARY_BUGS if bug.slug == slug)


def mend_base_model(model: PreTrainedModel) -> None:
    """Mend `packed-4bit-weights` on a model that was just loaded."""
    if not _bug("packed-4bit-weights").installed():
        return
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantized_biases(model: Any) -> list[tuple[Any, Any]]:
    """Modules of bitsandbytes with copies of their biases, for `mend_biases`."""
    return [
        (module, module.bias.detach().clone())
        for module in model.modules()
        if type(module).__module__.startswith("bitsandbytes.")
        and getattr(module, "bias", None) is not None
    ]


def mend_biases(kept: list[tuple[Any, Any]]) -> None:
    """Mend `biases-rounded-in-place`: set back what `quantized_biases` kept."""
    for module, bias in kept:
        module.bias.data = bias


def mend_trainer(trainer: Trainer) -> None:
    """Mend `accumulated-gradient` on a trainer that has not started."""
    if _bug("accumulated-gradient").installed():
        trainer.model_accepts_loss_kwargs = False
        trainer.accelerator.gradient_accumulation_steps = trainer.args.gradient_accumulation_steps


@contextlib.contextmanager
def unprepared_again(trainer: Trainer) -> Iterator[None]:
    """Mend `evaluated-before-training`: at exit the model is as unprepared as it was before."""
    model, accelerator = trainer.model, trainer.accelerator
    was_prepared = getattr(model, "_is_accelerate_prepared", False)
    try:
        yield
    finally:
        if not was_prepared and getattr(model, "_is_accelerate_prepared", False):
            accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # the forward of autocast
            del model._is_accelerate_prepared
            accelerator._models = [kept for kept in accelerator._models if kept is not model]


def mend_torch_load() -> None:
    """Mend `rng-state-refused` in this process, before a checkpoint is read."""
    if not _bug("rng-state-refused").installed():
        return
    import numpy as np
    import torch

    multiarray = getattr(np, "_core", None) or np.core
    torch.serialization.add_safe_globals(
        [
            np.ndarray,
            np.dtype,
            type(np.dtype(np.uint32)),
            multiarray.multiarray._reconstruct,
        ]
    )
