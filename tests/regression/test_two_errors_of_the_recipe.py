"""The two errors that belong to the published recipe, and that the pipeline does not make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcheck.environment import installed_version
from ftcheck.pipeline import (
    build_trainer,
    generate,
    load_base,
    load_data,
    load_tokenizer,
    tokenize,
    wrap,
)
from tests.helpers.recipes import small_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


def trainer_without_labels(folder: Path, adapter: bool) -> Any:
    import dataclasses

    recipe = small_recipe("tokenization.padding=max_length")
    if not adapter:
        recipe = dataclasses.replace(recipe, lora=None)
    tokenizer = load_tokenizer(recipe)
    tokens = tokenize(load_data(recipe), tokenizer, recipe)
    bare = dataclasses.replace(tokens, train=tokens.train.remove_columns(["labels"]))
    model = wrap(load_base(recipe, tokenizer), recipe)
    return build_trainer(model, bare, tokenizer, recipe, folder)


@pytest.mark.parametrize("adapter", [True, False])
def test_without_labels_there_is_no_loss(tmp_path: Path, adapter: bool) -> None:
    from packaging.version import Version

    five = Version(installed_version("transformers") or "0") >= Version("5")
    keys = "logits" if five else "logits,past_key_values"
    trainer = trainer_without_labels(tmp_path, adapter)
    text = (
        "The model did not return a loss from the inputs, only the following keys: "
        f"{keys}. For reference, the inputs it received are input_ids,attention_mask."
    )
    with pytest.raises(ValueError, match=f"^{text}$"):
        trainer.train()


MISMATCH = r"Expected all tensors to be on the same device"


def test_inputs_left_behind_on_fake_cuda() -> None:
    """Without a card: fake tensors know devices, and refuse the mixture as CUDA does."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    mode = FakeTensorMode()

    def on_cuda(*shape: int, dtype: torch.dtype) -> FakeTensor:
        return FakeTensor(
            mode, torch.empty(shape, dtype=dtype, device="meta"), torch.device("cuda:0")
        )

    embedding = torch.nn.functional.embedding
    weight = on_cuda(2048, 128, dtype=torch.float32)
    with mode, torch.no_grad():
        left_behind = torch.zeros(1, 4, dtype=torch.long)
        with pytest.raises(RuntimeError, match=f"{MISMATCH}.*cuda:0 and cpu"):
            embedding(left_behind, weight)
        assert embedding(on_cuda(1, 4, dtype=torch.long), weight).shape == (1, 4, 128)


@pytest.mark.gpu
def test_inputs_left_behind_on_a_card() -> None:
    recipe = small_recipe("model.device=cuda")
    tokenizer = load_tokenizer(recipe)
    model = load_base(recipe, tokenizer)
    assert model.device.type == "cuda"
    inputs = tokenizer(["def"], return_tensors="pt")
    with pytest.raises(RuntimeError, match=f"{MISMATCH}.*(cuda:0.*cpu|cpu.*cuda:0)"):
        model.generate(**inputs, max_new_tokens=2)
    assert generate(model, tokenizer, recipe, ("def",))[0].startswith("def")
