"""Arguments that were renamed or removed between library versions, both ways.

A recipe may use the name of any version. Where the installed one does not know it and the table
does, the value is carried over and a notice says so. Versions are those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RENAMES", "Rename", "translate"]

Value = Any
Carried = Mapping[str, Value] | str
"""Arguments under installed names, or a sentence on why the value cannot be carried over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """What to do with an argument that the installed version does not know.

    Attributes:
        section: Section of the recipe.
        old: Name that is not installed.
        new: Names that must be installed for the carrying over; none where nothing is needed.
        carry: From the value under `old` to arguments under installed names, or to a sentence.
        since: When and how it changed.
    """

    section: str
    old: str
    new: tuple[str, ...]
    carry: Callable[[Value], Carried]
    since: str


def _same(name: str) -> Callable[[Value], Carried]:
    return lambda value: {name: value}


def _dropped(value: Value) -> Carried:
    del value
    return {}


def _only(meant: Value, otherwise: str) -> Callable[[Value], Carried]:
    """Drop an argument whose one remaining behaviour is `meant`; refuse another value."""
    return lambda value: {} if value == meant else otherwise


def _warmup_steps_from_ratio(ratio: Value) -> Carried:
    # From 5.0 `warmup_steps` below 1 is a share of all steps, and 1.0 is one step.
    if ratio == 1:
        return "a warm-up of the whole run cannot be written as warmup_steps; use a share below 1"
    return {"warmup_steps": ratio}


def _sampling_from_group_by_length(value: Value) -> Carried:
    return {"train_sampling_strategy": "group_by_length"} if value else {}


def _group_by_length_from_sampling(value: Value) -> Carried:
    if value in ("random", "group_by_length"):
        return {"group_by_length": value == "group_by_length"}
    return f"the installed version has no sampling strategy {value!r}"


def _pair(old: str, new: str, since: str) -> tuple[Rename, Rename]:
    return (
        Rename(section="training", old=old, new=(new,), carry=_same(new), since=since),
        Rename(section="training", old=new, new=(old,), carry=_same(old), since=since),
    )


def _removed(old: str, carry: Callable[[Value], Carried], since: str) -> Rename:
    return Rename(section="training", old=old, new=(), carry=carry, since=since)


_NO_PICKLE = "weights are saved as safetensors only since transformers 5.0"

RENAMES: tuple[Rename, ...] = (
    *_pair("evaluation_strategy", "eval_strategy", "renamed in 4.41, old name gone in 4.46–4.52"),
    *_pair("no_cuda", "use_cpu", "renamed in 4.34, old name gone in 5.0"),
    *_pair("gradient_checkpointing", "activation_checkpointing", "renamed in 5.23, old name warns"),
    *_pair(
        "gradient_checkpointing_kwargs",
        "activation_checkpointing_kwargs",
        "renamed in 5.23, old name warns",
    ),
    *_pair("per_gpu_train_batch_size", "per_device_train_batch_size", "renamed in 2.9"),
    *_pair("per_gpu_eval_batch_size", "per_device_eval_batch_size", "renamed in 2.9"),
    Rename(
        section="training",
        old="group_by_length",
        new=("train_sampling_strategy",),
        carry=_sampling_from_group_by_length,
        since='became train_sampling_strategy = "group_by_length" in 5.5',
    ),
    Rename(
        section="training",
        old="train_sampling_strategy",
        new=("group_by_length",),
        carry=_group_by_length_from_sampling,
        since="was group_by_length before 5.5",
    ),
    Rename(
        section="training",
        old="warmup_ratio",
        new=("warmup_steps",),
        carry=_warmup_steps_from_ratio,
        since="folded into warmup_steps (below 1: a share) in 5.0, gone in 5.15",
    ),
    _removed("logging_dir", _dropped, "gone in 5.15; metrics go to the run folder"),
    _removed("overwrite_output_dir", _dropped, "gone in 5.0; a run folder is never overwritten"),
    _removed("save_safetensors", _only(True, _NO_PICKLE), "gone in 5.0; always on"),
    _removed(
        "include_inputs_for_metrics",
        _only(False, 'write include_for_metrics = ["inputs"] instead'),
        "replaced by include_for_metrics in 4.46",
    ),
    _removed("half_precision_backend", _dropped, "gone in 5.0; PyTorch's is the one there is"),
    _removed("fp16_backend", _dropped, "gone in 5.0; PyTorch's is the one there is"),
    _removed(
        "jit_mode_eval",
        _only(False, "the installed version has no TorchScript evaluation"),
        "gone in 5.0",
    ),
    _removed(
        "use_ipex",
        _only(False, "the installed version has no support for Intel's extension"),
        "gone in 5.0",
    ),
    _removed("use_mps_device", _dropped, "gone in 5.0; the device is chosen in [model]"),
    Rename(
        section="model",
        old="torch_dtype",
        new=("dtype",),
        carry=lambda value: {"dtype": str(value).removeprefix("torch.")},
        since="renamed in 4.56",
    ),
)
"""Source: the deprecation messages and signatures of transformers 4.41 to 5.24."""

_TABLE = {(rename.section, rename.old): rename for rename in RENAMES}


def translate(
    section: str, name: str, value: Value, installed: Collection[str]
) -> tuple[Mapping[str, Value], str] | str | None:
    """Carry an argument over to the installed version.

    Args:
        section: Section of the recipe.
        name: An argument that is not in `installed`.
        value: Its value.
        installed: Names that the installed version knows.

    Returns:
        Arguments under installed names and a notice; a sentence on why it cannot be carried over;
        or `None` where the table does not know the name.
    """
    rename = _TABLE.get((section, name))
    if rename is None or not all(new in installed for new in rename.new):
        return None
    carried = rename.carry(value)
    if isinstance(carried, str):
        return carried
    became = ", ".join(f"{key} = {value!r}" for key, value in carried.items())
    return carried, f"{section}.{name} {'→ ' + became if became else 'left out'} ({rename.since})"
