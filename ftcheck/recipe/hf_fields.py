"""Names, types and choices of Hugging Face arguments, read from the *installed* sources.

The classes are parsed, not imported: importing them takes seconds and loads torch, parsing them
takes milliseconds. A test holds the result against the imported classes.
"""

from __future__ import annotations

import ast
import importlib.util
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ftcheck.errors import InputError

__all__ = ["SECTION_CLASSES", "HFField", "fields"]

Section = Literal["training", "lora", "quantization", "generation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HFField:
    """One argument of a Hugging Face class.

    Attributes:
        name: Its name there.
        annotation: A type that its value must have; `typing.Any` where the source does not say.
    """

    name: str
    annotation: Any


SECTION_CLASSES: Mapping[Section, str] = {
    "training": "TrainingArguments",
    "lora": "LoraConfig",
    "quantization": "BitsAndBytesConfig",
    "generation": "GenerationConfig",
}
"""Section of a recipe to the class that owns its names."""

# GenerationConfig takes `**kwargs`, so its source gives names without types. These are the types
# of its documentation, for the ones that people set.
_GENERATION_TYPES: Mapping[str, Any] = {
    "max_length": int,
    "max_new_tokens": int,
    "min_length": int,
    "min_new_tokens": int,
    "early_stopping": bool | str,
    "max_time": float,
    "stop_strings": str | list[str],
    "do_sample": bool,
    "num_beams": int,
    "use_cache": bool,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "typical_p": float,
    "epsilon_cutoff": float,
    "eta_cutoff": float,
    "repetition_penalty": float,
    "length_penalty": float,
    "no_repeat_ngram_size": int,
    "bad_words_ids": list[list[int]],
    "renormalize_logits": bool,
    "num_return_sequences": int,
    "pad_token_id": int,
    "bos_token_id": int,
    "eos_token_id": int | list[int],
    "suppress_tokens": list[int],
    "begin_suppress_tokens": list[int],
    "guidance_scale": float,
}

# `BitsAndBytesConfig.__init__` has defaults and no annotations; types from its documentation.
_QUANTIZATION_TYPES: Mapping[str, Any] = {
    "load_in_8bit": bool,
    "load_in_4bit": bool,
    "llm_int8_threshold": float,
    "llm_int8_skip_modules": list[str],
    "llm_int8_enable_fp32_cpu_offload": bool,
    "llm_int8_has_fp16_weight": bool,
    "bnb_4bit_compute_dtype": Literal["float32", "float16", "bfloat16"],
    "bnb_4bit_quant_type": Literal["fp4", "nf4"],
    "bnb_4bit_use_double_quant": bool,
    "bnb_4bit_quant_storage": Literal["uint8", "float16", "float32", "bfloat16"],
}


@cache
def fields(section: Section) -> Mapping[str, HFField]:
    """Arguments of a section by name, as the installed version has them.

    Raises:
        InputError: The library that owns the section is not installed, or its source has no such
            class.
    """
    if section == "training":
        tree = _source("transformers", "training_args.py")
        pairs = _annotated_fields(_class(tree, "TrainingArguments"))
        enums = _enums("training_args.py", "trainer_utils.py", "debug_utils.py")
        return _typed(pairs, enums)
    if section == "lora":
        base = _source("peft", "config.py")
        lora = _source("peft", "tuners/lora/config.py")
        pairs = {
            **_annotated_fields(_class(base, "PeftConfigMixin")),
            **_annotated_fields(_class(base, "PeftConfig")),
            **_annotated_fields(_class(lora, "LoraConfig")),
        }
        return _typed(pairs, {})
    if section == "quantization":
        tree = _source("transformers", "utils/quantization_config.py")
        names = _init_arguments(_class(tree, "BitsAndBytesConfig"))
        return _named(names, _QUANTIZATION_TYPES)
    tree = _source("transformers", "generation/configuration_utils.py")
    return _named(_popped_names(_class(tree, "GenerationConfig")), _GENERATION_TYPES)


def _source(package: str, relative: str) -> ast.Module:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{package} is not installed, so its arguments cannot be checked.",
            next_step=f"Install it: pip install {package}",
        )
    return _parse(Path(spec.submodule_search_locations[0]) / relative)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise InputError(
        f"the installed version has no class {name} where ftcheck looks for it.",
        next_step="See the supported versions with: ftcheck doctor",
    )


def _annotated_fields(node: ast.ClassDef) -> dict[str, ast.expr]:
    """Dataclass fields in order; `ClassVar` and `init=False` ones are no arguments."""
    return {
        item.target.id: item.annotation
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
        and not _has_init_false(item.value)
    }


def _has_init_false(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and any(
        keyword.arg == "init" and ast.unparse(keyword.value) == "False"
        for keyword in value.keywords
    )


def _init(node: ast.ClassDef) -> ast.FunctionDef:
    return next(
        item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"
    )


def _init_arguments(node: ast.ClassDef) -> list[str]:
    arguments = _init(node).args
    return [a.arg for a in (*arguments.args, *arguments.kwonlyargs) if a.arg != "self"]


def _popped_names(node: ast.ClassDef) -> list[str]:
    """Names in `kwargs.pop("name", …)` in `__init__`, private ones left out."""
    return [
        call.args[0].value
        for call in ast.walk(_init(node))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == "kwargs.pop"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        and not call.args[0].value.startswith("_")
    ]


def _enums(*files: str) -> dict[str, Any]:
    """String enumerations of transformers as `Literal` types."""
    found: dict[str, Any] = {}
    for file in files:
        for node in _source("transformers", file).body:
            if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(b) for b in node.bases):
                values = tuple(_string_constants(node))
                if values:
                    found[node.name] = Literal[values]
    return found


def _string_constants(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if (
            isinstance(item, ast.Assign)
            and isinstance(item.value, ast.Constant)
            and isinstance(item.value.value, str)
        ):
            yield item.value.value


def _named(names: list[str], types: Mapping[str, Any]) -> Mapping[str, HFField]:
    return {n: HFField(name=n, annotation=types.get(n, Any)) for n in dict.fromkeys(names)}


def _typed(pairs: dict[str, ast.expr], enums: dict[str, Any]) -> Mapping[str, HFField]:
    return {
        name: HFField(name=name, annotation=_type(annotation, enums))
        for name, annotation in pairs.items()
    }


class _ChoiceBeforeText(ast.NodeTransformer):
    """`SchedulerType | str` means one of the choices: the bare `str` would let typos pass."""

    def __init__(self, enums: Mapping[str, Any]) -> None:
        self._enums = enums

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        return self._without_text(_union_members(node)) or node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if ast.unparse(node.value) in ("Union", "typing.Union") and isinstance(
            node.slice, ast.Tuple
        ):
            return self._without_text(node.slice.elts) or node
        self.generic_visit(node)
        return node

    def _without_text(self, members: list[ast.expr]) -> ast.expr | None:
        names = [ast.unparse(member) for member in members]
        if "str" not in names or not any(name in self._enums for name in names):
            return None
        kept = [n for n in names if n != "str"]
        return ast.parse(" | ".join(kept), mode="eval").body


def _union_members(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_union_members(node.left), *_union_members(node.right)]
    return [node]


class _Names(dict[str, Any]):
    """Names in annotations: typing's, builtins', the enumerations; anything else is `Any`."""

    def __missing__(self, name: str) -> Any:
        return getattr(typing, name, Any)


def _type(annotation: ast.expr, enums: Mapping[str, Any]) -> Any:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if "[number of iters]" in ast.unparse(annotation):
        # peft documents `pissa_niter_16` as a pattern inside a Literal.
        return Any
    annotation = _ChoiceBeforeText(enums).visit(annotation)
    builtins = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}
    more = {"tuple": tuple, "set": set, "type": type, "object": object, "None": None}
    names = _Names({**builtins, **more, **enums})
    try:
        # The text is an annotation of an installed library; builtins are out of its reach.
        return eval(ast.unparse(annotation), {"__builtins__": {}}, names)  # noqa: S307
    except (TypeError, AttributeError, SyntaxError):
        # An annotation that this Python cannot evaluate says nothing about the value.
        return Any
