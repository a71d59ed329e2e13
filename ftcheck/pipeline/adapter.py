"""Step 4, adapter: LoRA over the base model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftcheck.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["ParameterCounts", "count_parameters", "unwrapped", "wrap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters of a model.

    Attributes:
        trainable: Elements of the parameters that are trained.
        total: Elements of all parameters; 4-bit weights count as the elements that they stand for.
        adapted: Kind of module, such as `attn.c_proj`, to the number of modules with an adapter.
    """

    trainable: int
    total: int
    adapted: Mapping[str, int]


def wrap(base: PreTrainedModel, recipe: Recipe) -> Any:
    """Put the adapter of a recipe on its base model.

    The order matters: a quantized base is prepared first (which freezes everything), then the
    seed is set, then the adapter is drawn. Without `[lora]` the base itself is returned.

    Returns:
        A `peft.PeftModel` over `base`, or `base`.

    Raises:
        InputError: `target_modules` match nothing, or match some names and not others.
    """
    if recipe.lora is None:
        return base
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import set_seed

    _check_targets(base, recipe)
    if recipe.quantization is not None:
        base = prepare_model_for_kbit_training(
            base,
            use_gradient_checkpointing=recipe.checkpointing,
            gradient_checkpointing_kwargs=recipe.checkpointing_kwargs or None,
        )
    elif recipe.checkpointing:
        base.enable_input_require_grads()
    set_seed(recipe.seed)
    try:
        return get_peft_model(base, LoraConfig(**recipe.lora))
    except (ValueError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise recipe.fault("lora", reason.rstrip("."), "Change [lora].") from error


def _check_targets(base: PreTrainedModel, recipe: Recipe) -> None:
    """peft is content when one name of a list matches; the rest of the list is meant, too."""
    assert recipe.lora is not None
    targets = recipe.lora.get("target_modules")
    if not isinstance(targets, list):
        return
    names = [name for name, _ in base.named_modules()]
    unmatched = [
        target
        for target in targets
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if unmatched:
        leaves = sorted({name.rpartition(".")[2] for name in _leaf_names(base)})
        raise recipe.fault(
            "lora.target_modules",
            f"no module of {recipe.model.name_or_path} is named {', '.join(map(repr, unmatched))}",
            f"Its modules with weights are: {', '.join(leaves)}.",
        )


def _leaf_names(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if getattr(module, "weight", None) is not None
        and module.weight.dim() == 2
        and not any(module.children())
    ]


def unwrapped(model: Any) -> Any:
    """The base model under a `PeftModel`, or the model itself.

    `peft_config` would not tell: `unload` leaves it on the base.
    """
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count parameters as peft's `print_trainable_parameters` does, shared ones once."""
    trainable, total = 0, 0
    for parameter in model.parameters():
        count = parameter.numel()
        if count == 0 and hasattr(parameter, "ds_numel"):
            count = parameter.ds_numel
        if type(parameter).__name__ == "Params4bit":
            # Two 4-bit values lie in a byte of storage.
            count *= 2 * parameter.element_size()
        total += count
        trainable += count if parameter.requires_grad else 0
    return ParameterCounts(trainable=trainable, total=total, adapted=_adapted(model))


def _adapted(model: nn.Module) -> dict[str, int]:
    kinds = Counter(
        ".".join(re.sub(r"\.\d+\.", ".#.", f".{name}").split("#.")[-1].strip(".").split("."))
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    )
    return dict(sorted(kinds.items()))
