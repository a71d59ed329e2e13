"""A model of the same architecture, narrow and shallow: for steps whose outcome does not hang on
the size."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

__all__ = ["full_modules", "parameter_count", "shrunken_checkpoint", "shrunken_config"]

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
"""Names of `PreTrainedConfig` and its subclasses for sizes, to those of the small model."""
_SEED: Final = 0


def shrunken_config(config: Any) -> Any:
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


def shrunken_checkpoint(config: Any, folder: Path, *, trust: bool) -> None:
    """Write config.json and random weights of the small model."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = AutoModelForCausalLM.from_config(shrunken_config(config), trust_remote_code=trust)
    model.to(torch.float32).save_pretrained(folder)


def full_modules(config: Any, *, trust: bool) -> tuple[tuple[tuple[str, str], ...], int]:
    """Modules with a weight matrix of the whole model, name and class, and its parameters."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    modules = tuple(
        (name, type(module).__name__)
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    )
    return modules, parameter_count(model)


def parameter_count(model: Any) -> int:
    """Parameters of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
