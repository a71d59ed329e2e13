"""FT301 to FT314: adapters, from both sides of each limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ftcheck.checks.adapter
from ftcheck.checks.facts import Call, Record
from ftcheck.checks.finding import Finding, Severity, Status
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.checks.observe.looking import look_at, refused
from ftcheck.subjects.check import check_recipe
from ftcheck.subjects.trainer import trainer_subject
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, judged, lora, trainer
from tests.helpers.recipes import small_recipe

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
"""What peft says of such models is not what is tested here."""


def only(made: Any, code: str) -> Finding:
    (finding,) = found(made, code)
    return finding


def changed(model: Any, *parts: str, trainable: bool = True) -> Any:
    """The model, with `requires_grad` set where a name has one of the parts."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in parts):
            parameter.requires_grad_(trainable)
    return model


def second(model: Any, *, r: int = 4) -> Any:
    """The model, with another adapter beside its own."""
    from peft import LoraConfig

    model.add_adapter("second", LoraConfig(r=r, target_modules=["c_attn"]))
    return model


# ------------------------------------------------------------------------ what it is put on


def refusal(error: Exception, *, of_the_script: bool) -> tuple[Finding, ...]:
    """What FT301 says where building a subject, or a script after its looks, raised this."""
    failure = failure_of(error, "running the script")
    seen = refused("train.py", "script", failure)
    if of_the_script:
        seen = refused(
            "train.py",
            "script",
            failure_of(SystemExit("3"), "running the script"),
            record=Record(failure=failure),
        )
    return judged(seen, "FT301").findings


@catches("FT301")
@pytest.mark.parametrize("of_the_script", [False, True])
def test_targets_that_peft_does_not_find_are_said(of_the_script: bool) -> None:
    with pytest.raises(ValueError, match="Target modules") as raised:
        lora(target_modules=["q_proj", "v_proj"])
    (finding,) = refusal(raised.value, of_the_script=of_the_script)
    assert finding.severity is Severity.ERROR
    assert "q_proj" in finding.sentence
    assert finding.key == "lora.target_modules"


@catches("FT301")
def test_targets_that_a_recipe_does_not_have_are_said() -> None:
    report = check_recipe(small_recipe('lora.target_modules=["q_proj"]'), select=["FT301"])
    (finding,) = report.findings
    assert finding.severity is Severity.ERROR
    assert "'q_proj'" in finding.sentence
    assert any("c_attn" in line for line in finding.evidence)


@leaves_alone("FT301")
@pytest.mark.parametrize("of_the_script", [False, True])
def test_another_fault_of_the_adapter_is_not_about_its_targets(of_the_script: bool) -> None:
    with pytest.raises(ValueError, match="positive integer") as raised:
        lora(r=0)
    assert refusal(raised.value, of_the_script=of_the_script) == ()
    assert refusal(FileNotFoundError("rows.jsonl not found"), of_the_script=of_the_script) == ()


@catches("FT302")
@pytest.mark.parametrize("targets", [["c_attn", "v_proj"], ["attn.c_attn", "mlp.c_attn"]])
def test_a_target_without_a_module_is_named(tmp_path: Path, targets: list[str]) -> None:
    finding = only(trainer(tmp_path, model=lora(target_modules=targets)), "FT302")
    assert finding.severity is Severity.ERROR
    assert repr(targets[1]) in finding.sentence
    assert repr(targets[0]) not in finding.sentence
    assert "c_fc" in finding.evidence[0]


@catches("FT303")
def test_a_name_in_two_places_of_a_block_is_noted_with_the_counts(tmp_path: Path) -> None:
    finding = only(trainer(tmp_path, model=lora(target_modules=["c_attn", "c_proj"])), "FT303")
    assert finding.severity is Severity.NOTE
    assert finding.sentence == "'c_proj' adapts modules in 2 places: 2 in attn, 2 in mlp"


@leaves_alone("FT302", "FT303")
@pytest.mark.parametrize(
    ("code", "targets"),
    [
        ("FT302", ["c_attn", "c_proj"]),
        ("FT302", ["attn.c_attn", "transformer.h.0.mlp.c_fc"]),
        ("FT302", ".*(c_attn|v_proj)"),
        ("FT302", "all-linear"),
        ("FT303", ["c_attn"]),
        ("FT303", ["attn.c_proj", "mlp.c_proj"]),
    ],
)
def test_targets_that_have_modules_in_one_place_are_left_alone(
    tmp_path: Path, code: str, targets: Any
) -> None:
    assert found(trainer(tmp_path, model=lora(target_modules=targets)), code) == ()


@catches("FT314")
@leaves_alone("FT314")
@pytest.mark.parametrize("seeded", [False, True])
def test_an_adapter_that_is_drawn_before_a_seed_is_set_is_noted(
    tmp_path: Path, seeded: bool
) -> None:
    call = Call(what="wrap", place="train.py:3", when="before", facts={"seeded": seeded})
    seen = look_at(trainer_subject(trainer(tmp_path)), set())
    seen = dataclasses.replace(seen, kind="script", record=Record(calls=(call,)))
    outcome = judged(seen, "FT314")
    assert outcome.status is Status.PASSED
    assert [(one.severity, one.place) for one in outcome.findings] == (
        [] if seeded else [(Severity.NOTE, "train.py:3")]
    )
    assert check_one(trainer(tmp_path), "FT314").status is Status.SKIPPED


@catches("FT309")
@pytest.mark.parametrize("name", ["lm_head", "embed_out", "wte", "embed_tokens", "embed_in"])
def test_tied_weights_have_many_names(tmp_path: Path, name: str) -> None:
    """Of GPT-2, Llama, OPT, GPT-NeoX and their like."""
    seen = look_at(trainer_subject(trainer(tmp_path)), set())
    setup = seen.need("setup")
    (adapter,) = setup.adapters
    on = {"target_modules": ["c_attn", f"model.{name}", f"{name}_norm"]}
    setup = dataclasses.replace(setup, adapters=(dataclasses.replace(adapter, config=on),))
    (finding,) = judged(dataclasses.replace(seen, setup=setup), "FT309").findings
    assert f"the adapter is on model.{name}, whose" in finding.sentence


# ------------------------------------------------------------------------ its numbers


@catches("FT304")
def test_an_alpha_of_zero_is_an_error(tmp_path: Path) -> None:
    finding = only(trainer(tmp_path, model=lora(lora_alpha=0)), "FT304")
    assert finding.severity is Severity.ERROR
    assert finding.fix.change == {"lora.lora_alpha": 8}
    assert finding.fix.text == "Set lora_alpha to 8."


@leaves_alone("FT304", "FT305", "FT313")
@pytest.mark.parametrize(
    ("code", "config"),
    [
        ("FT304", {"lora_alpha": 1}),
        ("FT304", {"lora_alpha": 0.01}),
        ("FT305", {"lora_dropout": 0.0}),
        ("FT305", {"lora_dropout": 0.69}),
        ("FT313", {"r": 31}),
    ],
)
def test_numbers_below_the_limits_are_left_alone(
    tmp_path: Path, code: str, config: dict[str, Any]
) -> None:
    assert found(trainer(tmp_path, model=lora(**config)), code) == ()


@leaves_alone("FT304", "FT305", "FT313")
@pytest.mark.parametrize("code", ["FT304", "FT305", "FT313"])
def test_an_adapter_without_such_numbers_is_left_alone(tmp_path: Path, code: str) -> None:
    from peft import IA3Config, get_peft_model

    config = IA3Config(target_modules=["c_attn"], feedforward_modules=[], task_type="CAUSAL_LM")
    assert found(trainer(tmp_path, model=get_peft_model(base(), config)), code) == ()


@catches("FT305")
@pytest.mark.parametrize(
    ("rate", "severity", "share"),
    [
        (0.7, Severity.WARNING, "30 %"),
        (0.94, Severity.WARNING, "6 %"),
        (0.95, Severity.ERROR, "5 %"),
        (1.0, Severity.ERROR, "0 %"),
    ],
)
def test_a_dropout_from_seven_tenths_on_is_said(
    tmp_path: Path, rate: float, severity: Severity, share: str
) -> None:
    finding = only(trainer(tmp_path, model=lora(lora_dropout=rate)), "FT305")
    assert finding.severity is severity
    assert finding.sentence.endswith(f"sees {share} of its input")
    assert finding.fix.change == {"lora.lora_dropout": 0.05}


@catches("FT313")
@pytest.mark.parametrize("r", [32, 64])
def test_a_rank_as_large_as_the_model_is_wide_is_noted(tmp_path: Path, r: int) -> None:
    finding = only(trainer(tmp_path, model=lora(r=r)), "FT313")
    assert finding.severity is Severity.NOTE
    assert finding.sentence == f"r is {r}, and the smaller side of 2 matrices is 32"
    assert finding.evidence[0].endswith("h.0.attn.c_attn")


def llama() -> Any:
    """A Llama of two layers, 32 wide, whose `k_proj` is a matrix of 8 × 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 2048}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 128}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


@catches("FT313")
@leaves_alone("FT313")
@pytest.mark.parametrize(
    ("config", "count"),
    [({"r": 8}, 1), ({"r": 7}, 0), ({"r": 4, "rank_pattern": {"0.self_attn.k_proj": 8}}, 1)],
)
def test_a_rank_as_large_as_the_smaller_side_of_its_matrix_is_noted(
    tmp_path: Path, config: dict[str, Any], count: int
) -> None:
    model = lora(llama(), target_modules=["k_proj"], **config)
    assert len(found(trainer(tmp_path, model=model), "FT313")) == count


# ------------------------------------------------------------------------ what is trained


def loaded_to_generate(folder: Path) -> Any:
    from peft import PeftModel

    lora().save_pretrained(folder / "saved")
    return PeftModel.from_pretrained(base(), folder / "saved")


@catches("FT306")
@pytest.mark.parametrize(
    ("make", "sentence", "fix"),
    [
        (loaded_to_generate, "none of the 33 parameters is trained", "is_trainable=True"),
        (lambda _: lora().requires_grad_(False), "none of the 33 parameters", "Freeze the base"),
        (lambda _: base().requires_grad_(False), "none of the 29 parameters", "Freeze the base"),
        (
            lambda _: changed(lora().requires_grad_(False), "ln_f"),
            "the adapter's 4 tensors are frozen, and the base is trained",
            "Freeze the base",
        ),
    ],
)
def test_a_frozen_adapter_is_an_error(
    tmp_path: Path, make: Callable[[Path], Any], sentence: str, fix: str
) -> None:
    finding = only(trainer(tmp_path, model=make(tmp_path)), "FT306")
    assert finding.severity is Severity.ERROR
    assert sentence in finding.sentence
    assert fix in finding.fix.text


def loaded_to_train(folder: Path) -> Any:
    from peft import PeftModel

    lora().save_pretrained(folder / "saved")
    return PeftModel.from_pretrained(base(), folder / "saved", is_trainable=True)


@leaves_alone("FT306")
@pytest.mark.parametrize(
    "make",
    [
        loaded_to_train,
        lambda _: base(),
        lambda _: changed(base().requires_grad_(False), "ln_f"),
        lambda _: changed(lora(), "lora_A", trainable=False),
    ],
)
def test_a_model_of_which_some_is_trained_is_left_alone(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    assert found(trainer(tmp_path, model=make(tmp_path)), "FT306") == ()


@catches("FT306")
@leaves_alone("FT306")
@pytest.mark.parametrize("trained", ["default", "second"])
def test_an_adapter_that_is_used_and_frozen_beside_one_that_is_trained(
    tmp_path: Path, trained: str
) -> None:
    model = second(lora())
    model.set_adapter("second")
    changed(changed(model, "lora_", trainable=False), f".{trained}.")
    said = [finding.sentence for finding in found(trainer(tmp_path, model=model), "FT306")]
    frozen = "the adapter's 4 tensors are frozen, and another adapter is trained"
    assert said == ([] if trained == "second" else [frozen])


@catches("FT307")
@pytest.mark.parametrize(
    ("model", "count"),
    [
        (lambda: changed(lora(), "ln_f"), 2),
        (lambda: changed(lora(), "ln_f.bias"), 1),
        (lambda: changed(lora(modules_to_save=["lm_head"]), "ln_f"), 2),
        (lambda: changed(lora(bias="lora_only"), "ln_f"), 2),
        (lambda: changed(lora(bias="all"), "ln_f"), 1),
        (lambda: changed(lora(trainable_token_indices=[5]), "ln_f"), 2),
    ],
)
def test_a_base_that_is_trained_beside_its_adapter_is_said(
    tmp_path: Path, model: Callable[[], Any], count: int
) -> None:
    finding = only(trainer(tmp_path, model=model()), "FT307")
    assert finding.severity is Severity.WARNING
    assert finding.sentence.startswith(f"{count} parameters of the base are trained")
    assert all("ln_f" in name for name in finding.evidence)


@leaves_alone("FT307")
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head", "ln_f"]},
        {"trainable_token_indices": [5, 6]},
    ],
)
def test_what_an_adapter_asks_to_train_is_its_own(tmp_path: Path, config: dict[str, Any]) -> None:
    assert found(trainer(tmp_path, model=lora(**config)), "FT307") == ()


@catches("FT312")
@pytest.mark.parametrize("how", ["disable_adapter_layers", "merge_adapter"])
def test_an_adapter_that_is_not_used_is_an_error(tmp_path: Path, how: str) -> None:
    model = lora()
    getattr(model, how)()
    finding = only(trainer(tmp_path, model=model), "FT312")
    assert finding.severity is Severity.ERROR
    assert finding.sentence == "no adapter is active (default): it is disabled or merged"


@leaves_alone("FT312")
@pytest.mark.parametrize(
    "how",
    [
        ("disable_adapter_layers", "enable_adapter_layers"),
        ("merge_adapter", "unmerge_adapter"),
        (),
    ],
)
def test_an_adapter_that_is_used_again_is_left_alone(tmp_path: Path, how: tuple[str, ...]) -> None:
    model = lora()
    for name in how:
        getattr(model, name)()
    assert found(trainer(tmp_path, model=model), "FT312") == ()


@leaves_alone("FT308", "FT312")
@pytest.mark.parametrize("code", ["FT308", "FT312"])
def test_a_second_adapter_beside_the_first_is_left_alone(tmp_path: Path, code: str) -> None:
    model = second(lora())
    model.set_adapter("second")
    assert found(trainer(tmp_path, model=model), code) == ()


# ------------------------------------------------------------------------ wrapped and tied


@catches("FT308")
def test_a_model_that_is_wrapped_twice_is_said(tmp_path: Path) -> None:
    finding = only(trainer(tmp_path, model=lora(lora())), "FT308")
    assert finding.severity is Severity.WARNING


@leaves_alone("FT308")
def test_a_model_that_was_unloaded_before_it_is_wrapped_again(tmp_path: Path) -> None:
    assert found(trainer(tmp_path, model=lora(lora().merge_and_unload())), "FT308") == ()
    assert check_one(trainer(tmp_path, model=base()), "FT308").status is Status.SKIPPED


@catches("FT309")
@pytest.mark.parametrize(
    ("targets", "name"),
    [(["c_attn", "lm_head"], "lm_head"), (["wte"], "wte"), (".*(c_attn|lm_head)", "lm_head")],
)
def test_an_adapter_on_tied_weights_is_said(tmp_path: Path, targets: Any, name: str) -> None:
    finding = only(trainer(tmp_path, model=lora(target_modules=targets)), "FT309")
    assert finding.severity is Severity.WARNING
    assert f"the adapter is on {name}, whose weights are tied" in finding.sentence


@catches("FT310")
@pytest.mark.parametrize(
    ("version", "severity"), [("4.57.1", Severity.WARNING), ("5.0.0", Severity.NOTE)]
)
@pytest.mark.parametrize("name", ["lm_head", "wte"])
def test_a_copy_of_one_of_two_tied_matrices_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, severity: Severity
) -> None:
    model = lora(modules_to_save=[name])
    monkeypatch.setattr(ftcheck.checks.adapter, "installed_version", lambda _: version)
    finding = only(trainer(tmp_path, model=model), "FT310")
    assert finding.severity is severity
    assert finding.sentence == f"modules_to_save copies {name}, whose weights are tied"


@leaves_alone("FT309", "FT310")
@pytest.mark.parametrize(
    ("code", "tied", "config"),
    [
        ("FT309", True, {"target_modules": ["c_attn", "c_proj"]}),
        ("FT309", True, {"target_modules": ".*(c_attn|c_fc)"}),
        ("FT309", True, {"target_modules": ["c_attn", "lm_head"], "ensure_weight_tying": True}),
        ("FT309", False, {"target_modules": ["c_attn", "lm_head"]}),
        ("FT310", True, {"modules_to_save": ["ln_f"]}),
        ("FT310", True, {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
        ("FT310", False, {"modules_to_save": ["lm_head"]}),
        ("FT310", True, {}),
    ],
)
def test_what_is_beside_tied_weights_is_left_alone(
    tmp_path: Path, code: str, tied: bool, config: dict[str, Any]
) -> None:
    model = lora(base(tie_word_embeddings=tied), **config)
    assert found(trainer(tmp_path, model=model), code) == ()
