"""Columns of data sets that people fine-tune on, for those that are not on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ftcheck.assets import eval_file, train_file

__all__ = ["stand_in_rows", "write_stand_in"]

_ASKED: Final = {"role": "user", "content": "{question}"}
_CHAT: Final = [_ASKED, {"role": "assistant", "content": "{text}"}]
_BAD_CHAT: Final = [_ASKED, {"role": "assistant", "content": "{head}"}]

_SHAPES: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    (
        "alpaca",
        {
            "instruction": "{question}",
            "input": "",
            "output": "{text}",
            "text": "### Instruction:\n{question}\n\n### Response:\n{text}",
        },
    ),
    (
        "dolly",
        {"instruction": "{question}", "context": "", "response": "{text}", "category": "open_qa"},
    ),
    (
        "ultrafeedback|hh-rlhf-helpful|-binarized",
        {"chosen": _CHAT, "rejected": _BAD_CHAT, "score_chosen": 8.0, "score_rejected": 4.0},
    ),
    (
        "hh-rlhf",
        {
            "chosen": "\n\nHuman: {question}\n\nAssistant: {text}",
            "rejected": "\n\nHuman: {question}\n\nAssistant: {head}",
        },
    ),
    (
        "orca_dpo|dpo",
        {
            "system": "",
            "prompt": "{question}",
            "question": "{question}",
            "chosen": "{text}",
            "rejected": "{head}",
        },
    ),
    (
        "capybara|ultrachat|no_robots|smoltalk|oasst|lima|dolly-15k-oai",
        {"messages": _CHAT, "source": "stand-in"},
    ),
    ("guanaco", {"text": "### Human: {question}### Assistant: {text}"}),
    ("tldr", {"prompt": "{question}\n\nTL;DR:", "completion": " {text}"}),
    ("gsm8k", {"question": "{question}", "answer": "{text}"}),
    ("sql-create-context", {"question": "{question}", "context": "{head}", "answer": "{text}"}),
    ("quotes", {"quote": "{text}", "author": "{name}", "tags": ["code"]}),
    ("samsum|dialogsum", {"id": "{number}", "dialogue": "{text}", "summary": "{head}"}),
    ("cnn_dailymail", {"id": "{number}", "article": "{text}", "highlights": "{head}"}),
    ("xsum", {"id": "{number}", "document": "{text}", "summary": "{head}"}),
    ("billsum", {"title": "{name}", "text": "{text}", "summary": "{head}"}),
    (
        "imdb|rotten_tomatoes|yelp|ag_news|emotion|sst2",
        {"text": "{text}", "sentence": "{text}", "label": "{parity}"},
    ),
    ("(^|/)c4", {"text": "{text}", "timestamp": "", "url": ""}),
    ("wikitext|text|corpus|books|stories|pile|fineweb", {"text": "{text}"}),
)
"""Part of a name to the columns of its rows: as their cards on the hub show them. What is in braces
is made of a Python function of the embedded text."""

_SPLITS: Final = {
    "train": train_file,
    "validation": eval_file,
    "test": eval_file,
    "train_sft": train_file,
    "test_sft": eval_file,
    "train_prefs": train_file,
    "test_prefs": eval_file,
}


def stand_in_rows(name: str) -> Mapping[str, Any] | None:
    """Columns of a data set on the hub; `None` where they are not known."""
    return next((shape for part, shape in _SHAPES if re.search(part, name.lower())), None)


def write_stand_in(shape: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write rows with those columns, made of the embedded text.

    Returns:
        Split to file, for `load_dataset("json", data_files=...)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, source in _SPLITS.items():
        if split.partition("_")[0] != split and "messages" not in shape and "chosen" not in shape:
            continue
        texts = [json.loads(line)["text"] for line in source().read_text("utf-8").splitlines()]
        file = folder / f"{split}.jsonl"
        rows = (json.dumps(_filled(shape, _parts(n, text))) for n, text in enumerate(texts))
        file.write_text("\n".join(rows), encoding="utf-8")
        files[split] = str(file)
    return files


def _parts(number: int, text: str) -> dict[str, Any]:
    head = text.splitlines()[0]
    found = re.search(r"(?:def|class) (\w+)", text)
    name = found.group(1) if found else f"part_{number}"
    return {
        "text": text,
        "head": head,
        "name": name,
        "number": str(number),
        "parity": number % 2,
        "question": f"Write {name} in Python.",
    }


def _filled(value: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(inner, parts) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, parts) for inner in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\{(\w+)\}", value)
    if whole:
        return parts[whole.group(1)]
    return re.sub(r"\{(\w+)\}", lambda found: str(parts[found.group(1)]), value)
