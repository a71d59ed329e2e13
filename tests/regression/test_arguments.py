"""Arguments that went, changed their meaning, or are taken and not obeyed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ftcheck.assets import model_dir
from tests.regression.outcomes import (
    ELSEWHERE,
    Outcome,
    by_version,
    compare,
    expected_outcome,
    said_by,
)
from tests.regression.plain import base, logged, lora, trainer

pytestmark = pytest.mark.filterwarnings("ignore")

REMOVED: dict[str, tuple[Any, str]] = {
    "evaluation_strategy": ("no", "4.47"),
    "no_cuda": (True, "5.0"),
    "overwrite_output_dir": (True, "5.0"),
    "save_safetensors": (True, "5.0"),
    "use_mps_device": (False, "5.0"),
    "jit_mode_eval": (False, "5.0"),
    "half_precision_backend": ("auto", "5.0"),
    "include_inputs_for_metrics": (False, "5.0"),
    "group_by_length": (True, "5.5"),
    "logging_dir": ("logs", "5.15"),
    "warmup_ratio": (0.1, "5.15"),
}
"""Argument of `TrainingArguments` to a value and the first version without it."""
ADDED = {"eval_strategy": ("no", "4.41"), "activation_checkpointing": (False, "5.23")}
"""Likewise, to the first version with it."""


def refused(name: str) -> re.Pattern[str]:
    return re.compile(rf"^TypeError: .*got an unexpected keyword argument '{name}'$")


def rows_of(name: str) -> tuple[Outcome, ...]:
    if name in REMOVED:
        return ({"transformers": f">={REMOVED[name][1]}"}, refused(name)), (ELSEWHERE, "nothing")
    return ({"transformers": f">={ADDED[name][1]}"}, "nothing"), (ELSEWHERE, refused(name))


@pytest.mark.parametrize("name", [*REMOVED, *ADDED])
def test_arguments_come_and_go(tmp_path: Path, name: str) -> None:
    from transformers import TrainingArguments

    value = {**REMOVED, **ADDED}[name][0]
    said = said_by(lambda: TrainingArguments(output_dir=str(tmp_path), **{name: value}))
    compare(said, expected_outcome(rows_of(name)))


@by_version(({"transformers": ">=5"}, refused("tokenizer")), (ELSEWHERE, "nothing"))
def test_trainer_with_a_tokenizer(tmp_path: Path) -> str:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    return said_by(lambda: Trainer(model=base(), args=arguments, tokenizer=None))


@by_version(
    ({"transformers": ">=5"}, refused("load_in_8bit")),
    ({"transformers": ">=4.55"}, "nothing"),
    (ELSEWHERE, re.compile("^(RuntimeError|ImportError): ")),  # no GPU
)
def test_from_pretrained_with_load_in_8bit() -> str:
    return said_by(lambda: base(load_in_8bit=True))


@by_version(
    ({"transformers": ">=5,<5.15"}, 1),
    ({"transformers": ">=5.15"}, "gone"),
    (ELSEWHERE, 100),
)
def test_steps_of_a_warm_up_over_the_whole_run(tmp_path: Path) -> object:
    """The ratio became a warmup_steps of 1.0, which is one step."""
    from transformers import TrainingArguments

    given = {"output_dir": str(tmp_path), "warmup_ratio": 1.0}
    if said_by(lambda: TrainingArguments(**given)) != "nothing":
        return "gone"
    return TrainingArguments(**given).get_warmup_steps(100)


@by_version(
    ({"transformers": ">=5"}, 10),
    ({"transformers": ">=4.46"}, re.compile("^ValueError: warmup_steps must be of type int")),
    (ELSEWHERE, 0.1),
)
def test_steps_of_a_warm_up_given_as_a_share(tmp_path: Path) -> object:
    from transformers import TrainingArguments

    given = {"output_dir": str(tmp_path), "warmup_steps": 0.1}
    said = said_by(lambda: TrainingArguments(**given))
    return TrainingArguments(**given).get_warmup_steps(100) if said == "nothing" else said


NO_BF16 = re.compile("^ValueError: Your setup doesn't support bf16/gpu")


@by_version(({"transformers": "<4.50"}, "nothing"), (ELSEWHERE, NO_BF16))
def test_bf16_on_a_cpu(tmp_path: Path) -> str:
    from transformers import TrainingArguments

    return said_by(lambda: TrainingArguments(output_dir=str(tmp_path), bf16=True))


@by_version((ELSEWHERE, "nothing"))
def test_bf16_with_use_cpu(tmp_path: Path) -> str:
    return said_by(trainer(tmp_path, base(), bf16=True).train)


@by_version(({"transformers": "<5"}, "bf16"), (ELSEWHERE, "no"))
def test_precision_of_a_trainer_after_one_in_bf16(tmp_path: Path) -> str:
    """Before 5.0 the first one's stays in the environment."""
    trainer(tmp_path, base(), bf16=True)
    return str(trainer(tmp_path, base()).accelerator.mixed_precision)


@by_version((ELSEWHERE, True))
def test_fp16_on_a_cpu_is_float32_in_silence(tmp_path: Path) -> bool:
    losses = []
    for half in (False, True):
        one = trainer(tmp_path, lora(base()), fp16=half, max_steps=3, learning_rate=1e-2)
        one.train()
        losses.append([*logged(one, "loss"), *logged(one, "grad_norm")])
    return losses[0] == losses[1]


@by_version(({"transformers": "<5"}, "torch.float32"), (ELSEWHERE, "torch.float16"))
def test_dtype_of_a_float16_checkpoint(tmp_path: Path) -> str:
    from transformers import AutoModelForCausalLM

    base().half().save_pretrained(str(tmp_path))
    return str(AutoModelForCausalLM.from_pretrained(str(tmp_path)).dtype)


@by_version(({"transformers": ">=5,<5.13"}, False), (ELSEWHERE, True))
def test_weights_drawn_from_a_seed_are_as_ever() -> bool:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(model_dir())))
    drawn = model.transformer.h[3].mlp.c_proj.weight[0, :3].tolist()
    return bool(drawn == pytest.approx([-9.3467e-05, 2.8212e-03, 7.8777e-03], rel=1e-4))


@by_version(({"transformers": ">=5"}, "BatchEncoding"), (ELSEWHERE, "list"))
def test_apply_chat_template_returns() -> str:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model_dir()))
    return type(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}],
            chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
        )
    ).__name__
