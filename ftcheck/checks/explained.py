"""Exceptions that people meet, to what mends them."""

from __future__ import annotations

import re
from typing import Final, Literal

from ftcheck.checks.facts import Failure

__all__ = [
    "EXPLAINED",
    "NO_PAD_TOKEN",
    "explained",
    "next_step_of",
    "said_elsewhere",
    "sentence_of",
]

EXPLAINED: Final[tuple[tuple[str, str], ...]] = (
    ("did not return a loss", "Give the rows labels, or use a collator that makes them."),
    ("Expected all tensors to be on the same device", "Move inputs to model.device."),
    (
        "does not require grad and does not have a grad_fn",
        "Nothing that is trained reaches the loss: call model.enable_input_require_grads() with "
        "checkpointing, load adapters with is_trainable=True, or see whether everything is frozen.",
    ),
    ("unscale FP16 gradients", "Cast trained parameters to float32: fp16=True keeps them so."),
    ("doesn't support bf16", "Use fp16 on cards before Ampere, and neither on a CPU of old."),
    (
        "index out of range in self",
        "A token id is beyond the embedding, or a row longer than the context.",
    ),
    ("device-side assert", "A token id or a label is out of range; run on the CPU to see which."),
    ("Asking to pad but the tokenizer", "Set tokenizer.pad_token = tokenizer.eos_token."),
    ("does not have a pad token", "Set tokenizer.pad_token = tokenizer.eos_token."),
    ("excessive nesting", "Use DataCollatorForSeq2Seq, which pads labels, too."),
    ("No columns in the dataset match", "Tokenize the rows, or set remove_unused_columns=False."),
    ("num_samples=0", "The training set is empty."),
    ("Target modules", "Name modules of this model in target_modules."),
    ("purely quantized", "Put an adapter on the quantized model."),
    ("is not supported for `8-bit`", "Leave a quantized model where it was loaded."),
    ("is not supported for `4-bit`", "Leave a quantized model where it was loaded."),
    (
        "CUDA Setup failed",
        "Install the bitsandbytes wheel for torch's CUDA version: python -m bitsandbytes says.",
    ),
    (
        "CUDA is required but not available for bitsandbytes",
        "Upgrade to transformers 4.57 and bitsandbytes 0.49, which quantize on a CPU.",
    ),
    ("Some modules are dispatched on the CPU", 'Set device_map={"": 0}, or a smaller model.'),
    ("metric_for_best_model", 'Set metric_for_best_model="eval_loss".'),
    ("Weights only load failed", "Upgrade transformers to 4.49 or later."),
    ("Can't find a valid checkpoint", "Give a folder checkpoint-N with the adapter in it."),
    ("evaluation_strategy", "It is called eval_strategy since transformers 4.46."),
    ("overwrite_output_dir", "It was removed in transformers 5: leave it out."),
    ("no_cuda", "It is called use_cpu."),
    ("save_safetensors", "It was removed in transformers 5: leave it out."),
    ("group_by_length", 'It is train_sampling_strategy="group_by_length" since transformers 5.5.'),
    ("logging_dir", "It was removed in transformers 5.15: set TENSORBOARD_LOGGING_DIR."),
    ("warmup_ratio", "It was removed in transformers 5.15: warmup_steps takes a share, too."),
    ("load_in_8bit", "Give quantization_config=BitsAndBytesConfig(load_in_8bit=True)."),
    ("load_in_4bit", "Give quantization_config=BitsAndBytesConfig(load_in_4bit=True)."),
    ("unexpected keyword argument 'tokenizer'", "It is called processing_class."),
    ("HybridCache", "Upgrade peft to 0.18 or later for transformers 5."),
    ("couldn't connect to", "Load the model once with a network, or give its folder."),
    ("429", "The hub refuses more requests: wait, or set HF_HUB_OFFLINE=1."),
    ("Target -", "A label is negative but not −100."),
    ("is out of bounds", "A label is no token of the vocabulary."),
    (
        "ListConfig is not JSON",
        "Make plain lists of Hydra's: OmegaConf.to_container(config), or "
        "_convert_: all where it instantiates.",
    ),
    ("expected scalar type Long", "Labels must be int64."),
)
"""Part of a message to a sentence; from the failures that users report, by their exact texts."""


def explained(failure: Failure) -> str:
    """What mends an exception; empty where it is not known."""
    for part, sentence in EXPLAINED:
        if re.search(re.escape(part), failure.text, re.IGNORECASE):
            return sentence
    return ""


NO_PAD_TOKEN: Final = ("does not have a padding token", "does not have a pad token")
"""Parts of what tokenizers say, and what collators say of rows that are lists (transformers,
`tokenization_utils_base.py` and `data_collator.py`)."""

_SAID_ALWAYS: Final = (
    "Target modules",
    "lora.target_modules",
    "generation.prompts",
    "no EOS token",
    "tokenization.max_length",
)
_SAID_OF_RUNS: Final = ("same device",)
_SAID_OF_BATCHES: Final = ("did not return a loss", *NO_PAD_TOKEN, "same device")
"""Parts of messages that have checks of their own, by where those look for them: FT301, FT905,
FT213 and FT216; FT601; FT201, FT213 and FT601."""


def said_elsewhere(failure: Failure, *, during: Literal["building", "running", "batches"]) -> bool:
    """Whether a check of its own says what failed.

    Args:
        failure: What failed.
        during: Building the subject, the run of a script, or batches and steps of training.
    """
    parts = {"building": (), "running": _SAID_OF_RUNS, "batches": _SAID_OF_BATCHES}[during]
    return any(part in failure.text for part in (*_SAID_ALWAYS, *parts))


def sentence_of(failure: Failure) -> tuple[str, str]:
    """The first line of a message, without the place and the key that it begins with, and the key.

    Errors of the pipeline read `file:line: section.key: what was found.`
    """
    line = failure.text.splitlines()[0].rstrip(".")
    found = re.match(r"(?:.*?: )?([a-z_]+(?:\.[a-z_]+)?): (.*)", line)
    if failure.kind == "InputError" and found is not None:
        return found.group(2), found.group(1)
    return line, ""


def next_step_of(failure: Failure) -> str:
    """What an error of the pipeline says to do: its second line."""
    lines = failure.text.splitlines()
    return lines[1] if failure.kind == "InputError" and len(lines) > 1 else ""
