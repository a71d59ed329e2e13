"""Adapters: reloaded, evaluated, merged, matched by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from ftcheck.assets import model_dir
from tests.regression.outcomes import ELSEWHERE, by_version, said_by, versions_of
from tests.regression.plain import base, lora, row, tensors, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=tensors([row(16)])["input_ids"]).logits


def saved_adapter(folder: Path) -> tuple[Any, Any]:
    """Save an adapter that changes the model; the logits of the base and of both together."""
    import torch

    model = lora(base())
    plain = logits(model.base_model.model)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted = logits(model)
    model.save_pretrained(str(folder))
    assert not torch.allclose(plain, adapted, atol=0.1)
    return plain, adapted


def whose(seen: Any, plain: Any, adapted: Any) -> str:
    import torch

    if torch.allclose(seen, adapted, atol=1e-5):
        return "the adapter's"
    return "the base model's" if torch.allclose(seen, plain, atol=1e-5) else "neither's"


RELOADED = (
    (versions_of("base-model-on-reload"), "the base model's"),
    (versions_of("base-model-on-reload-by-old-peft"), "the base model's"),
    (ELSEWHERE, "the adapter's"),
)


@by_version(*RELOADED)
def test_logits_of_auto_model_on_an_adapter_folder(tmp_path: Path) -> str:
    from transformers import AutoModelForCausalLM

    plain, adapted = saved_adapter(tmp_path)
    return whose(logits(AutoModelForCausalLM.from_pretrained(str(tmp_path))), plain, adapted)


@by_version(*RELOADED)
def test_logits_after_load_adapter(tmp_path: Path) -> str:
    plain, adapted = saved_adapter(tmp_path)
    model = base()
    model.load_adapter(str(tmp_path))
    return whose(logits(model), plain, adapted)


@by_version((ELSEWHERE, "the adapter's"))
def test_logits_of_peft_model(tmp_path: Path) -> str:
    from peft import PeftModel

    plain, adapted = saved_adapter(tmp_path)
    return whose(logits(PeftModel.from_pretrained(base(), str(tmp_path))), plain, adapted)


@by_version(({"peft": "<0.14"}, False), (ELSEWHERE, True))
def test_missing_adapter_weights_are_warned_of(tmp_path: Path) -> bool:
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    saved_adapter(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({f"other.{name}": value for name, value in load_file(file).items()}, file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PeftModel.from_pretrained(base(), str(tmp_path))
    return any("Found missing adapter keys" in str(warning.message) for warning in caught)


@by_version(({"transformers": "<4.55"}, False), (ELSEWHERE, True))
def test_eval_loss_without_a_task_type(tmp_path: Path) -> bool:
    return "eval_loss" in trainer(tmp_path, lora(base(), task_type=None)).evaluate()


@by_version((ELSEWHERE, True))
def test_eval_loss_with_a_task_type(tmp_path: Path) -> bool:
    return "eval_loss" in trainer(tmp_path, lora(base())).evaluate()


@by_version((ELSEWHERE, False))
def test_eval_loss_with_wrong_label_names(tmp_path: Path) -> bool:
    return "eval_loss" in trainer(tmp_path, base(), label_names=["label"]).evaluate()


@by_version(({"transformers": "<5"}, False), (ELSEWHERE, True))
def test_a_trained_copy_of_the_tied_head_survives_merging(tmp_path: Path) -> bool:
    """It is saved in the folder; before 5.0 loading ties the head to the embedding again."""
    import torch
    from transformers import AutoModelForCausalLM

    model = lora(base(), modules_to_save=["lm_head"])
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    merged = model.merge_and_unload()
    before = logits(merged)
    merged.save_pretrained(str(tmp_path))
    after = logits(AutoModelForCausalLM.from_pretrained(str(tmp_path)))
    return torch.allclose(before, after, atol=1e-4)


@by_version((ELSEWHERE, ["attn.c_attn"]))
def test_a_target_that_matches_nothing_is_ignored_beside_one_that_does() -> list[str]:
    return adapted(lora(base(), target_modules=["c_attn", "v_proj"]))


@by_version((ELSEWHERE, ["attn.c_proj", "mlp.c_proj"]))
def test_a_target_matches_every_module_that_ends_so() -> list[str]:
    return adapted(lora(base(), target_modules=["c_proj"]))


def adapted(model: Any) -> list[str]:
    names = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    return sorted({".".join(name.split(".")[-2:]) for name in names})


@by_version((ELSEWHERE, "ValueError"))
def test_targets_that_match_nothing() -> str:
    try:
        lora(base(), target_modules=["q_proj"])
    except ValueError as error:
        assert "Target modules {'q_proj'} not found in the base model" in str(error)
        return "ValueError"
    return "nothing"


@by_version((ELSEWHERE, False))
def test_the_seed_of_the_trainer_seeds_the_adapter(tmp_path: Path) -> bool:
    """It is drawn before the Trainer sets a seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    drawn = []
    for before in (1, 2):
        torch.manual_seed(before)
        settings = LoraConfig(r=4, target_modules=["c_attn"], task_type="CAUSAL_LM")
        model = get_peft_model(base(), settings)
        trainer(tmp_path, model, seed=42)
        drawn.append(next(p for name, p in model.named_parameters() if "lora_A" in name))
    return bool((drawn[0] == drawn[1]).all())


@by_version((ELSEWHERE, True))
def test_a_tokenizer_on_an_adapter_folder_raises(tmp_path: Path) -> bool:
    from transformers import AutoTokenizer

    saved_adapter(tmp_path)
    said = said_by(lambda: AutoTokenizer.from_pretrained(str(tmp_path)))
    return said.startswith(("OSError", "ValueError", "ImportError"))


@by_version(({"transformers": ">=5.0,<5.1"}, False), (ELSEWHERE, True))
def test_weights_stay_tied_on_the_meta_device() -> bool:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(model_dir())))
    return model.lm_head.weight is model.transformer.wte.weight
