"""FT501 to FT507, FT601 to FT604, FT701 and FT702: precision, devices and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcheck.assets import model_dir
from ftcheck.cards import card
from ftcheck.checks.facts import Call, Failure, Record, Reload
from ftcheck.checks.finding import Finding, Severity, Status
from ftcheck.checks.observe.looking import look_at, refused
from ftcheck.checks.seen import Seen
from ftcheck.recipe import load_recipe
from ftcheck.subjects.trainer import trainer_subject
from ftcheck.vram.vram_report import Failure as OutOfMemory
from ftcheck.vram.vram_report import VramReport
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, judged, lora, trainer
from tests.helpers.versions import skip_unless_runnable

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore"),  # of the libraries, about what is built wrong
]

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
PASSED, SKIPPED, UNMEASURED = Status.PASSED, Status.SKIPPED, Status.UNMEASURED
Make = Callable[[], Any]


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return look_at(trainer_subject(trainer(tmp_path_factory.mktemp("seen"))), ())


def with_setup(seen: Seen, **facts: Any) -> Seen:
    assert seen.setup is not None
    return dataclasses.replace(seen, setup=dataclasses.replace(seen.setup, **facts))


def script(seen: Seen, *calls: Call, failure: Failure | None = None) -> Seen:
    record = Record(calls=calls, through=failure is None, failure=failure)
    return dataclasses.replace(seen, kind="script", record=record)


def failing(text: str, during: str = "running the script") -> Failure:
    return Failure(kind="RuntimeError", text=text, during=during, place="train.py:3")


def all_in(dtype: str) -> Make:
    """LoRA, all of whose parameters have a type."""
    return lambda: lora().to(getattr(torch, dtype))


def base_in(dtype: str) -> Make:
    """A base of a type, and adapters in float32, which peft makes."""
    return lambda: lora(getattr(base(), dtype)())


def adapters_in(dtype: str, part: str = "lora_") -> Make:
    """A base in float32, and adapters, or part of them, of a type."""

    def make() -> Any:
        model = lora()
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.data = parameter.data.to(getattr(torch, dtype))
        return model

    return make


FP16, BF16 = {"fp16": True}, {"bf16": True}


@catches("FT501", "FT502", "FT503", "FT507")
@pytest.mark.parametrize(
    ("code", "make", "arguments", "severity", "said"),
    [
        ("FT501", all_in("float16"), FP16, ERROR, "4 trained parameters are float16 under fp16"),
        ("FT501", adapters_in("float16"), FP16, ERROR, "4 trained parameters are float16"),
        ("FT502", lora, FP16, NOTE, "fp16 was not tried"),
        ("FT503", all_in("float16"), {}, WARNING, "4 of 4 trained parameters are float16"),
        ("FT503", adapters_in("float16", "0.attn.c_attn.lora_A"), {}, WARNING, "1 of 4 trained"),
        ("FT503", all_in("float16"), BF16, WARNING, "4 of 4 trained parameters are float16"),
        ("FT503", all_in("bfloat16"), {}, NOTE, "4 of 4 trained parameters are bfloat16"),
        ("FT503", all_in("bfloat16"), FP16, NOTE, "4 of 4 trained parameters are bfloat16"),
        ("FT507", base_in("bfloat16"), FP16, WARNING, "parameters are bfloat16 under fp16=True"),
    ],
)
def test_half_precision_is_said(
    tmp_path: Path, *, code: str, make: Make, arguments: Any, severity: Severity, said: str
) -> None:
    finding = only(found(trainer(tmp_path, model=make(), arguments=arguments), code))
    assert finding.severity is severity
    assert said in finding.sentence


@leaves_alone("FT501", "FT502", "FT503", "FT507")
@pytest.mark.parametrize(
    ("code", "make", "arguments", "status"),
    [
        ("FT501", lora, FP16, PASSED),
        ("FT501", base_in("half"), FP16, PASSED),
        ("FT501", adapters_in("bfloat16"), FP16, PASSED),
        ("FT501", all_in("float16"), {}, SKIPPED),
        ("FT501", all_in("float16"), BF16, SKIPPED),
        ("FT502", lora, {}, PASSED),
        ("FT502", lora, BF16, PASSED),
        ("FT503", lora, {}, PASSED),
        ("FT503", base_in("half"), {}, PASSED),
        ("FT503", base_in("bfloat16"), {}, PASSED),
        ("FT503", all_in("float16"), FP16, PASSED),
        ("FT507", adapters_in("bfloat16"), FP16, PASSED),
        ("FT507", base_in("half"), FP16, PASSED),
        ("FT507", base_in("bfloat16"), BF16, SKIPPED),
        ("FT507", base_in("bfloat16"), {}, SKIPPED),
    ],
)
def test_half_precision_of_what_is_frozen_or_scaled_is_left_alone(
    tmp_path: Path, *, code: str, make: Make, arguments: Any, status: Status
) -> None:
    one = check_one(trainer(tmp_path, model=make(), arguments=arguments), code)
    assert (one.status, one.findings) == (status, ())


@leaves_alone("FT502")
def test_fp16_on_a_card_was_tried(seen: Seen) -> None:
    assert seen.setup is not None
    on_card = [dataclasses.replace(one, device="cuda") for one in seen.setup.parameters]
    facts = {"arguments": {**seen.setup.arguments, "fp16": True}, "parameters": tuple(on_card)}
    assert judged(with_setup(seen, **facts), "FT502").findings == ()


def quantized(dtype: str = "float16") -> Any:
    """The embedded model in 8 bits; its norms are of a type."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    skip_unless_runnable(["quantization.load_in_8bit=true"])
    bits = BitsAndBytesConfig(load_in_8bit=True)
    return AutoModelForCausalLM.from_pretrained(
        str(model_dir()), quantization_config=bits, dtype=getattr(torch, dtype)
    )


@catches("FT504")
def test_a_quantized_base_that_was_not_prepared_is_said(tmp_path: Path) -> None:
    finding = only(found(trainer(tmp_path, model=lora(quantized())), "FT504"))
    assert finding.severity is NOTE
    assert finding.sentence.startswith("the 8-bit base was not prepared")


@leaves_alone("FT504")
def test_a_prepared_base_and_a_plain_one_are_left_alone(tmp_path: Path) -> None:
    from peft import prepare_model_for_kbit_training

    model = lora(prepare_model_for_kbit_training(quantized()))
    assert check_one(trainer(tmp_path, model=model), "FT504").status is PASSED
    assert check_one(trainer(tmp_path, model=lora(base().half())), "FT504").status is SKIPPED


def merged(seen: Seen, error: float | None, effect: float = 0.5, bits: str = "4-bit") -> Seen:
    """A quantized base whose adapter has an effect, next to a largest logit of 10."""
    reload = Reload(difference=0.0, scale=10.0, adapter_effect=effect, merge_error=error)
    return dataclasses.replace(with_setup(seen, quantized=bits), reload=reload)


@catches("FT505")
@pytest.mark.parametrize("error", [0.15, 0.16, 0.9])
@pytest.mark.parametrize("effect", [0.5, 5.0])
def test_an_adapter_that_merging_rounds_away_is_said(
    seen: Seen, error: float, effect: float
) -> None:
    finding = only(judged(merged(seen, error, effect), "FT505").findings)
    assert finding.severity is NOTE
    assert f"would be off by {100 * error:.0f} %" in finding.sentence


@leaves_alone("FT505")
@pytest.mark.parametrize(
    ("error", "effect", "bits", "status"),
    [
        (0.14, 0.5, "4-bit", PASSED),
        (0.9, 0.49, "4-bit", UNMEASURED),
        (None, 0.5, "4-bit", UNMEASURED),
        (0.9, 0.5, "", SKIPPED),
    ],
)
def test_merging_that_keeps_most_or_cannot_be_told_is_left_alone(
    seen: Seen, *, error: float | None, effect: float, bits: str, status: Status
) -> None:
    one = judged(merged(seen, error, effect, bits), "FT505")
    assert (one.status, one.findings) == (status, ())


@catches("FT505")
@leaves_alone("FT505")
def test_a_script_that_merges_into_a_quantized_base_is_warned(seen: Seen) -> None:
    call = Call(what="merge", place="train.py:9", when="after", facts={})
    finding = only(judged(script(with_setup(seen, quantized="8-bit"), call), "FT505").findings)
    assert finding.severity is WARNING
    assert finding.place == "train.py:9"
    assert judged(script(seen, call), "FT505").status is SKIPPED


def on_card(seen: Seen, *overrides: str, bf16: bool = True) -> Seen:
    assert seen.setup is not None
    recipe = load_recipe("quickstart", overrides=overrides)
    arguments = {**seen.setup.arguments, "bf16": bf16}
    return dataclasses.replace(with_setup(seen, arguments=arguments), recipe=recipe)


@catches("FT506")
@pytest.mark.parametrize("more", [(), ('budget.vram="12GiB"',)])
def test_bf16_on_a_card_before_ampere_is_said(seen: Seen, more: tuple[str, ...]) -> None:
    finding = only(judged(on_card(seen, 'budget.card="t4-16gb"', *more), "FT506").findings)
    assert finding.severity is ERROR
    assert "needs compute capability 8.0" in finding.sentence
    assert finding.sentence.endswith("has 7.5")
    assert finding.fix.change == {"training.bf16": None, "training.fp16": True}


@leaves_alone("FT506")
@pytest.mark.parametrize(
    ("overrides", "bf16", "status"),
    [
        (('budget.card="a100-40gb"',), True, PASSED),
        (('budget.card="rtx4070-laptop-8gb"',), True, PASSED),
        (('budget.card="t4-16gb"',), False, SKIPPED),
        (('budget.vram="8GiB"',), True, SKIPPED),
        ((), True, SKIPPED),
    ],
)
def test_bf16_on_a_newer_or_an_unknown_card_is_left_alone(
    seen: Seen, overrides: tuple[str, ...], bf16: bool, status: Status
) -> None:
    assert judged(on_card(seen, *overrides, bf16=bf16), "FT506").status is status


SAME = "Expected all tensors to be on the same device, but found at least two devices"


@catches("FT601")
def test_tensors_on_different_devices_are_said(seen: Seen) -> None:
    by_script = script(seen, failure=failing(f"{SAME}, cuda:0 and cpu!\nand more"))
    by_card = dataclasses.replace(seen, memory=failing(f"{SAME}!", "predicting memory"))
    for subject in (by_script, by_card):
        finding = only(judged(subject, "FT601").findings)
        assert finding.severity is ERROR
        assert finding.sentence.startswith(SAME)
        assert "\n" not in finding.sentence
        assert finding.place == "train.py:3"


@leaves_alone("FT601")
def test_other_failures_and_none_are_no_matter_of_devices(seen: Seen) -> None:
    other = script(seen, failure=failing("CUDA error: device-side assert triggered"))
    fits = dataclasses.replace(seen, memory=predicted())
    for subject, status in (
        (other, PASSED),
        (script(seen), PASSED),
        (fits, PASSED),
        (seen, UNMEASURED),
    ):
        one = judged(subject, "FT601")
        assert (one.status, one.findings) == (status, ())


def mapped(folder: Path, **places: str | int) -> Any:
    made = trainer(folder, model=base())  # on a machine without a card, Trainer refuses such a map
    made.model.hf_device_map = {name.replace("_", "."): place for name, place in places.items()}
    return made


@catches("FT602")
@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"h_0": 0, "h_1": "cpu"}, "1 modules are offloaded to cpu"),
        ({"h_0": 0, "h_1": "cpu", "head": "disk"}, "2 modules are offloaded to cpu and disk"),
    ],
)
def test_modules_that_were_offloaded_are_counted(
    tmp_path: Path, places: dict[str, str | int], said: str
) -> None:
    finding = only(found(mapped(tmp_path, **places), "FT602"))
    assert finding.severity is WARNING
    assert finding.sentence == said


@leaves_alone("FT602")
@pytest.mark.parametrize("places", [{}, {"h_0": 0, "h_1": 1}, {"h_0": "cpu", "h_1": "cpu"}])
def test_one_place_or_several_cards_are_left_alone(
    tmp_path: Path, places: dict[str, str | int]
) -> None:
    assert found(mapped(tmp_path, **places), "FT602") == ()


@catches("FT603")
@leaves_alone("FT603")
@pytest.mark.parametrize(
    ("gpus", "launched", "said"), [(2, False, True), (1, False, False), (2, True, False)]
)
def test_cards_without_a_launcher_are_counted(
    seen: Seen, gpus: int, launched: bool, said: bool
) -> None:
    findings = judged(with_setup(seen, gpus=gpus, launched=launched), "FT603").findings
    assert [one.severity for one in findings] == [WARNING] * said
    assert [one.sentence.startswith(f"{gpus} cards") for one in findings] == [True] * said


def refusal(name: str, *arguments: Any) -> str:
    """What a quantized model says when it is moved or cast."""
    with pytest.raises(ValueError, match=r"quantized|bitsandbytes") as raised:
        getattr(quantized(), name)(*arguments)
    return str(raised.value)


@catches("FT604")
@pytest.mark.parametrize(
    ("method", "dtype"),
    [("cuda", ""), ("half", ""), ("float", ""), ("to", "float16")],
)
def test_a_quantized_model_that_is_moved_or_cast_is_said(
    seen: Seen, method: str, dtype: str
) -> None:
    text = refusal(method, *([getattr(torch, dtype)] if dtype else []))
    for subject in (script(seen, failure=failing(text)), refused("x", "recipe", failing(text))):
        finding = only(judged(subject, "FT604").findings)
        assert finding.severity is ERROR
        assert finding.sentence == text
        assert finding.place == "train.py:3"


@leaves_alone("FT604")
@pytest.mark.parametrize(
    "text",
    [
        "out of memory",
        "CUDA is not supported for this build",
        "sort is not supported for 64-bit integers",
    ],
)
def test_other_failures_are_no_matter_of_quantization(seen: Seen, text: str) -> None:
    assert judged(script(seen, failure=failing(text)), "FT604").findings == ()
    assert judged(seen, "FT604").status is SKIPPED


CARD = card("rtx4070-laptop-8gb")
LEFT_BYTES = int(0.03 * CARD.capacity_bytes) + 1  # the least that is 3 % of the card


def predicted(**changes: Any) -> VramReport:
    report = VramReport(
        subject="x",
        how="predicted",
        card=CARD,
        peak_allocated_bytes=2**30,
        peak_reserved_bytes=2**30,
        fragmentation=0.0,
        context_bytes=0,
        needed_bytes=2**30,
        fits=True,
        failure=None,
        phases=(),
        peak=None,
        assumptions=(),
        seconds=0.0,
    )
    return dataclasses.replace(report, **changes)


@catches("FT701")
def test_what_does_not_fit_is_said_with_what_would_do(seen: Seen) -> None:
    where = OutOfMemory(
        message="CUDA out of memory. Tried to allocate 2 GiB\nand more",
        phase="step 1",
        op="aten::mm",
        module="lm_head",
    )
    report = predicted(fits=False, failure=where, needed_bytes=9 * 2**30)
    finding = only(judged(dataclasses.replace(seen, memory=report), "FT701").findings)
    assert finding.severity is ERROR
    assert finding.sentence.startswith(f"out of memory on {CARD.title} in step 1")
    assert finding.sentence.endswith("the smallest card that works has 9.00 GiB")
    assert finding.evidence == (
        "CUDA out of memory. Tried to allocate 2 GiB",
        "aten::mm in lm_head",
    )


@catches("FT701")
def test_what_does_not_fit_is_said_without_a_place(seen: Seen) -> None:
    finding = only(
        judged(
            dataclasses.replace(seen, memory=predicted(fits=False, needed_bytes=None)), "FT701"
        ).findings
    )
    assert finding.sentence == f"out of memory on {CARD.title}"
    assert finding.evidence == ()


@leaves_alone("FT701", "FT702")
@pytest.mark.parametrize(
    ("memory", "status", "barely"),
    [
        (predicted(), PASSED, PASSED),
        (predicted(fits=None, card=None), SKIPPED, SKIPPED),
        (failing(SAME), SKIPPED, SKIPPED),
        (failing("no kernel for x"), UNMEASURED, SKIPPED),
        (None, UNMEASURED, UNMEASURED),
    ],
)
def test_what_fits_or_is_not_known_is_left_alone(
    seen: Seen, memory: VramReport | Failure | None, status: Status, barely: Status
) -> None:
    for code, expected in (("FT701", status), ("FT702", barely)):
        one = judged(dataclasses.replace(seen, memory=memory), code)
        assert (one.status, one.findings) == (expected, ())


@catches("FT702")
@leaves_alone("FT702")
@pytest.mark.parametrize(
    ("left", "fits", "said"),
    [
        (0, True, True),
        (LEFT_BYTES - 1, True, True),
        (LEFT_BYTES, True, False),
        (None, True, False),
        (-1, False, False),
    ],
)
def test_less_than_three_percent_to_spare_is_a_note(
    seen: Seen, left: int | None, fits: bool, said: bool
) -> None:
    needed = None if left is None else CARD.capacity_bytes - left
    memory = predicted(needed_bytes=needed, fits=fits)
    findings = judged(dataclasses.replace(seen, memory=memory), "FT702").findings
    assert [one.severity for one in findings] == [NOTE] * said
    assert all(one.sentence.endswith(f"of {CARD.title} are left") for one in findings)
