"""Labels, collators and caches of the data."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from ftcheck.assets import model_dir
from tests.regression.outcomes import ELSEWHERE, by_version, said_by
from tests.regression.plain import base, row, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(str(model_dir()))
    found.pad_token = found.eos_token
    return found


def collated(labels: list[int]) -> list[int]:
    from transformers import DataCollatorForLanguageModeling

    ids = [5, 6, 7, tokenizer().eos_token_id]
    rows = [{"input_ids": ids, "attention_mask": [1] * 4, "labels": labels}]
    batch = DataCollatorForLanguageModeling(tokenizer(), mlm=False)(rows)
    found: list[int] = batch["labels"][0].tolist()
    return found


@by_version((ELSEWHERE, [5, 6, 7, -100]))
def test_the_collator_masks_eos_with_the_pads() -> list[int]:
    return collated([5, 6, 7, 2047])


@by_version((ELSEWHERE, [5, 6]))
def test_the_collator_replaces_masked_labels() -> list[int]:
    return collated([-100, -100, 7, 2047])[:2]


@by_version((ELSEWHERE, re.compile("ValueError: .*excessive nesting")))
def test_the_padding_collator_and_labels_of_unequal_length() -> str:
    from transformers import DataCollatorWithPadding

    collate = DataCollatorWithPadding(tokenizer())
    return said_by(lambda: collate([row(4), row(6)]))


@by_version((ELSEWHERE, re.compile("ValueError: Asking to pad but the tokenizer does not have")))
def test_a_batch_without_a_pad_token() -> str:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(str(model_dir()))
    return said_by(lambda: found(["a", "a longer one"], padding=True))


@by_version((ELSEWHERE, "IndexError: index out of range in self"))
def test_an_id_beyond_the_embedding(tmp_path: Path) -> str:
    beyond = row(4) | {"input_ids": [1, 2, 3, 2048]}
    return said_by(trainer(tmp_path, base(), [beyond]).train)


@by_version(
    ({"transformers": "<4.46"}, re.compile("^IndexError: Invalid key: . is out of bounds")),
    (ELSEWHERE, re.compile("^ValueError: No columns in the dataset match")),
)
def test_rows_before_they_are_tokenized(tmp_path: Path) -> str:
    from datasets import Dataset

    one = trainer(tmp_path, base())
    one.train_dataset = Dataset.from_dict({"text": ["a", "b"]})
    return said_by(one.train)


@by_version((ELSEWHERE, re.compile("ValueError: num_samples should be a positive integer")))
def test_no_rows(tmp_path: Path) -> str:
    one = trainer(tmp_path, base())
    one.train_dataset = []
    return said_by(one.train)


@by_version((ELSEWHERE, ["old", "old"]))
def test_map_of_a_function_that_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """An imported function is known by its name alone."""
    from datasets import Dataset, load_from_disk

    Dataset.from_dict({"text": ["x"]}).save_to_disk(str(tmp_path / "rows"))
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for version in ("old", "new, edited"):
        source = f"def prepare(row):\n    return {{'text': {version!r}}}\n"
        (tmp_path / "prepared_rows.py").write_text(source, encoding="utf-8")
        sys.modules.pop("prepared_rows", None)
        importlib.invalidate_caches()
        module = importlib.import_module("prepared_rows")
        found.append(load_from_disk(str(tmp_path / "rows")).map(module.prepare)["text"][0])
    sys.modules.pop("prepared_rows", None)
    return found
