"""Predictions of recipes, of trainers and of steps, and what mistakes do to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import ftcheck.vram
from ftcheck.errors import InputError
from ftcheck.recipe import load_recipe
from ftcheck.vgpu import ChildFailed, Unmeasured
from ftcheck.vram.prediction import predict_many
from ftcheck.vram.vram_report import VramReport
from tests.vram import subjects

pytestmark = pytest.mark.slow  # all of them are predicted first, in half a minute

MIB = 1024**2
RECIPES = {
    "reference": (),
    "nf4": (
        "quantization.load_in_8bit=false",
        "quantization.load_in_4bit=true",
        'quantization.bnb_4bit_quant_type="nf4"',
    ),
    "batch": ("training.per_device_train_batch_size=8",),
    "checkpointing": (
        "training.per_device_train_batch_size=8",
        "training.gradient_checkpointing=true",
    ),
    "opt": ('model.name_or_path="facebook/opt-125m"', 'lora.target_modules=["q_proj"]'),
    "llama": (
        'model.name_or_path="HuggingFaceTB/SmolLM2-135M"',
        'model.dtype="auto"',
        'lora.target_modules=["q_proj"]',
        "training.fp16=false",
        "training.bf16=true",
    ),
}
SUBJECTS = {
    function.__name__: function
    for function in (
        subjects.trainer,
        subjects.trainer_that_keeps_eval_logits,
        subjects.trainer_with_the_base_in_its_optimizer,
        subjects.step_that_drops_its_graph,
        subjects.step_that_holds_its_graph,
        subjects.on_the_cpu,
        subjects.inputs_left_behind,
    )
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VramReport | Exception]:
    made: dict[str, Any] = {
        name: load_recipe("gpt2-wikitext2", overrides=overrides)
        for name, overrides in RECIPES.items()
    }
    for name in ("float16", "float32"):
        recipe = load_recipe("gpt2-wikitext2", overrides=(f'model.dtype="{name}"',))
        made[name] = dataclasses.replace(recipe, quantization=None)
    folder = tmp_path_factory.mktemp("t5")
    (folder / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    made["encoder-decoder"] = load_recipe(
        "gpt2-wikitext2", overrides=(f'model.name_or_path="{folder}"',)
    )
    made |= SUBJECTS
    names = list(made)
    return {names[number]: outcome for number, outcome in predict_many(list(made.values()))}


@pytest.fixture
def reports(outcomes: dict[str, VramReport | Exception]) -> dict[str, VramReport]:
    return {name: found for name, found in outcomes.items() if isinstance(found, VramReport)}


def phase(report: VramReport, name: str) -> int:
    return next(one.allocated_bytes for one in report.phases if one.phase == name)


def held(report: VramReport, category: str) -> int:
    assert report.peak is not None
    found = [one.size_bytes for one in report.peak.holdings if one.name == category]
    return found[0] if found else 0


def test_the_reference_recipe_fits_its_card(reports: dict[str, VramReport]) -> None:
    report = reports["reference"]
    assert report.how == "predicted"
    assert report.fits
    assert report.card is not None
    assert report.card.name == "rtx4070-laptop-8gb"
    assert 500 * MIB < report.peak_allocated_bytes < 600 * MIB
    assert report.peak_allocated_bytes <= report.peak_reserved_bytes
    assert report.needed_bytes is not None
    assert report.peak_allocated_bytes + report.context_bytes <= report.needed_bytes
    assert [one.phase for one in report.phases][:3] == ["load", "wrap", "step 1"]
    assert [one.phase for one in report.phases][-3:] == ["save", "reload", "generate"]
    assert report.peak is not None
    assert report.peak.phase == "step 2"
    assert "log_softmax_backward" in report.peak.op
    assert report.facts["parameters"]["trainable"] == 811_008
    assert any("int8" in line for line in report.assumptions)


def test_the_peak_comes_back_in_the_last_step(reports: dict[str, VramReport]) -> None:
    report = reports["reference"]
    steps = [one.allocated_bytes for one in report.phases if one.phase.startswith("step")]
    assert len(steps) == 3
    assert steps[0] < steps[1] == steps[2]


def test_four_bits_hold_less_than_eight(reports: dict[str, VramReport]) -> None:
    int8, nf4 = reports["reference"], reports["nf4"]
    # 85 million weights of linear layers: 81 MiB in 8 bits, half of it in 4.
    saved = held(int8, "base weights") - held(nf4, "base weights")
    assert saved == pytest.approx(40.5 * MIB, rel=0.05)
    assert held(nf4, "quantization state") > held(int8, "quantization state")


def test_other_architectures_are_predicted(reports: dict[str, VramReport]) -> None:
    assert reports["opt"].facts["parameters"]["total"] > 125_000_000
    assert reports["llama"].facts["parameters"]["total"] > 134_000_000
    assert all(reports[name].fits for name in ("opt", "llama"))


def test_lost_checkpointing_is_seen_in_the_steps(reports: dict[str, VramReport]) -> None:
    kept, lost = reports["checkpointing"], reports["batch"]
    assert phase(kept, "load") == phase(lost, "load")
    assert phase(lost, "step 2") > 1.5 * phase(kept, "step 2")
    assert held(lost, "saved activations") > 2 * held(kept, "saved activations")


def test_an_upcast_base_is_seen_where_it_is_loaded(reports: dict[str, VramReport]) -> None:
    half, single = reports["float16"], reports["float32"]
    more = 2 * 124_439_808  # bytes: two for each parameter
    # Allocated bytes hold the rests of blocks that the allocator does not split off.
    assert phase(single, "load") - phase(half, "load") == pytest.approx(more, rel=0.05)
    assert held(single, "base weights") - held(half, "base weights") == pytest.approx(
        more, rel=0.001
    )


def test_kept_eval_logits_are_seen_in_the_evaluation(reports: dict[str, VramReport]) -> None:
    sound, broken = reports["trainer"], reports["trainer_that_keeps_eval_logits"]
    assert phase(broken, "step 2") == phase(sound, "step 2")
    logits = 32 * 64 * 5000 * 4  # eight batches of (4, 64, 5000), fp32
    assert phase(broken, "eval") - phase(sound, "eval") > logits * 0.8


def test_a_trained_base_is_seen_in_the_optimizer(reports: dict[str, VramReport]) -> None:
    sound = reports["trainer"]
    broken = reports["trainer_with_the_base_in_its_optimizer"]
    assert phase(broken, "load") == phase(sound, "load")
    # Gradient and two moments of 3.1 million parameters of the base, fp32.
    assert phase(broken, "step 2") - phase(sound, "step 2") > 20 * MIB


def test_a_held_graph_grows_from_step_to_step(reports: dict[str, VramReport]) -> None:
    sound = reports["step_that_drops_its_graph"]
    broken = reports["step_that_holds_its_graph"]
    assert phase(sound, "step 3") == phase(sound, "step 2")
    growth = phase(broken, "step 4") - phase(broken, "step 3")
    assert growth == pytest.approx(phase(broken, "step 3") - phase(broken, "step 2"), rel=0.1)
    assert growth > 2 * MIB


def test_an_optimizer_that_was_made_first_holds_the_card_s_parameters(
    reports: dict[str, VramReport],
) -> None:
    report = reports["step_that_drops_its_graph"]
    weights = held(report, "base weights")
    assert held(report, "optimizer state") == pytest.approx(2 * weights, rel=0.02)


def test_nothing_on_the_card_is_no_prediction(
    outcomes: dict[str, VramReport | Exception],
) -> None:
    assert isinstance(outcomes["on_the_cpu"], Unmeasured)


def test_inputs_left_behind_are_what_cuda_says_in_kind(
    outcomes: dict[str, VramReport | Exception],
) -> None:
    failed = outcomes["inputs_left_behind"]
    assert isinstance(failed, ChildFailed)
    assert failed.kind == "RuntimeError"
    assert "Expected all tensors to be on the same device" in failed.text
    assert "vgpu:0" in failed.text
    assert "cpu" in failed.text


def test_a_report_becomes_json(reports: dict[str, VramReport]) -> None:
    import json

    plain = json.loads(json.dumps(reports["reference"].to_dict()))
    assert plain["fits"] is True
    assert plain["how"] == "predicted"
    assert "trace" not in plain


def test_a_lambda_cannot_be_sent() -> None:
    with pytest.raises(InputError, match="cannot be sent to a child process"):
        ftcheck.vram.predict(lambda: None)


def test_an_encoder_decoder_is_refused(
    outcomes: dict[str, VramReport | Exception],
) -> None:
    refused = outcomes["encoder-decoder"]
    assert isinstance(refused, InputError)
    assert "no causal language model" in str(refused)
