"""Trains the byte-level BPE tokenizer and stores it in a form that old and new readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.assets import END_OF_TEXT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCAB_SIZE = 2048
MAX_LENGTH = 256


def train_tokenizer(texts: list[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Trains a GPT-2 style byte-level BPE tokenizer.

    All 256 bytes are in the alphabet, so any text comes back as it was. `END_OF_TEXT` takes the
    last id, as in GPT-2: an end or pad id of 0 is too easily taken for "not set".

    Args:
        texts: What to learn the merges from.
        vocab_size: Number of ids, the special token among them.

    Returns:
        The trained tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    # In the vocabulary proper as well as an added token: readers of vocab.json expect it there.
    state["model"]["vocab"][END_OF_TEXT] = len(state["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def portable_state(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of tokenizer.json with merges as "a b", which tokenizers 0.19 needs too."""
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    merges = state["model"]["merges"]
    state["model"]["merges"] = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in merges
    ]
    return state


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, vocab.json, merges.txt and tokenizer_config.json.

    Args:
        tokenizer: The trained tokenizer.
        folder: An existing folder.
    """
    state = portable_state(tokenizer)
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": END_OF_TEXT,
    }
    specials = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    write_json(folder / "tokenizer.json", state)
    write_json(folder / "vocab.json", state["model"]["vocab"], indent=None)
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", specials)
    merges = "\n".join(["#version: 0.2", *state["model"]["merges"], ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Writes JSON with a newline at the end, the same bytes on every system."""
    text = json.dumps(content, ensure_ascii=False, indent=indent) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
