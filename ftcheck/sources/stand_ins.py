"""What answers names on the hub, where they cannot be had."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ftcheck.assets import model_dir
from ftcheck.sources.hub import in_cache
from ftcheck.sources.published import PublishedModel, published_model
from ftcheck.sources.published_data import stand_in_rows, write_stand_in

__all__ = ["CHAT_TEMPLATE", "StandIns"]

_CHATS: Final = re.compile(r"instruct|chat|qwen|-it$", re.IGNORECASE)
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, with the marks by which the tokens of the assistant are told from others."""
_NONE_SPARE: Final = ("gpt2", "llama", "mistral", "gemma")
"""Types whose published embeddings have a row for each token of their tokenizer and no more."""
_SPARE: Final = 64
_SPECIALS: Final[tuple[tuple[str, str | None, str, str | None, tuple[str, ...]], ...]] = (
    (
        "llama-3",
        "<|begin_of_text|>",
        "<|end_of_text|>",
        None,
        (
            "<|finetune_right_pad_id|>",
            "<|eot_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|reserved_special_token_0|>",
        ),
    ),
    ("llama|mistral", "<s>", "</s>", None, ("<unk>",)),
    (
        "qwen.*-base|qwen2.5-[0-9.]+b$",
        None,
        "<|endoftext|>",
        "<|endoftext|>",
        ("<|im_start|>", "<|im_end|>"),
    ),
    ("qwen", None, "<|im_end|>", "<|endoftext|>", ("<|im_start|>",)),
    ("gemma", "<bos>", "<eos>", "<pad>", ("<start_of_turn>", "<end_of_turn>")),
    ("opt-", "</s>", "</s>", "<pad>", ("<unk>",)),
    ("pythia", "<|endoftext|>", "<|endoftext|>", None, ("<|padding|>",)),
    ("phi-3", "<s>", "<|endoftext|>", "<|endoftext|>", ("<|user|>", "<|assistant|>", "<|end|>")),
)
"""Part of a name; its BOS, EOS and pad token and further special ones, as published."""
_LOADERS: Final = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}


class StandIns:
    """Answers names of models and data sets.

    Attributes:
        used: Whether a model, and whether data, was answered.

    Args:
        folder: Empty, for stand-ins that are made.
        given: Names on the hub to folders or files.
        assume: Told what stands in for what.
    """

    def __init__(
        self, folder: Path, given: Mapping[str, str], assume: Callable[[str], None]
    ) -> None:
        self._folder, self._given, self._assume = folder, dict(given), assume
        self._said: set[str] = set()
        self.used = {"model": False, "data": False}

    def _say(self, name: str, sentence: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._assume(sentence)

    def model(self, name: str) -> str:
        """Where a name is answered: a stand-in, or itself."""
        if name in self._given:
            self.used["model"] = True
            self._say(name, f"{name}: {self._given[name]} stands in for it")
            return self._given[name]
        if Path(name).exists() or in_cache(name, "config.json"):
            return name
        published = published_model(name)
        return name if published is None else self._published(name, published)

    def _published(self, name: str, published: PublishedModel) -> str:
        """A small model of a published architecture, with the embedded tokenizer."""
        folder = self._folder / name.replace("/", "--")
        self.used["model"] = True
        if not folder.exists():
            _write_small(folder, name, published)
            self._say(
                name,
                f"{name} is not on this machine: a small model of its architecture with random "
                "weights stands in for it, with the embedded tokenizer",
            )
        return str(folder)

    def data(
        self, load: Callable[..., Any], path: str, name: str | None, how: dict[str, Any]
    ) -> Any:
        """Rows in place of those of a data set; `None` where nothing stands in for it.

        Args:
            load: `datasets.load_dataset`.
            path: Of the data set.
            name: Of its configuration.
            how: Its other arguments; those that are about splits and streaming are kept.
        """
        kept = {key: how[key] for key in ("split", "streaming") if how.get(key) is not None}
        if path in self._given:
            self.used["data"] = True
            self._say(path, f"{path}: {self._given[path]} stands in for it")
            return _loaded(load, Path(self._given[path]), kept)
        shape = stand_in_rows(f"{path} {name or ''}".strip())
        if shape is None:
            return None
        self.used["data"] = True
        self._say(path, f"the data set {path} could not be had: the embedded text stands in for it")
        files = write_stand_in(shape, self._folder / "data" / path.replace("/", "--"))
        return load("json", data_files=files, **kept)

    def answers(self, path: str) -> bool:
        """Whether the user gave something for a name."""
        return path in self._given


def _loaded(load: Callable[..., Any], place: Path, kept: dict[str, Any]) -> Any:
    if place.is_dir():
        return load(str(place), **kept)
    kind = _LOADERS.get(place.suffix, "json")
    files = dict.fromkeys(("train", "validation", "test"), str(place))
    return load(kind, data_files=files, **kept)


def _write_small(folder: Path, name: str, published: PublishedModel) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from ftcheck.sources.proxy import write_proxy

    tokenizer = AutoTokenizer.from_pretrained(str(model_dir()))
    for part, bos, eos, pad, more in _SPECIALS:
        if re.search(part, name.lower()):
            given = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
            tokenizer.add_special_tokens({key: token for key, token in given.items() if token})
            tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
            tokenizer.bos_token = bos
            break
    if _CHATS.search(name):
        marks = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
        tokenizer.add_special_tokens(marks)
        tokenizer.chat_template = CHAT_TEMPLATE
    config = AutoConfig.for_model(published.model_type, **published.config)
    config.vocab_size = len(tokenizer) + (0 if published.model_type in _NONE_SPARE else _SPARE)
    for one in ("bos", "eos", "pad"):
        setattr(config, f"{one}_token_id", getattr(tokenizer, f"{one}_token_id"))
    tokenizer.model_max_length = min(
        getattr(config, "max_position_embeddings", None) or 1024, 131072
    )
    write_proxy(config, folder, trust_remote_code=False)
    tokenizer.save_pretrained(folder)
