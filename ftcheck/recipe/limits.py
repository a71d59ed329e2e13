"""Ranges of Hugging Face arguments, for values that the libraries accept and that cannot be meant.

Source of each: the argument's documentation, or what a run does with the value. A learning rate of
0 is left to the checks: it is a legal run that learns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotated_types import Ge, Gt, Interval

__all__ = ["LIMITS"]

_ONE_OR_MORE = Ge(1)
_NOT_NEGATIVE = Ge(0)
_SEED = Interval(ge=0, lt=2**32)  # numpy.random.seed takes no more

LIMITS: Mapping[str, Any] = {
    "training.per_device_train_batch_size": _ONE_OR_MORE,
    "training.per_device_eval_batch_size": _ONE_OR_MORE,
    "training.gradient_accumulation_steps": _ONE_OR_MORE,
    "training.eval_accumulation_steps": _ONE_OR_MORE,
    "training.num_train_epochs": Gt(0),
    "training.max_steps": Ge(-1),
    "training.learning_rate": _NOT_NEGATIVE,
    "training.weight_decay": _NOT_NEGATIVE,
    "training.adam_beta1": Interval(ge=0, lt=1),
    "training.adam_beta2": Interval(ge=0, lt=1),
    "training.adam_epsilon": Gt(0),
    "training.max_grad_norm": _NOT_NEGATIVE,
    "training.warmup_ratio": Interval(ge=0, le=1),
    "training.warmup_steps": _NOT_NEGATIVE,
    "training.label_smoothing_factor": Interval(ge=0, lt=1),
    "training.logging_steps": Gt(0),
    "training.eval_steps": Gt(0),
    "training.save_steps": Gt(0),
    "training.save_total_limit": _ONE_OR_MORE,
    "training.dataloader_num_workers": _NOT_NEGATIVE,
    "training.seed": _SEED,
    "training.data_seed": _SEED,
    "lora.r": _ONE_OR_MORE,
    "lora.lora_alpha": _NOT_NEGATIVE,
    "lora.lora_dropout": Interval(ge=0, lt=1),
    "quantization.llm_int8_threshold": _NOT_NEGATIVE,
    "generation.max_length": _ONE_OR_MORE,
    "generation.max_new_tokens": _ONE_OR_MORE,
    "generation.min_new_tokens": _NOT_NEGATIVE,
    "generation.num_beams": _ONE_OR_MORE,
    "generation.num_return_sequences": _ONE_OR_MORE,
    "generation.temperature": Gt(0),
    "generation.top_k": _NOT_NEGATIVE,
    "generation.top_p": Interval(gt=0, le=1),
    "generation.min_p": Interval(ge=0, le=1),
    "generation.repetition_penalty": Gt(0),
}
"""`section.argument` to the range of its value."""
