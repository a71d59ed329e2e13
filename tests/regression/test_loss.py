"""The loss and its gradient: accumulated, divided, padded, empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.versions import at_least
from tests.regression.outcomes import ELSEWHERE, by_version, versions_of
from tests.regression.plain import (
    base,
    gradient_norm,
    logged,
    lora,
    row,
    tensors,
    trainer,
    true_loss,
)

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = [row(16, start=start) for start in (5, 50, 500, 900)]
UNSHIFTED = pytest.approx(15 / 16, rel=1e-3)
"""16 labels a row are counted, 15 are predicted; the log has four digits."""
TRUE = pytest.approx(1.0, rel=1e-3)


@by_version((versions_of("accumulated-gradient"), pytest.approx(4, rel=1e-3)), (ELSEWHERE, TRUE))
def test_gradient_of_four_batches_over_that_of_one(tmp_path: Path) -> float:
    norms = []
    for batch, steps in ((1, 4), (4, 1)):
        one = trainer(
            tmp_path,
            lora(base()),
            ROWS,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
        )
        one.train()
        norms += logged(one, "grad_norm")
    return norms[0] / norms[1]


@by_version((versions_of("gpt2-loss-type"), UNSHIFTED), (ELSEWHERE, TRUE))
def test_training_loss_over_the_true_one(tmp_path: Path) -> float:
    model = base()
    true = true_loss(model, ROWS)
    one = trainer(tmp_path, model, ROWS, per_device_train_batch_size=4)
    one.train()
    return logged(one, "loss")[0] / true


@by_version(({"transformers": ">=4.57"}, UNSHIFTED), (ELSEWHERE, TRUE))
def test_eval_loss_over_the_true_one(tmp_path: Path) -> float:
    model = base()
    metrics = trainer(tmp_path, model, ROWS).evaluate()
    return float(metrics["eval_loss"]) / true_loss(model, ROWS)


@by_version(
    ({"transformers": ">=4.49,<4.57"}, [TRUE, UNSHIFTED]),
    ({"transformers": ">=4.57,<5.10"}, [UNSHIFTED, UNSHIFTED]),
    (ELSEWHERE, [TRUE, TRUE]),
)
def test_a_loss_type_mends_both(tmp_path: Path) -> list[float]:
    """From the first version that counts shifted labels for the models that shift them."""
    model = base()
    model.loss_type = "ForCausalLM"
    true = true_loss(model, ROWS)
    one = trainer(tmp_path, model, ROWS, per_device_train_batch_size=4)
    metrics = one.evaluate()
    one.train()
    return [float(metrics["eval_loss"]) / true, logged(one, "loss")[0] / true]


@by_version((versions_of("all-pad-rows"), True), (ELSEWHERE, False))
def test_a_row_of_pads_alone_has_a_gradient_out_of_all_proportion(tmp_path: Path) -> bool:
    sdpa = {"attn_implementation": "sdpa"} if at_least("transformers", "4.46") else {}
    norms = []
    for mask in (0, 1):
        model = base(**sdpa)
        ids = [2047] * 16
        batch = tensors([{"input_ids": ids, "attention_mask": [mask] * 16, "labels": ids}])
        model(**batch).loss.backward()
        norms.append(gradient_norm(model))
    return norms[0] > 20 * norms[1]


@by_version((ELSEWHERE, [True, 0.0]))
def test_nan_is_logged_as_zero(tmp_path: Path) -> list[object]:
    """An empty row whose pads are masked: the loss is a mean over nothing."""
    empty = row(16) | {"labels": [-100] * 16}
    model = base()
    with_nan = bool(model(**tensors([empty])).loss.isnan())
    one = trainer(tmp_path, model, [empty])
    one.train()
    return [with_nan, *logged(one, "loss")]


@by_version((ELSEWHERE, True))
def test_labels_shifted_by_hand_raise_nothing(tmp_path: Path) -> bool:
    shifted = row(16)
    shifted["labels"] = [*shifted["input_ids"][1:], -100]
    one = trainer(tmp_path, base(), [shifted])
    one.train()
    return logged(one, "loss")[0] > 0
