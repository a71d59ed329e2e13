"""FT40x, FT417 to FT422 and FT427: arguments, schedule and optimizer, from both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcheck.checks.finding import Finding, Severity, Status
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, lora, rows, trainer

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
"""What the libraries say of such trainers is not what is tested here."""

BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}


def only(made: Any, code: str) -> Finding:
    (finding,) = found(made, code)
    return finding


def silent(made: Any, code: str) -> bool:
    """Whether a check finds nothing, and not because it could not look."""
    outcome = check_one(made, code)
    return outcome.status in (Status.PASSED, Status.SKIPPED) and not outcome.findings


def given(folder: Path, **arguments: Any) -> Any:
    """A sound trainer but for these arguments."""
    return trainer(folder, arguments=arguments)


def evaluated(folder: Path, evaluation: Any = None, **more: Any) -> Any:
    arguments = {name: more.pop(name) for name in list(more) if name in _OF_ARGUMENTS}
    data = rows()[:8] if evaluation is None else evaluation
    return trainer(folder, evaluation=data, arguments=arguments, **more)


_OF_ARGUMENTS = (
    *BEST,
    "metric_for_best_model",
    "label_names",
    "save_total_limit",
    "prediction_loss_only",
    "batch_eval_metrics",
)


def patience(folder: Path, evaluation: Any, **arguments: Any) -> Any:
    """A trainer that stops early."""
    from transformers import EarlyStoppingCallback

    return trainer(
        folder, evaluation=evaluation, arguments=arguments, callbacks=[EarlyStoppingCallback()]
    )


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


# ------------------------------------------------------------------------ the optimizer

Choice = Callable[[Any, list[Any]], Iterable[Any]]
"""Parameters for an optimizer, of a wrapped model and of those that its base had before."""


def optimized(folder: Path, choose: Choice, *, full: bool = False) -> Any:
    model = base()
    early = list(model.parameters())
    model = model if full else lora(model)
    optimizer = torch.optim.AdamW(list(choose(model, early)), lr=1e-3)
    return trainer(folder, model=model, optimizers=(optimizer, None))


def trained(model: Any, *but: str) -> list[Any]:
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(part in name for part in but)
    ]


@catches("FT401")
@pytest.mark.parametrize(
    ("choose", "lacks", "severity"),
    [
        (lambda _, early: early, 4, Severity.ERROR),
        (lambda *_: base().parameters(), 4, Severity.ERROR),
        (lambda model, _: trained(model, "lora_A"), 2, Severity.ERROR),
        (lambda model, _: trained(model, "h.0.attn.c_attn.lora_A"), 1, Severity.WARNING),
    ],
)
def test_an_optimizer_that_lacks_what_is_trained_is_said(
    tmp_path: Path, choose: Choice, lacks: int, severity: Severity
) -> None:
    finding = only(optimized(tmp_path, choose), "FT401")
    assert finding.severity is severity
    assert finding.sentence.startswith(f"the optimizer lacks {lacks} of 4 parameters")
    assert all("lora_" in name for name in finding.evidence)


@leaves_alone("FT401")
@pytest.mark.parametrize("full", [False, True], ids=["adapter", "tied-weights"])
def test_an_optimizer_of_all_that_is_trained_is_left_alone(tmp_path: Path, full: bool) -> None:
    assert silent(optimized(tmp_path, lambda model, _: trained(model), full=full), "FT401")


@catches("FT402")
@pytest.mark.parametrize(
    ("choose", "sentence"),
    [
        (lambda model, _: model.parameters(), "the optimizer holds 28 frozen parameters"),
        (lambda model, early: [*trained(model), early[0]], "the optimizer holds 1 frozen"),
        (lambda *_: base().parameters(), "the optimizer holds parameters of another model"),
    ],
)
def test_an_optimizer_that_holds_more_than_is_trained_is_noted(
    tmp_path: Path, choose: Choice, sentence: str
) -> None:
    finding = only(optimized(tmp_path, choose), "FT402")
    assert finding.severity is Severity.NOTE
    assert finding.sentence.startswith(sentence)


@leaves_alone("FT402")
def test_an_optimizer_of_what_is_trained_holds_nothing_else(tmp_path: Path) -> None:
    assert silent(optimized(tmp_path, lambda model, _: trained(model)), "FT402")


# ------------------------------------------------------------------------ the learning rate


@catches("FT403")
@pytest.mark.parametrize("rate", [0.0, 2e-50, 1e-8])
@pytest.mark.parametrize("full", [False, True])
def test_a_rate_at_which_nothing_moves_is_an_error(tmp_path: Path, rate: float, full: bool) -> None:
    made = trainer(tmp_path, model=base() if full else None, arguments={"learning_rate": rate})
    finding = only(made, "FT403")
    assert finding.severity is Severity.ERROR
    assert finding.sentence == f"learning_rate is {rate:g}: nothing is learned"
    assert finding.fix.change == {"training.learning_rate": 5e-5 if full else 2e-4}


@catches("FT404")
@pytest.mark.parametrize("rate", [0.1, 2.0])
@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused"])
def test_a_rate_larger_than_weights_is_an_error(tmp_path: Path, rate: float, name: str) -> None:
    finding = only(given(tmp_path, learning_rate=rate, optim=name), "FT404")
    assert finding.severity is Severity.ERROR
    assert finding.sentence.startswith(f"learning_rate is {rate:g} with {name}:")
    assert finding.fix.change == {"training.learning_rate": 2e-4}


@leaves_alone("FT403", "FT404")
@pytest.mark.parametrize(
    ("code", "rate", "name"),
    [("FT403", 1.1e-8, "sgd"), ("FT404", 0.099, "adamw_torch"), ("FT404", 0.5, "sgd")],
)
def test_a_rate_that_an_optimizer_bears_is_left_alone(
    tmp_path: Path, code: str, rate: float, name: str
) -> None:
    assert silent(given(tmp_path, learning_rate=rate, optim=name), code)


@leaves_alone("FT403", "FT404")
@pytest.mark.parametrize(("code", "rate"), [("FT403", 0.0), ("FT404", 0.5)])
def test_the_rate_of_an_optimizer_of_ones_own_is_not_in_the_arguments(
    tmp_path: Path, code: str, rate: float
) -> None:
    model = lora()
    made = trainer(
        tmp_path,
        model=model,
        arguments={"learning_rate": rate},
        optimizers=(torch.optim.AdamW(trained(model), lr=1e-3), None),
    )
    assert check_one(made, code).status is Status.SKIPPED


# ------------------------------------------------------------------------ schedule and steps


@catches("FT405")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"warmup_steps": 6}, "50 % of the 12 steps are warm-up"),
        ({"warmup_steps": 500}, "within the 12 steps: the rate gets to 2.2e-05 of"),
        ({"warmup_steps": 6, "lr_scheduler_type": "constant_with_warmup"}, "50 % of the 12 steps"),
        ({"warmup_steps": 500, "max_steps": 250}, "rate gets to 0.0005 of 0.001"),
    ],
)
def test_a_warm_up_of_half_of_the_run_is_said(
    tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    finding = only(given(tmp_path, **arguments), "FT405")
    assert finding.severity is Severity.WARNING
    assert sentence in finding.sentence
    assert finding.fix.change["training.warmup_steps"] < 12


@leaves_alone("FT405")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"warmup_steps": 5},
        {"lr_scheduler_type": "cosine"},
        {"lr_scheduler_type": "constant"},
        {"max_steps": 2, "warmup_steps": 1},
    ],
)
def test_a_warm_up_below_half_is_left_alone(tmp_path: Path, arguments: dict[str, Any]) -> None:
    assert silent(given(tmp_path, **arguments), "FT405")


@catches("FT405")
@leaves_alone("FT405")
@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize(("steps", "count"), [(499, 0), (500, 1)])
def test_half_of_a_long_run_is_the_limit(tmp_path: Path, kind: str, steps: int, count: int) -> None:
    made = given(tmp_path, warmup_steps=steps, max_steps=1000, lr_scheduler_type=kind)
    assert len(found(made, "FT405")) == count


@catches("FT406")
def test_a_run_without_a_step_is_an_error(tmp_path: Path) -> None:
    finding = only(given(tmp_path, num_train_epochs=0), "FT406")
    assert finding.severity is Severity.ERROR
    assert finding.sentence == "the run has no optimizer step"


@catches("FT406")
@pytest.mark.parametrize("steps", [1, 3])
def test_an_epoch_with_less_batches_than_a_step_has_is_said(tmp_path: Path, steps: int) -> None:
    made = given(tmp_path, num_train_epochs=steps, gradient_accumulation_steps=7)
    finding = only(made, "FT406")
    assert finding.severity is Severity.WARNING
    assert finding.sentence.startswith("an epoch has 6 batches, and 7 of them make a step")
    assert f"{steps} steps in all" in finding.sentence


@leaves_alone("FT406")
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_of_two_steps_is_left_alone(tmp_path: Path, epochs: int) -> None:
    made = given(tmp_path, num_train_epochs=epochs, gradient_accumulation_steps=3 * epochs)
    assert silent(made, "FT406")


@catches("FT406")
@pytest.mark.parametrize(
    "arguments", [{"num_train_epochs": 1, "gradient_accumulation_steps": 6}, {"max_steps": 1}]
)
def test_a_run_of_one_step_is_noted(tmp_path: Path, arguments: dict[str, Any]) -> None:
    assert only(given(tmp_path, **arguments), "FT406").severity is Severity.NOTE


@catches("FT417")
@leaves_alone("FT417")
def test_a_batch_size_that_is_found_anew_is_noted(tmp_path: Path) -> None:
    finding = only(given(tmp_path, auto_find_batch_size=True), "FT417")
    assert finding.severity is Severity.NOTE
    assert silent(given(tmp_path), "FT417")


@catches("FT427")
def test_a_warm_up_of_one_point_nought_is_said(tmp_path: Path) -> None:
    finding = only(given(tmp_path, warmup_steps=1.0), "FT427")
    assert finding.severity is Severity.WARNING
    assert finding.sentence == "warmup_steps is 1.0, which is one step, not the whole run"


@leaves_alone("FT427")
@pytest.mark.parametrize("value", [0, 1, 2, 0.99, 0.03])
def test_a_warm_up_of_steps_or_of_a_share_is_left_alone(tmp_path: Path, value: float) -> None:
    assert silent(given(tmp_path, warmup_steps=value), "FT427")


# ------------------------------------------------------------------------ evaluating


def many(count: int) -> Any:
    """Rows of 32 tokens: 256 KiB of logits each, over 2,048 words."""
    from datasets import Dataset

    return Dataset.from_list(rows(length=32)[:1]).select([0] * count)


def by_batch(prediction: Any, compute_result: bool) -> dict[str, float]:
    return {"accuracy": 0.0}


@catches("FT418")
def test_logits_of_four_gibibytes_are_said(tmp_path: Path) -> None:
    finding = only(evaluated(tmp_path, many(16_384), compute_metrics=accuracy), "FT418")
    assert finding.severity is Severity.WARNING
    assert "keeps 4.00 GiB of logits" in finding.sentence
    assert finding.evidence == ("16,384 rows × 32 × 2,048 × 4 bytes",)


@leaves_alone("FT418")
@pytest.mark.parametrize(
    ("count", "more"),
    [
        (16_383, {"compute_metrics": accuracy}),
        (16_384, {}),
        (16_384, {"compute_metrics": accuracy, "prediction_loss_only": True}),
        (16_384, {"compute_metrics": by_batch, "batch_eval_metrics": True}),
        (
            16_384,
            {
                "compute_metrics": accuracy,
                "preprocess_logits_for_metrics": lambda logits, _: logits.argmax(-1),
            },
        ),
    ],
)
def test_logits_that_are_few_or_not_kept_are_left_alone(
    tmp_path: Path, count: int, more: dict[str, Any]
) -> None:
    assert silent(evaluated(tmp_path, many(count), **more), "FT418")


@catches("FT419")
def test_a_metric_that_is_not_reported_is_an_error(tmp_path: Path) -> None:
    finding = only(evaluated(tmp_path, **BEST, metric_for_best_model="accuracy"), "FT419")
    assert finding.severity is Severity.ERROR
    assert "'accuracy', and evaluating reports no eval_accuracy" in finding.sentence
    assert "eval_loss" in finding.evidence[0]


@catches("FT419")
def test_a_metric_without_rows_to_evaluate_on_is_an_error(tmp_path: Path) -> None:
    finding = only(patience(tmp_path, None, metric_for_best_model="eval_loss"), "FT419")
    assert finding.severity is Severity.ERROR
    assert finding.sentence.endswith("there are no rows to evaluate on")


@leaves_alone("FT419")
@pytest.mark.parametrize(
    "more",
    [
        BEST,
        {**BEST, "metric_for_best_model": "loss"},
        {**BEST, "metric_for_best_model": "eval_loss"},
        {**BEST, "metric_for_best_model": "accuracy", "compute_metrics": accuracy},
        {"metric_for_best_model": "accuracy"},
    ],
)
def test_a_metric_that_is_reported_or_not_used_is_left_alone(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    assert silent(evaluated(tmp_path, **more), "FT419")


def two_sets() -> dict[str, Any]:
    from datasets import Dataset

    return {name: Dataset.from_list(rows()[:8]) for name in ("near", "far")}


@leaves_alone("FT419")
def test_a_metric_of_one_of_several_sets_is_left_alone(tmp_path: Path) -> None:
    made = evaluated(tmp_path, two_sets(), **BEST, metric_for_best_model="eval_near_loss")
    assert silent(made, "FT419")


@catches("FT419")
def test_a_metric_that_none_of_several_sets_has_is_said(tmp_path: Path) -> None:
    made = evaluated(tmp_path, two_sets(), **BEST, metric_for_best_model="eval_loss")
    assert len(found(made, "FT419")) == 1


def unlabelled(count: int) -> list[dict[str, Any]]:
    """Eight rows, of which so many have no label."""
    return [
        {**row, "labels": [-100] * 48} if number < count else row
        for number, row in enumerate(rows()[:8])
    ]


@catches("FT421")
@pytest.mark.parametrize(
    ("count", "more", "sentence"),
    [
        (0, {"label_names": ["label"]}, "evaluating reports no eval_loss"),
        (8, {}, "eval_loss is NaN"),
    ],
)
def test_an_evaluation_without_a_loss_is_an_error(
    tmp_path: Path, count: int, more: dict[str, Any], sentence: str
) -> None:
    finding = only(evaluated(tmp_path, unlabelled(count), **more), "FT421")
    assert finding.severity is Severity.ERROR
    assert finding.sentence == sentence


@leaves_alone("FT421")
@pytest.mark.parametrize("count", [0, 1, 7])
def test_an_evaluation_with_a_loss_is_left_alone(tmp_path: Path, count: int) -> None:
    assert silent(evaluated(tmp_path, unlabelled(count)), "FT421")


@leaves_alone("FT421")
def test_a_trainer_that_does_not_evaluate_needs_no_loss(tmp_path: Path) -> None:
    assert check_one(given(tmp_path, label_names=["label"]), "FT421").status is Status.SKIPPED


@catches("FT422")
@pytest.mark.parametrize(
    ("make", "severity"), [(evaluated, Severity.NOTE), (patience, Severity.WARNING)]
)
def test_a_best_checkpoint_that_is_deleted_is_said(
    tmp_path: Path, make: Callable[..., Any], severity: Severity
) -> None:
    finding = only(make(tmp_path, rows()[:8], save_total_limit=1, eval_strategy="epoch"), "FT422")
    assert finding.severity is severity
    assert finding.sentence.startswith("save_total_limit is 1")
    assert finding.fix.change == {"training.load_best_model_at_end": True}


@leaves_alone("FT422")
@pytest.mark.parametrize(
    "arguments",
    [{"save_total_limit": 1, **BEST}, {"save_total_limit": 1}, {"eval_strategy": "epoch"}],
)
@pytest.mark.parametrize("make", [evaluated, patience])
def test_a_best_checkpoint_that_is_kept_or_not_known_is_left_alone(
    tmp_path: Path, make: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    assert silent(make(tmp_path, rows()[:8], **arguments), "FT422")
