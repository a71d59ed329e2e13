"""Checks of arguments and modules, each from both sides, on live trainers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checks.cases import Build, Cases, both_sides
from tests.checks.toys import base, found, lora, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about what is built wrong


def of(**arguments: Any) -> Build:
    return lambda folder: trainer(folder, arguments=arguments, evaluation=rows()[:8])


def with_lora(**config: Any) -> Build:
    return lambda folder: trainer(folder, model=lora(**config))


def changed(change: Callable[[Any], Any], **config: Any) -> Build:
    """A trainer whose wrapped model was changed."""

    def build(folder: Path) -> Any:
        model = lora(**config)
        return trainer(folder, model=change(model) or model)

    return build


def frozen(model: Any) -> None:
    for parameter in model.parameters():
        parameter.requires_grad = False


def base_trained(model: Any) -> None:
    model.get_base_model().transformer.wte.weight.requires_grad = True


def wrapped_again(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules=["c_fc"], task_type="CAUSAL_LM"))


def second_adapter(model: Any) -> None:
    from peft import LoraConfig

    model.add_adapter("second", LoraConfig(target_modules=["c_fc"], task_type="CAUSAL_LM"))


def with_nan(model: Any) -> None:
    model.get_base_model().transformer.wte.weight.data[3, 3] = float("nan")


def half(dtype: str, **arguments: Any) -> Build:
    import torch

    return lambda folder: trainer(
        folder, model=base().to(getattr(torch, dtype)), arguments=arguments
    )


def mapped(**places: str) -> Build:
    def build(folder: Path) -> Any:
        made = trainer(folder)
        made.model.get_base_model().hf_device_map = places
        return made

    return build


def several_cards(count: int) -> Build:
    def build(folder: Path) -> Any:
        made = trainer(folder)
        made.args._n_gpu = count
        return made

    return build


def with_column(name: str, *, numbers: bool) -> Build:
    def build(folder: Path) -> Any:
        extra = [{**row, name: [1.0] * 48 if numbers else "words"} for row in rows()]
        return trainer(folder, train=extra)

    return build


def early_stopping(**arguments: Any) -> Build:
    def build(folder: Path) -> Any:
        from transformers import EarlyStoppingCallback

        return trainer(
            folder,
            evaluation=rows()[:8],
            arguments=arguments,
            callbacks=[EarlyStoppingCallback()],
        )

    return build


BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}

CASES: Cases = {
    "FT105": (
        with_column("loss_weights", numbers=True),
        "warning",
        (with_column("notes", numbers=False), with_column("special_tokens_mask", numbers=True)),
    ),
    "FT109": (
        of(load_best_model_at_end=True, eval_strategy="epoch", save_strategy="epoch"),
        "note",
        (
            of(),
            lambda folder: trainer(
                folder,
                evaluation=rows()[:10],
                arguments={
                    "load_best_model_at_end": True,
                    "eval_strategy": "epoch",
                    "save_strategy": "epoch",
                },
            ),
        ),
    ),
    "FT302": (
        with_lora(target_modules=["c_attn", "v_proj"]),
        "error",
        (with_lora(target_modules=["c_attn", "c_proj"]), with_lora(target_modules=".*c_attn")),
    ),
    "FT303": (
        with_lora(target_modules=["c_attn", "c_proj"]),
        "note",
        (with_lora(target_modules=["c_attn", "attn.c_proj"]),),
    ),
    "FT304": (with_lora(lora_alpha=0), "error", (with_lora(lora_alpha=1),)),
    "FT305": (
        with_lora(lora_dropout=0.7),
        "warning",
        (with_lora(lora_dropout=0.69), with_lora(lora_dropout=0.0)),
    ),
    "FT306": (changed(frozen), "error", (with_lora(),)),
    "FT307": (
        changed(base_trained),
        "warning",
        (with_lora(), with_lora(bias="lora_only"), with_lora(modules_to_save=["ln_f"])),
    ),
    "FT308": (changed(wrapped_again), "warning", (changed(second_adapter),)),
    "FT309": (
        with_lora(target_modules=["c_attn", "lm_head"], fan_in_fan_out=False),
        "warning",
        (with_lora(target_modules=["c_attn", "c_fc"]),),
    ),
    "FT310": (
        with_lora(modules_to_save=["lm_head"]),
        "note",
        (with_lora(modules_to_save=["ln_f"]),),
    ),
    "FT312": (
        changed(lambda model: model.base_model.disable_adapter_layers()),
        "error",
        (changed(second_adapter),),
    ),
    "FT313": (with_lora(r=32), "note", (with_lora(r=31),)),
    "FT403": (of(learning_rate=0.0), "error", (of(learning_rate=1e-7),)),
    "FT404": (
        of(learning_rate=0.1),
        "error",
        (of(learning_rate=0.09), of(learning_rate=0.5, optim="sgd")),
    ),
    "FT415": (changed(with_nan), "error", (with_lora(),)),
    "FT417": (of(auto_find_batch_size=True), "note", (of(),)),
    "FT422": (
        of(save_total_limit=1, eval_strategy="epoch"),
        "note",
        (
            of(save_total_limit=1),
            of(
                save_total_limit=1,
                eval_strategy="epoch",
                save_strategy="epoch",
                load_best_model_at_end=True,
            ),
        ),
    ),
    "FT427": (of(warmup_steps=1.0), "warning", (of(warmup_steps=1), of(warmup_steps=0.1))),
    "FT428": (
        of(**BEST, metric_for_best_model="loss", greater_is_better=True),
        "error",
        (
            of(**BEST, metric_for_best_model="loss"),
            of(metric_for_best_model="loss", greater_is_better=True),
        ),
    ),
    "FT501": (half("float16", fp16=True), "error", (half("float32", fp16=True), half("float16"))),
    "FT502": (of(fp16=True), "note", (of(), of(bf16=True))),
    "FT503": (half("float16"), "warning", (half("float32"), half("float16", fp16=True))),
    "FT507": (
        half("bfloat16", fp16=True),
        "warning",
        (half("bfloat16"), half("float32", fp16=True)),
    ),
    "FT602": (
        mapped(**{"transformer.h.0": "0", "transformer.h.1": "cpu"}),
        "warning",
        (mapped(**{"": "cpu"}), mapped(**{"transformer.h.0": "0", "lm_head": "1"})),
    ),
    "FT603": (several_cards(2), "warning", (several_cards(1), several_cards(0))),
}
test_it_catches_what_is_wrong, test_it_leaves_near_misses_alone = both_sides(CASES, __name__)


def test_worse_than_a_warning_and_better(tmp_path: Path) -> None:
    assert found(with_lora(lora_dropout=0.95)(tmp_path), "FT305")[0].severity.value == "error"
    assert found(half("bfloat16")(tmp_path), "FT503")[0].severity.value == "note"
    stopping = early_stopping(
        save_total_limit=1, eval_strategy="epoch", metric_for_best_model="eval_loss"
    )
    assert found(stopping(tmp_path), "FT422")[0].severity.value == "warning"
