"""Model folders as people have them: the embedded model, with one thing that is different."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftcheck.assets import model_dir

__all__ = ["OWN_CODE", "other_config", "other_tokenizer", "other_weights", "own_code", "words"]

OWN_CODE = '''"""A GPT-2 with code of its own."""

import random
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel


class OwnConfig(GPT2Config):
    model_type = "own-gpt2"


class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
BODY
'''
_CLASS = "OwnModel"


def _copied(folder: Path) -> Path:
    shutil.copytree(model_dir(), folder, dirs_exist_ok=True)
    return folder


def _edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    held = json.loads(file.read_text(encoding="utf-8"))
    change(held)
    file.write_text(json.dumps(held), encoding="utf-8")


def other_config(folder: Path, **fields: Any) -> None:
    """With other fields in its configuration."""
    _edit(_copied(folder) / "config.json", lambda held: held.update(fields))


def other_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None], **fields: Any) -> None:
    """With a changed `tokenizer.json`, and other fields in `tokenizer_config.json`; the value
    `None` takes a field out."""
    _copied(folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    _edit(folder / "tokenizer.json", change)

    def configured(held: dict[str, Any]) -> None:
        held |= {"tokenizer_class": "PreTrainedTokenizerFast", **fields}
        for name in [name for name, value in held.items() if value is None]:
            del held[name]

    _edit(folder / "tokenizer_config.json", configured)


def other_weights(folder: Path, change: Callable[[Any], None], **config: Any) -> None:
    """With a changed model; fields of the configuration are set before it is made."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    held = AutoConfig.from_pretrained(str(model_dir()), **config)
    model = AutoModelForCausalLM.from_pretrained(str(model_dir()), config=held)
    change(model)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(model_dir())).save_pretrained(folder)


def own_code(folder: Path, body: str) -> None:
    """With code of its own: the body of a class over GPT-2.

    The name of the module is that of the folder, since transformers caches modules by name.
    """
    module = f"modeling_{folder.name}"
    other_config(
        folder,
        model_type="own-gpt2",
        architectures=[_CLASS],
        auto_map={
            "AutoConfig": f"{module}.OwnConfig",
            "AutoModelForCausalLM": f"{module}.{_CLASS}",
        },
    )
    lines = "\n".join(f"    {line}".rstrip() for line in body.strip("\n").splitlines())
    code = OWN_CODE.replace("BODY", f"\n{lines}")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")


def words(folder: Path, ids: dict[str, Any], unknown: Any) -> None:
    """With a tokenizer of its own code, which looks whole words up in a table."""
    _copied(folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer.json"):
        (folder / name).unlink()
    module = f"tokenization_{folder.name}"
    table = {**ids, "<|endoftext|>": 2047}
    (folder / "words.json").write_text(json.dumps(table), encoding="utf-8")
    (folder / f"{module}.py").write_text(WORDS.replace("UNKNOWN", repr(unknown)), encoding="utf-8")
    _edit(
        folder / "tokenizer_config.json",
        lambda held: held.update(
            tokenizer_class="WordTokenizer",
            auto_map={"AutoTokenizer": [f"{module}.WordTokenizer", None]},
        ),
    )


WORDS = '''"""A tokenizer of whole words."""

import json

from transformers import PreTrainedTokenizer


class WordTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "words.json"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file, **more):
        with open(vocab_file, encoding="utf-8") as opened:
            self._words = json.load(opened)
        self._names = {number: word for word, number in self._words.items()}
        super().__init__(**more)

    @property
    def vocab_size(self):
        return len(self._words)

    def get_vocab(self):
        return dict(self._words)

    def _tokenize(self, text, **_):
        return text.split()

    def _convert_token_to_id(self, token):
        return self._words.get(token, UNKNOWN)

    def _convert_id_to_token(self, index):
        return self._names.get(index, "?")

    def save_vocabulary(self, save_directory, filename_prefix=None):
        return ()
'''
