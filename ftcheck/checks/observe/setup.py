"""Static facts: arguments, configurations, modules. Reads, and runs nothing."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ftcheck.checks.facts import Adapter, Module, Parameter, Setup, Text
from ftcheck.checks.observe.subject import Subject, held_out, length_of, processing_of
from ftcheck.pipeline.adapter import unwrapped
from ftcheck.pipeline.model import longest_context

__all__ = ["of_an_adapter", "other_task", "see_setup", "text_of"]

_NUMBERS_READ = 4_000_000
"""Elements of a parameter that are looked at for NaN; of a larger one, so many evenly."""

_OVERRIDDEN = (
    "compute_loss",
    "training_step",
    "prediction_step",
    "create_optimizer",
    "create_scheduler",
    "get_train_dataloader",
    "get_eval_dataloader",
    "evaluate",
    "evaluation_loop",
    "_save",
)


def see_setup(subject: Subject) -> Setup:
    """Look at arguments, configurations and modules."""
    trainer, model = subject.trainer, subject.model
    base = unwrapped(model)
    config = base.config
    embedding = base.get_input_embeddings()
    head = base.get_output_embeddings()
    rows = int(_weight(embedding).shape[0])
    stored = rows if subject.base_model is None else subject.base_model.embedding_rows
    arguments = _plain(trainer.args)
    columns, dropped = _columns(trainer)
    return Setup(
        arguments=arguments,
        model_class=type(base).__name__,
        model_name=str(getattr(config, "_name_or_path", "") or getattr(base, "name_or_path", "")),
        config={**_plain_config(config), "loss_type": getattr(base, "loss_type", None)},
        positions=longest_context(base),
        absolute_positions=_absolute_positions(base),
        embedding_rows=rows,
        grown_from=stored if stored < rows else None,
        tied=head is not None and _weight(head) is _weight(embedding),
        quantized=_quantized(base),
        prepared=_prepared(base),
        parameters=tuple(_parameters(model)),
        modules=tuple(_modules(model, subject)),
        adapters=tuple(_adapters(model)),
        nested_peft=_nested(model),
        columns=columns,
        dropped_columns=dropped,
        overrides=_overrides(trainer),
        collator=type(trainer.data_collator).__name__
        if not callable(getattr(trainer.data_collator, "__code__", None))
        else getattr(trainer.data_collator, "__name__", "function"),
        train_rows=length_of(trainer.train_dataset),
        eval_rows=length_of(held_out(trainer)),
        optimizer_given=trainer.optimizer is not None,
        compute_metrics=trainer.compute_metrics is not None,
        preprocess_logits=trainer.preprocess_logits_for_metrics is not None,
        early_stopping=any(
            type(callback).__name__ == "EarlyStoppingCallback"
            for callback in trainer.callback_handler.callbacks
        ),
        device_map={
            name: str(device)
            for name, device in (getattr(base, "hf_device_map", None) or {}).items()
        },
        gpus=int(getattr(trainer.args, "n_gpu", 0)),
        launched="LOCAL_RANK" in os.environ or "RANK" in os.environ,
        label_names=tuple(trainer.label_names or ()),
        processing_saved=processing_of(trainer) is not None,
        other_task=other_task(trainer),
    )


_CAUSAL: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def other_task(trainer: Any) -> str:
    """Why a trainer does no causal language modelling on labels; empty where it does.

    Of trl's trainers `SFTTrainer` alone does: the others learn from pairs, scores or what the model
    writes.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for kind in type(trainer).__mro__:
        if kind.__module__.startswith("trl.") and not kind.__name__.endswith("BaseTrainer"):
            if kind.__name__ != "SFTTrainer":
                return f"{kind.__name__} has a loss that is not about the labels of tokens"
            break
    base = unwrapped(trainer.model)
    name = type(base).__name__
    if getattr(base.config, "is_encoder_decoder", False):
        return f"{name} reads one text and writes another"
    if name.endswith(_CAUSAL) or name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return ""
    heads = "For" in name and not name.endswith("Model")
    return f"{name} is no causal language model" if heads else ""


def _weight(module: Any) -> Any:
    """The weight of an embedding or a layer, also under an adapter."""
    inner = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
    return (inner if inner is not None else module).weight


def _plain(arguments: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in vars(arguments).items():
        if name.startswith("_"):
            continue
        plain[name] = value.value if isinstance(value, enum.Enum) else value
    plain["train_batch_size"] = arguments.train_batch_size
    plain["eval_batch_size"] = arguments.eval_batch_size
    return plain


def _plain_config(config: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(config).items()
        if isinstance(value, (int, float, str, bool, type(None)))
    }


def _absolute_positions(base: Any) -> bool:
    """Whether positions are looked up in a table, as GPT-2 and OPT do."""
    import torch

    positions = longest_context(base)
    return positions is not None and any(
        (isinstance(module, torch.nn.Embedding) and "pos" in name.rpartition(".")[2])
        or name.endswith("wpe")
        for name, module in base.named_modules()
    )


def _quantized(base: Any) -> str:
    if getattr(base, "is_loaded_in_8bit", False):
        return "8-bit"
    if getattr(base, "is_loaded_in_4bit", False):
        return "4-bit"
    return ""


def _prepared(base: Any) -> bool:
    """Whether nothing but what peft put there is in half precision, as preparing leaves it."""
    import torch

    return not any(
        parameter.dtype in (torch.float16, torch.bfloat16) and parameter.dim() == 1
        for name, parameter in base.named_parameters()
        if "lora_" not in name
    )


def of_an_adapter(name: str) -> bool:
    """Whether peft put the parameter of that name there."""
    parts = (
        "lora_",
        "modules_to_save",
        "ia3_",
        "vera_",
        "prompt_encoder",
        "trainable_tokens",
        "adapter_",
        "hada_",
        "oft_",
        "boft_",
    )
    return any(part in name for part in parts)


def _parameters(model: Any) -> Iterator[Parameter]:
    seen: dict[int, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(value), name)
        yield Parameter(
            name=name,
            shape=tuple(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
            device=value.device.type,
            trainable=value.requires_grad,
            finite=first != name or _finite(value),
            adapter=of_an_adapter(name),
            tied_to="" if first == name else first,
        )


def _finite(value: Any) -> bool:
    import torch

    if value.device.type == "meta" or not value.is_floating_point():
        return True
    flat = value.detach().reshape(-1)
    step = max(1, flat.numel() // _NUMBERS_READ)
    return bool(torch.isfinite(flat[::step]).all())


def _modules(model: Any, subject: Subject) -> Iterator[Module]:
    base = unwrapped(model)
    adapted: dict[str, str] = {}
    for name, module in base.named_modules():
        inner = getattr(module, "base_layer", None)
        if inner is not None and hasattr(module, "lora_A"):
            adapted[name] = type(inner).__name__
    if subject.full_modules:
        layer_kinds = {_without_numbers(name) for name in adapted}
        for name, kind in subject.full_modules:
            yield Module(name=name, kind=kind, adapted=_without_numbers(name) in layer_kinds)
        return
    for name, module in base.named_modules():
        if name in adapted:
            yield Module(name=name, kind=adapted[name], adapted=True)
        elif _has_matrix(module) and not any(name.startswith(f"{one}.") for one in adapted):
            yield Module(name=name, kind=type(module).__name__, adapted=False)


def _without_numbers(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def _has_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and getattr(weight, "dim", lambda: 0)() == 2


def _adapters(model: Any) -> Iterator[Adapter]:
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping):
        return
    active = getattr(model, "active_adapters", ())
    active = active() if callable(active) else active
    off = _switched_off(model)
    for name, config in configs.items():
        plain = {
            field: _plain_value(value)
            for field, value in vars(config).items()
            if not field.startswith("_")
        }
        yield Adapter(name=name, active=name in tuple(active) and not off, config=plain)


def _plain_value(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return value.value if isinstance(value, enum.Enum) else value


def _switched_off(model: Any) -> bool:
    """Whether every adapter layer is disabled, or merged into its base."""
    layers = [one for one in model.modules() if hasattr(one, "lora_A") and hasattr(one, "merged")]
    return bool(layers) and all(one.disable_adapters or one.merged for one in layers)


def _nested(model: Any) -> bool:
    inner = getattr(getattr(model, "base_model", None), "model", None)
    if type(model).__name__.startswith("Peft") and type(inner).__name__.startswith("Peft"):
        return True
    return any(
        hasattr(module, "lora_A") and hasattr(getattr(module, "base_layer", None), "lora_A")
        for module in model.modules()
    )


def _overrides(trainer: Any) -> frozenset[str]:
    """Methods that a subclass has of its own; those of transformers and trl do not count."""
    own = [
        kind
        for kind in type(trainer).__mro__
        if not kind.__module__.startswith(("transformers.", "trl.", "ftcheck.", "builtins"))
    ]
    found = {name for name in _OVERRIDDEN if any(name in vars(kind) for kind in own)}
    if getattr(trainer, "compute_loss_func", None) is not None:
        found.add("compute_loss")
    return frozenset(found)


def _columns(trainer: Any) -> tuple[tuple[str, ...], dict[str, bool]]:
    rows = trainer.train_dataset
    names = tuple(getattr(rows, "column_names", None) or ())
    if not names or not getattr(trainer.args, "remove_unused_columns", True):
        return names, {}
    trainer._set_signature_columns_if_needed()
    kept = set(trainer._signature_columns or ()) | {"label", "label_ids"}
    if any(kind.__module__.startswith("trl.") for kind in type(trainer).__mro__):
        kept |= {
            "completion_mask",
            "assistant_masks",
        }  # its own, for losses that were not asked for
    return names, {name: _lists_of_numbers(rows, name) for name in names if name not in kept}


def _lists_of_numbers(rows: Any, name: str) -> bool:
    feature = (getattr(rows, "features", None) or {}).get(name)
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
    return str(getattr(inner, "dtype", "")).startswith(("int", "uint", "float", "bool"))


def _specials(tokenizer: Any) -> set[int]:
    """Ids of special tokens, also of those that were added beside the named ones (Llama 3)."""
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    return {*tokenizer.all_special_ids, *(number for number, one in added.items() if one.special)}


def text_of(tokenizer: Any) -> Text | None:
    """Facts of a tokenizer; `None` where there is none."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    if tokenizer is None or not hasattr(tokenizer, "convert_tokens_to_ids"):
        return None
    return Text(
        name=str(getattr(tokenizer, "name_or_path", "")),
        size=len(tokenizer),
        vocab_size=int(tokenizer.vocab_size),
        eos=tokenizer.eos_token_id,
        bos=tokenizer.bos_token_id,
        pad=tokenizer.pad_token_id,
        specials=frozenset(_specials(tokenizer)),
        padding_side=tokenizer.padding_side,
        decode=lambda ids: str(tokenizer.decode([token for token in ids if token >= 0])),
    )
