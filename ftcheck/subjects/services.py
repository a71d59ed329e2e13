"""What a script asks of services, compilers and cards, which are left out while it is checked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["leave_out"]


def leave_out(assume: Callable[[str], None], beside: Callable[[str], str], *, cpu: bool) -> None:
    """Patch the libraries of this process: no login, no upload, no report, no compiler.

    Args:
        assume: Told what is left out, where that is not plain.
        beside: From the output folder of a run to the one that stands for it.
        cpu: Whether training is to be on the CPU.
    """
    _hub()
    _compiler(assume)
    _arguments(beside, cpu=cpu)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _hub() -> None:
    import huggingface_hub
    import transformers
    from transformers.utils.hub import PushToHubMixin

    for name in (
        "login",
        "notebook_login",
        "interpreter_login",
        "logout",
        "create_repo",
        "upload_file",
        "upload_folder",
    ):
        setattr(huggingface_hub, name, _nothing)
    for name in ("create_repo", "upload_file", "upload_folder", "create_commit"):
        setattr(huggingface_hub.HfApi, name, _nothing)
    setattr(PushToHubMixin, "push_to_hub", _nothing)  # noqa: B010 - mypy would have a type
    for kind in (
        transformers.PreTrainedModel,
        transformers.PreTrainedTokenizerBase,
        transformers.Trainer,
        transformers.PretrainedConfig,
    ):
        kind.push_to_hub = _nothing
    transformers.Trainer.create_model_card = _nothing


def _compiler(assume: Callable[[str], None]) -> None:
    """Let `torch.compile` give back what it gets: it computes the same, and takes minutes."""
    import torch

    said: list[bool] = []

    def same(what: Any = None, *_: Any, **__: Any) -> Any:
        if not said:
            said.append(True)
            assume("torch.compile is left out: what it makes computes the same")
        return (lambda function: function) if what is None else what

    torch.compile = same  # type: ignore[assignment] # the same, but for types
    torch.nn.Module.compile = _nothing  # type: ignore[method-assign] # in place


def _arguments(beside: Callable[[str], str], *, cpu: bool) -> None:
    """Change what `TrainingArguments` and its subclasses are given, before they look at it."""
    import transformers

    kind = transformers.TrainingArguments
    inner = kind.__post_init__

    @functools.wraps(inner)
    def given(own: Any) -> None:
        own.push_to_hub = False
        own.report_to = "none"
        if hasattr(own, "torch_compile"):
            own.torch_compile = False
        if cpu:
            setattr(own, "use_cpu" if hasattr(own, "use_cpu") else "no_cuda", True)
        if own.output_dir:  # the trainer makes that folder
            own.output_dir = beside(own.output_dir)
        inner(own)

    kind.__post_init__ = given
