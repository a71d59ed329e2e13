from __future__ import annotations

from typing import Any

import pytest

from ftcheck.recipe.renames import RENAMES, translate


@pytest.mark.parametrize(
    ("section", "name", "value", "installed", "expected"),
    [
        ("training", "evaluation_strategy", "steps", {"eval_strategy"}, {"eval_strategy": "steps"}),
        ("training", "eval_strategy", "no", {"evaluation_strategy"}, {"evaluation_strategy": "no"}),
        ("training", "no_cuda", True, {"use_cpu"}, {"use_cpu": True}),
        ("training", "warmup_ratio", 0.1, {"warmup_steps"}, {"warmup_steps": 0.1}),
        ("training", "warmup_ratio", 0, {"warmup_steps"}, {"warmup_steps": 0}),
        ("training", "logging_dir", "logs", set(), {}),
        ("training", "overwrite_output_dir", True, set(), {}),
        ("training", "save_safetensors", True, set(), {}),
        ("training", "include_inputs_for_metrics", False, set(), {}),
        (
            "training",
            "gradient_checkpointing",
            True,
            {"activation_checkpointing"},
            {"activation_checkpointing": True},
        ),
        (
            "training",
            "activation_checkpointing_kwargs",
            {"use_reentrant": False},
            {"gradient_checkpointing_kwargs"},
            {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        ),
        (
            "training",
            "group_by_length",
            True,
            {"train_sampling_strategy"},
            {"train_sampling_strategy": "group_by_length"},
        ),
        ("training", "group_by_length", False, {"train_sampling_strategy"}, {}),
        (
            "training",
            "train_sampling_strategy",
            "random",
            {"group_by_length"},
            {"group_by_length": False},
        ),
        (
            "training",
            "train_sampling_strategy",
            "group_by_length",
            {"group_by_length"},
            {"group_by_length": True},
        ),
        ("model", "torch_dtype", "torch.float16", {"dtype"}, {"dtype": "float16"}),
    ],
)
def test_carried_over(
    section: str, name: str, value: Any, installed: set[str], expected: dict[str, Any]
) -> None:
    answer = translate(section, name, value, installed)
    assert isinstance(answer, tuple)
    assert answer[0] == expected
    assert name in answer[1]


@pytest.mark.parametrize(
    ("name", "value", "installed"),
    [
        ("warmup_ratio", 1, {"warmup_steps"}),
        ("warmup_ratio", 1.0, {"warmup_steps"}),
        ("save_safetensors", False, set()),
        ("include_inputs_for_metrics", True, set()),
        ("train_sampling_strategy", "sequential", {"group_by_length"}),
        ("use_ipex", True, set()),
    ],
)
def test_what_cannot_be_carried_over_says_why(name: str, value: Any, installed: set[str]) -> None:
    answer = translate("training", name, value, installed)
    assert isinstance(answer, str)
    assert len(answer) > 20


def test_unknown_names_are_left_to_the_caller() -> None:
    assert translate("training", "warmup_ratio", 0.1, set()) is None
    assert translate("training", "learning_rat", 0.1, {"learning_rate"}) is None
    assert translate("lora", "no_cuda", True, {"use_cpu"}) is None


def test_no_name_is_in_the_table_twice() -> None:
    names = [(rename.section, rename.old) for rename in RENAMES]
    assert len(names) == len(set(names))
    assert all(rename.since for rename in RENAMES)
