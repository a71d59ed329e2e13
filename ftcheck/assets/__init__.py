"""The embedded default: a tiny pretrained GPT-2 and the text to fine-tune it on.

This module only says where the files lie and needs nothing but the standard library. How they
were made is in `ftcheck.assets.corpus` (the texts) and `ftcheck.assets.build` (the model).
"""

from __future__ import annotations

import gzip
from pathlib import Path

__all__ = [
    "END_OF_TEXT",
    "eval_file",
    "manifest_file",
    "model_dir",
    "pretraining_text",
    "text_dir",
    "train_file",
]

END_OF_TEXT = "<|endoftext|>"
"""The tokenizer's one special token; it also parts the documents of the pretraining text."""

_HERE = Path(__file__).resolve().parent


def model_dir() -> Path:
    """The folder with the model and its tokenizer, as `from_pretrained` takes it."""
    return _HERE / "tiny-gpt2"


def text_dir() -> Path:
    """The folder with the texts and their licence."""
    return _HERE / "text"


def train_file() -> Path:
    """The fine-tuning rows: JSON lines with the one key `text`, a Python function each."""
    return text_dir() / "finetune-train.jsonl"


def eval_file() -> Path:
    """The held-out rows: as `train_file`, from modules that give no training row."""
    return text_dir() / "finetune-eval.jsonl"


def manifest_file() -> Path:
    """The sums of all stored files, and with which versions they were made."""
    return text_dir() / "MANIFEST.json"


def pretraining_text() -> str:
    """Reads the text that the model was pretrained on.

    Returns:
        Prose documents of one-line paragraphs, then some functions, all parted by `END_OF_TEXT`.
    """
    return gzip.decompress((text_dir() / "pretrain.txt.gz").read_bytes()).decode("utf-8")
