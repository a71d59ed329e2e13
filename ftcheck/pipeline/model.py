"""Step 3, base model: loaded in the precision that the recipe names, on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftcheck.environment import installed_version
from ftcheck.pipeline.chunked_loss import chunked_loss
from ftcheck.pipeline.devices import choose_device
from ftcheck.pipeline.library_bugs import in_range, mend_base_model
from ftcheck.recipe import Arguments, Recipe
from ftcheck.sources.base_model import BaseModel, find_base_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["dtype_name", "load_base", "loading_options", "longest_context", "on_device"]


def load_base(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, source: BaseModel | None = None
) -> PreTrainedModel:
    """Load the base model of a recipe onto its device, in evaluation mode.

    Where the tokenizer has more tokens than the embedding has rows, the embedding is resized to
    `len(tokenizer)`; the new rows are drawn from `training.seed`, so that every load gives the
    same ones.

    Args:
        recipe: The recipe.
        tokenizer: What `load_tokenizer` returned.
        source: Where the base model is; found where `None`.

    Raises:
        InputError: The folder or the name is no causal language model in safetensors, weights are
            missing from it, or rows are longer than its context.
        Unavailable: The hub or the network does not have it.
    """
    from transformers import AutoModelForCausalLM

    source = source or find_base_model(recipe)
    device = choose_device(recipe)
    _check_quantization(recipe, device)
    options = {**loading_options(recipe, device), **source.options}
    with source.loading("model"):
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.location, output_loading_info=True, **options
        )
        model = on_device(recipe, model, device)
    _check_complete(recipe, model, loading)
    _check_context(recipe, model)
    _fit_embedding(recipe, model, tokenizer)
    if recipe.model.loss_type is not None:
        model.loss_type = recipe.model.loss_type
    if recipe.model.loss_chunk_tokens is not None:
        if not in_range({"transformers": ">=4.52"}):  # below, a model's loss cannot be set
            raise recipe.fault(
                "model.loss_chunk_tokens", "it needs transformers 4.52", "Upgrade, or leave it out."
            )
        model.loss_function = chunked_loss(recipe.model.loss_chunk_tokens)
    return model


def on_device(recipe: Recipe, model: PreTrainedModel, device: str) -> PreTrainedModel:
    """A model as `from_pretrained` gave it, moved whole to a device, in evaluation mode."""
    if recipe.quantization is None:
        model.to(device)
    mend_base_model(model)
    return model.eval()


def dtype_name() -> str:
    """The argument for a dtype: `dtype`, or `torch_dtype` before transformers 4.56."""
    return "dtype" if in_range({"transformers": ">=4.56"}) else "torch_dtype"


def loading_options(recipe: Recipe, device: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` that a recipe decides, beside those of `BaseModel.options`."""
    import torch

    model = recipe.model
    options: dict[str, Any] = {
        dtype_name(): model.dtype if model.dtype == "auto" else getattr(torch, model.dtype),
        "use_safetensors": True,
    }
    if model.attn_implementation is not None:
        options["attn_implementation"] = model.attn_implementation
    if recipe.quantization is not None:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            **_for_device(recipe.quantization, device)
        )
        options["device_map"] = {"": device}
    return options


def _for_device(quantization: Arguments, device: str) -> Arguments:
    """4-bit layers that compute in float16 do it in float32 on a CPU, which has no fast float16.

    Measured at GPT-2's size: some 40 s a micro-batch of 128 tokens in float16, 1.1 s in float32.
    """
    if device == "cpu" and quantization.get("bnb_4bit_compute_dtype") == "float16":
        return quantization.replace(bnb_4bit_compute_dtype="float32")
    return quantization


def _check_quantization(recipe: Recipe, device: str) -> None:
    """Quantized weights on a CPU: bitsandbytes and transformers learned it late."""
    if recipe.quantization is None or device != "cpu":
        return
    needed = {"transformers": "4.55", "bitsandbytes": "0.47"}
    old = [
        f"{name} {installed_version(name)} (needs {least})"
        for name, least in needed.items()
        if not in_range({name: f">={least}"})
    ]
    if old:
        raise recipe.fault(
            "quantization",
            f"this machine has no GPU, and on a CPU {' and '.join(old)} cannot quantize",
            "Upgrade, run on a machine with a GPU, or leave [quantization] out.",
        )


def _check_complete(recipe: Recipe, model: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Missing weights are drawn at random, which `from_pretrained` only warns of."""
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    missing = sorted(set(loading["missing_keys"]) - tied)
    if missing:
        raise recipe.fault(
            "model.name_or_path",
            f"{recipe.model.name_or_path} lacks the weights {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + ", which would be drawn at random",
            "Give a complete checkpoint of a causal language model.",
        )


def longest_context(model: PreTrainedModel) -> int | None:
    """Positions that a model has room for; `None` where its configuration names none."""
    return getattr(model.config, "max_position_embeddings", None)


def _check_context(recipe: Recipe, model: PreTrainedModel) -> None:
    context = longest_context(model)
    if context is not None and recipe.tokenization.max_length > context:
        raise recipe.fault(
            "tokenization.max_length",
            f"{recipe.tokenization.max_length} tokens, and "
            f"{recipe.model.name_or_path} has room for {context}",
            f"Set max_length to {context} or less.",
        )


def _fit_embedding(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return
    if recipe.lora is not None and recipe.model.reload_with == "auto":
        raise recipe.fault(
            "model.reload_with",
            f'"auto" loads a base with {rows} embedding rows, and the pad token makes them '
            f"{len(tokenizer)}",
            'Set model.reload_with = "peft", or take a pad token that the vocabulary has.',
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model.resize_token_embeddings(len(tokenizer))
