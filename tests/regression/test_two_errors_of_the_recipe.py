"""The two errors that belong to the published recipe, and that the pipeline does not make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.recipes import small_recipe
from tests.regression import devices
from tests.regression.outcomes import ELSEWHERE, by_version, said_by
from tests.regression.plain import base, lora, row, trainer

pytestmark = pytest.mark.filterwarnings("ignore")

NO_LOSS = (
    "ValueError: The model did not return a loss from the inputs, only the following keys: {}. "
    "For reference, the inputs it received are input_ids,attention_mask."
)
MODELS = ("plain", "adapter", "adapter without task_type")
EACH = pytest.mark.parametrize(
    ("kind", "names"), [(kind, names) for kind in MODELS for names in (None, ["labels"])], ids=str
)


def of_recipe(folder: Path, kind: str, names: list[str] | None, *, labelled: bool) -> Any:
    model = base()
    if kind != "plain":
        model = lora(model, task_type="CAUSAL_LM" if kind == "adapter" else None)
    return trainer(folder, model, [row(16, labelled=labelled)], label_names=names)


@EACH
@by_version(
    ({"transformers": ">=5"}, [False, NO_LOSS.format("logits")]),
    (ELSEWHERE, [False, NO_LOSS.format("logits,past_key_values")]),
)
def test_without_labels(tmp_path: Path, kind: str, names: list[str] | None) -> list[object]:
    """Evaluation reports no loss and raises nothing; training raises."""
    one = of_recipe(tmp_path, kind, names, labelled=False)
    return ["eval_loss" in one.evaluate(), said_by(one.train)]


@EACH
def test_with_labels(tmp_path: Path, kind: str, names: list[str] | None) -> None:
    """Training trains; evaluation reports a loss where it finds the labels."""

    @by_version(
        ({"transformers": "<4.55"}, [names is not None or kind != MODELS[2], "nothing"]),
        (ELSEWHERE, [True, "nothing"]),
    )
    def seen() -> list[object]:
        one = of_recipe(tmp_path, kind, names, labelled=True)
        return ["eval_loss" in one.evaluate(), said_by(one.train)]

    seen()


@pytest.mark.parametrize("adapter", [True, False])
def test_the_pipeline_trains_with_labels_and_says_so_without(tmp_path: Path, adapter: bool) -> None:
    import dataclasses

    from ftcheck.pipeline import build_trainer, load_base, load_data, load_tokenizer, tokenize, wrap

    recipe = small_recipe("tokenization.padding=max_length", "training.max_steps=1")
    if not adapter:
        recipe = dataclasses.replace(recipe, lora=None)
    tokenizer = load_tokenizer(recipe)
    tokens = tokenize(load_data(recipe), tokenizer, recipe)
    bare = dataclasses.replace(tokens, train=tokens.train.remove_columns(["labels"]))
    for data, said in ((tokens, "nothing"), (bare, "ValueError: The model did not return a loss")):
        model = wrap(load_base(recipe, tokenizer), recipe)
        one = build_trainer(model, data, tokenizer, recipe, tmp_path)
        assert said_by(one.train).startswith(said)


MISPLACED = ("inputs", "half the model", "adapter")
ON_THE_CARD = r"Expected all tensors to be on the same device, but (found at least two devices|got)"


@pytest.fixture(scope="module")
def on_the_virtual_gpu() -> dict[str, Any]:
    """What each misplacement raises, and what comes of it after moving everything."""
    from ftcheck.vgpu import Call, run_many

    calls = [Call(devices.misplaced, (what,)) for what in MISPLACED]
    found: dict[str, Any] = {}
    for number, outcome in run_many(calls, preload=("torch", "transformers", "peft")):
        if isinstance(outcome, Exception):
            raise outcome
        found[MISPLACED[number]] = outcome.value
    return found


@pytest.mark.skipif("not devices.has_virtual_gpu()", reason="the virtual GPU needs peft 0.13")
@pytest.mark.parametrize("what", MISPLACED)
def test_two_devices_on_the_virtual_gpu(on_the_virtual_gpu: dict[str, Any], what: str) -> None:
    import re

    said, mended = on_the_virtual_gpu[what]
    assert re.search(rf"^RuntimeError: {ON_THE_CARD}.*(vgpu:0.*cpu|cpu.*vgpu:0)", said)
    assert mended == "nothing"


@pytest.mark.gpu
@pytest.mark.parametrize("what", MISPLACED)
def test_two_devices_on_a_card(what: str) -> None:
    import re

    class Card:
        device = "cuda:0"

    said, mended = devices.misplaced(Card(), what)
    assert re.search(rf"^RuntimeError: {ON_THE_CARD}.*(cuda:0.*cpu|cpu.*cuda:0)", said)
    assert mended == "nothing"
