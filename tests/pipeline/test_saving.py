"""What comes back computes what was trained, and a difference stops the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcheck.errors import InputError, ReloadMismatch
from ftcheck.pipeline import RunFolder, RunResult, run
from ftcheck.pipeline.saving import compare
from ftcheck.recipe import Recipe
from tests.helpers.recipes import small_recipe
from tests.helpers.versions import base_model_on_reload, skip_unless_runnable

pytestmark = pytest.mark.filterwarnings("ignore")


def trained(recipe: Recipe, folder: Path) -> RunResult:
    return run(recipe, RunFolder.at(folder))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["quantization.load_in_8bit=true"],
        ["quantization.load_in_4bit=true", "quantization.bnb_4bit_quant_type=nf4"],
        ["quantization.load_in_4bit=true", "quantization.bnb_4bit_quant_type=fp4"],
        [
            "quantization.load_in_4bit=true",
            "quantization.bnb_4bit_quant_type=nf4",
            "quantization.bnb_4bit_use_double_quant=true",
        ],
        ["model.dtype=bfloat16"],
        ["training.bf16=true", "quantization.load_in_8bit=true"],
        ["training.bf16=true", "quantization.load_in_4bit=true"],
        ["model.reload_with=auto"],
        ["training.gradient_checkpointing=true"],
        [
            "training.gradient_checkpointing=true",
            "training.gradient_checkpointing_kwargs={use_reentrant=false}",
        ],
        [
            "training.gradient_checkpointing=true",
            "training.gradient_checkpointing_kwargs={use_reentrant=true}",
        ],
        ["training.gradient_checkpointing=true", "quantization.load_in_8bit=true"],
        ["tokenization.pad_token=<|pad|>"],
        ["tokenization.pad_token=<|pad|>", "quantization.load_in_8bit=true"],
        ["tokenization.packing=true"],
        ["training.train_sampling_strategy=group_by_length"],
        ["lora.use_dora=true"],
        ['lora.modules_to_save=["lm_head"]', "training.learning_rate=1e-3"],
    ],
    ids=lambda overrides: "+".join(o.split(".", 1)[1] for o in overrides) or "plain",
)
def test_reload_gives_the_same_logits(tmp_path: Path, overrides: list[str]) -> None:
    skip_unless_runnable(overrides)
    recipe = small_recipe("training.learning_rate=1e-2", *overrides)
    result = trained(recipe, tmp_path / "run")
    assert result.reload is not None
    assert result.reload.difference <= result.reload.tolerance
    # Training moved the logits by far more than the tolerance: a lost adapter would be seen.
    assert result.reload.adapter_effect > 10 * result.reload.tolerance
    assert result.training.steps == 4
    assert result.after is not None
    assert result.before is not None
    assert result.after.loss < result.before.loss
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))


def test_auto_reload_does_not_go_with_a_new_pad_token(tmp_path: Path) -> None:
    recipe = small_recipe("tokenization.pad_token=<|pad|>", "model.reload_with=auto")
    with pytest.raises(InputError, match=r'"auto" loads a base with \d+ embedding rows'):
        trained(recipe, tmp_path / "run")


def test_full_fine_tuning_saves_the_whole_model(tmp_path: Path) -> None:
    import dataclasses

    recipe = dataclasses.replace(small_recipe("training.learning_rate=1e-3"), lora=None)
    result = trained(recipe, tmp_path / "run")
    assert result.parameters.trainable == result.parameters.total
    assert result.parameters.adapted == {}
    assert (tmp_path / "run" / "adapter" / "model.safetensors").is_file()
    assert result.reload is not None
    assert result.reload.difference <= result.reload.tolerance


def test_the_adapter_folder_is_usable_by_hand(tmp_path: Path) -> None:
    """As people load it: base, PeftModel, tokenizer from the adapter folder, generate."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftcheck.assets import model_dir

    recipe = small_recipe("training.learning_rate=1e-2")
    result = trained(recipe, tmp_path / "run")
    adapter = str(tmp_path / "run" / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(str(model_dir())), adapter
    ).eval()
    inputs = tokenizer([result.samples[0].prompt], return_tensors="pt").to(model.device)
    ids = model.generate(
        **inputs,
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == result.samples[0].after
    assert model.get_base_model().config.use_cache is True


def test_b_has_moved_in_every_layer_and_the_base_has_not(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trained(small_recipe("training.learning_rate=1e-2"), tmp_path / "run")
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    b = {name: value for name, value in weights.items() if "lora_B" in name}
    assert len(b) == 12
    assert all(float(value.abs().max()) > 0 for value in b.values())
    assert set(weights) == {
        f"base_model.model.transformer.h.{layer}.{kind}.lora_{ab}.weight"
        for layer in range(4)
        for kind in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")
        for ab in "AB"
    }


@pytest.mark.parametrize(("times", "passes"), [(0.99, True), (1.01, False)])
def test_the_tolerance_is_a_limit(times: float, passes: bool) -> None:
    import torch

    saved = torch.full((3, 5), 10.0)
    recipe = small_recipe()
    loaded = saved.clone()
    loaded[1, 2] += 1e-3 * times
    base = saved - 3
    if passes:
        assert compare(saved, loaded, base, recipe).difference == pytest.approx(
            1e-3 * times, rel=1e-2
        )
    else:
        with pytest.raises(ReloadMismatch, match="does not compute what was trained"):
            compare(saved, loaded, base, recipe)


def test_a_lost_adapter_is_named() -> None:
    import torch

    saved, base = torch.full((3, 5), 10.0), torch.full((3, 5), 7.0)
    with pytest.raises(ReloadMismatch, match="those of the base model: the adapter was lost") as e:
        compare(saved, base.clone(), base, small_recipe())
    assert e.value.difference == pytest.approx(3.0)
    assert e.value.exit_code == 1


def test_not_a_number_never_passes() -> None:
    import torch

    saved = torch.full((2, 2), float("nan"))
    with pytest.raises(ReloadMismatch, match="off by nan"):
        compare(saved, saved, saved, small_recipe())


def test_a_damaged_adapter_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is zeroed between saving and loading, as a full disk or a wrong copy would."""
    from safetensors.torch import load_file, save_file

    from ftcheck.pipeline import saving

    real = saving.reload

    def damaged(recipe: Recipe, folder: Path, **how: Any) -> Any:
        file = folder / "adapter_model.safetensors"
        save_file({name: value * 0 for name, value in load_file(file).items()}, file)
        return real(recipe, folder, **how)

    monkeypatch.setattr(saving, "reload", damaged)
    with pytest.raises(ReloadMismatch, match="adapter was lost"):
        trained(small_recipe("training.learning_rate=1e-2"), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.skipif(
    not base_model_on_reload(),
    reason="only some versions give the base model for an adapter folder (ftcheck doctor)",
)
def test_auto_reload_is_caught_where_it_gives_the_base_model(tmp_path: Path) -> None:
    recipe = small_recipe("training.learning_rate=1e-2", "model.reload_with=auto")
    with pytest.raises(ReloadMismatch, match="adapter was lost"):
        trained(recipe, tmp_path / "run")
