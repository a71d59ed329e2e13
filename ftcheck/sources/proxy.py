"""Proxy models: the same architecture, narrow and shallow, where the size does not matter."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, Final

from ftcheck.sources.base_model import BaseModel

__all__ = ["full_modules", "proxy_config", "proxy_model", "write_proxy"]

_LAYERS: Final = 2
_HEADS: Final = 4
_HEAD: Final = 16
_SIZES: Final = {
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "head_dim": _HEAD,
    "hidden_size": _HEADS * _HEAD,
    "word_embed_proj_dim": _HEADS * _HEAD,
    "intermediate_size": 128,
    "ffn_dim": 128,
    "n_inner": 128,
    "max_window_layers": _LAYERS,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_intermediate_size": 64,
    "num_experts_per_tok": 2,
}
"""Names of `PreTrainedConfig` and its subclasses for sizes, to those of the proxy."""
_SEED: Final = 0


def proxy_config(config: Any) -> Any:
    """A copy of a configuration with two narrow layers; vocabulary and context are as they were.

    Args:
        config: Of any causal language model.
    """
    small = copy.deepcopy(config)
    text = small.get_text_config()
    heads = int(text.num_attention_heads)
    key_heads = getattr(text, "num_key_value_heads", None)
    if key_heads is not None:
        text.num_key_value_heads = _HEADS if key_heads == heads else max(1, min(2, key_heads))
    for name, value in _SIZES.items():
        old = getattr(text, name, None)
        if (
            isinstance(old, int)
            and not isinstance(old, bool)
            and (old > value or name == "head_dim")
        ):
            setattr(text, name, value)
    text.num_attention_heads, text.hidden_size = _HEADS, _HEADS * _HEAD
    kinds = getattr(text, "layer_types", None)
    if kinds:
        text.layer_types = list(kinds)[: text.num_hidden_layers]
    return small


def write_proxy(config: Any, folder: Path, *, trust_remote_code: bool) -> None:
    """Write config.json and random weights of the proxy of an architecture."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = AutoModelForCausalLM.from_config(
            proxy_config(config), trust_remote_code=trust_remote_code
        )
    model.to(torch.float32).save_pretrained(folder)


def proxy_model(source: BaseModel, folder: Path) -> BaseModel:
    """Write the proxy of a base model.

    Args:
        source: Where the base model is.
        folder: Is made.

    Returns:
        The proxy, under the name of the model.
    """
    trust = source.trust_remote_code
    folder.mkdir(parents=True)
    write_proxy(source.configuration.config, folder, trust_remote_code=trust)
    return dataclasses.replace(source, location=str(folder), revision=None)


def full_modules(source: BaseModel) -> tuple[tuple[tuple[str, str], ...], int]:
    """Modules with a weight matrix of the whole model, name and class, and its parameters, shared
    ones once."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            source.configuration.config, trust_remote_code=source.trust_remote_code
        )
    modules = tuple(
        (name, type(module).__name__)
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    )
    return modules, sum(parameter.numel() for parameter in model.parameters())
