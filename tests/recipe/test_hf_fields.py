"""What is parsed from the installed sources, held against the imported classes."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from typing import Any, Literal, Optional, Union, get_args

import pytest

from ftcheck.errors import InputError
from ftcheck.recipe import hf_fields
from ftcheck.recipe.hf_fields import fields
from ftcheck.recipe.limits import LIMITS


def test_training_fields_are_those_of_the_class() -> None:
    from transformers import TrainingArguments

    real = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert set(fields("training")) == real


def test_lora_fields_are_those_of_the_class() -> None:
    from peft import LoraConfig

    real = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    assert set(fields("lora")) == real


def test_quantization_fields_are_those_of_the_class() -> None:
    from transformers import BitsAndBytesConfig

    real = set(inspect.signature(BitsAndBytesConfig.__init__).parameters) - {"self", "kwargs"}
    assert set(fields("quantization")) == real


def test_generation_fields_are_attributes_of_the_class() -> None:
    from transformers import GenerationConfig

    known = set(fields("generation"))
    config = GenerationConfig()
    assert len(known) > 40
    assert {name for name in known if not hasattr(config, name)} <= {"trust_remote_code"}
    assert {"max_new_tokens", "temperature", "do_sample", "top_p"} <= known


def test_choices_are_choices() -> None:
    optimizers = get_args(fields("training")["optim"].annotation)
    assert "adamw_torch" in optimizers
    assert str not in optimizers
    assert set(get_args(fields("training")["eval_strategy"].annotation)) == {
        "no",
        "steps",
        "epoch",
    }


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("training", "learning_rate", 1e-4),
        ("training", "learning_rate", 1),
        ("training", "report_to", "none"),
        ("training", "report_to", ["tensorboard"]),
        ("training", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("lora", "target_modules", "all-linear"),
        ("lora", "target_modules", ["c_attn"]),
        ("lora", "init_lora_weights", "pissa_niter_16"),
        ("lora", "init_lora_weights", False),
        ("lora", "rank_pattern", {"c_attn": 4}),
        ("lora", "modules_to_save", ["lm_head"]),
        ("quantization", "bnb_4bit_compute_dtype", "bfloat16"),
        ("generation", "eos_token_id", [1, 2]),
    ],
)
def test_sound_values_pass(section: Any, name: str, value: Any) -> None:
    from ftcheck.recipe.values import argument_faults

    assert list(argument_faults(section, fields(section)[name], value)) == []


def test_every_limit_names_an_argument_of_some_version() -> None:
    for key in LIMITS:
        section, name = key.split(".")
        known: Any = fields(section)
        gone: Literal["warmup_ratio"] = "warmup_ratio"  # since 5.15, and still translated
        assert name in known or name == gone


# ------------------------------------------------------------- sources of no installed library

SOURCE = """
import enum
from enum import Enum

class Kind(str, Enum):
    ONE = "one"
    TWO = "two"
    COUNT = 3
    "a sentence"

class Plain:
    TEXT = "text"

class Empty(enum.Enum):
    A = 1

class Settings:
    shared: ClassVar[int] = 1
    typed: "typing.ClassVar[str]" = "a"
    made: int = field(init=False)
    kept: int = field(init=True)
    other: int = field(default=False)
    self.place: int = 1
    plain = 2
    kind: Kind | str = "one"

    def late(self, ignored): ...

    def __init__(self, first, *, second=None, **kwargs):
        self.a = kwargs.pop("a", 1)
        self.b = kwargs.pop("_hidden", 1)
        self.c = other.pop("c", 1)
        self.d = kwargs.pop(3, 1)
        self.e = kwargs.pop(first, 1)
        self.f = kwargs.pop("f")
"""
KIND: Any = Literal["one", "two"]
CHOICES = {"Kind": KIND}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ast.Module:
    """A package `a_library` whose module holds the classes."""
    (tmp_path / "a_library").mkdir()
    (tmp_path / "a_library" / "__init__.py").touch()
    (tmp_path / "a_library" / "part.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "a_module.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return hf_fields._source("a_library", "part.py")


def test_fields_of_a_dataclass(source: ast.Module) -> None:
    found = hf_fields._annotated_fields(hf_fields._class(source, "Settings"))
    assert {name: ast.unparse(annotation) for name, annotation in found.items()} == {
        "kept": "int",
        "other": "int",
        "kind": "Kind | str",
    }
    typed = hf_fields._typed(found, CHOICES)
    assert {name: (one.name, one.annotation) for name, one in typed.items()} == {
        "kept": ("kept", int),
        "other": ("other", int),
        "kind": ("kind", Literal["one", "two"]),
    }


def test_arguments_of_a_constructor(source: ast.Module) -> None:
    settings = hf_fields._class(source, "Settings")
    assert hf_fields._init_arguments(settings) == ["first", "second"]
    assert hf_fields._popped_names(settings) == ["a", "f"]
    named = hf_fields._named(["a", "f", "a"], {"a": int})
    assert [(one.name, one.annotation) for one in named.values()] == [("a", int), ("f", Any)]


def test_enumerations_are_choices(source: ast.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def given(package: str, file: str) -> ast.Module:
        asked.append((package, file))
        return source

    monkeypatch.setattr(hf_fields, "_source", given)
    assert hf_fields._enums("part.py") == CHOICES
    assert asked == [("transformers", "part.py")]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", int),
        ("'int'", int),
        ("dict", dict),
        ("None", None),
        ("tuple[int, ...]", tuple[int, ...]),
        ("set[str]", set[str]),
        ("type", type),
        ("object", object),
        ("list[str] | bool", list[str] | bool),
        ("Optional[int]", Optional[int]),  # noqa: UP045 - as libraries write it
        ("Union[int, str]", Union[int, str]),  # noqa: UP007
        ("Kind | str", KIND),
        ("str | Kind | None", KIND | None),
        ("Union[Kind, str]", KIND),
        ("typing.Union[str, Kind]", KIND),
        ("Optional[Union[str, Kind]]", KIND | None),
        ("Optional[Kind | str]", KIND | None),
        ("tuple[Kind, str]", tuple[KIND, str]),
        ("list[Kind | str]", list[KIND]),
        ("SomethingElse", Any),
        ("a.b.C", Any),
        ("Literal['pissa', 'pissa_niter_[number of iters]']", Any),
    ],
)
def test_types_of_annotations(annotation: str, expected: Any) -> None:
    found = hf_fields._type(ast.parse(annotation, mode="eval").body, CHOICES)
    assert found == expected


@pytest.mark.parametrize("package", ["a_library_that_nobody_has", "a_module"])
@pytest.mark.usefixtures("source")
def test_a_library_that_is_not_installed(package: str) -> None:
    with pytest.raises(InputError) as caught:
        hf_fields._source(package, "part.py")
    assert str(caught.value) == textwrap.dedent(f"""\
        {package} is not installed, so its arguments cannot be checked.
        Install it: pip install {package}""")


def test_a_class_that_is_elsewhere(source: ast.Module) -> None:
    with pytest.raises(InputError) as caught:
        hf_fields._class(source, "Gone")
    assert str(caught.value) == textwrap.dedent("""\
        the installed version has no class Gone where ftcheck looks for it.
        See the supported versions with: ftcheck doctor""")
