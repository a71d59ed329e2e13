"""Step 6, saving and loading again: what comes back must compute what was trained."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.errors import ReloadMismatch
from ftcheck.pipeline.adapter import unwrapped
from ftcheck.pipeline.devices import choose_device
from ftcheck.pipeline.model import load_base, loading_options, on_device
from ftcheck.recipe import Recipe
from ftcheck.sources.base_model import BaseModel, find_base_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = ["ReloadComparison", "compare", "probe_logits", "reload", "save"]

_PROBE_ROWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadComparison:
    """Logits after loading against logits before saving, on the same rows and device.

    Attributes:
        difference: Largest absolute difference.
        tolerance: Largest difference that passes.
        adapter_effect: Largest absolute difference that training made to the base's logits on
            those rows; what a reload that lost the adapter would be off by.
    """

    difference: float
    tolerance: float
    adapter_effect: float


def save(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    folder: Path,
    *,
    source: BaseModel | None = None,
) -> None:
    """Save the adapter (or the whole model, without `[lora]`) and the tokenizer.

    Written beside and renamed, so that `folder` is complete or not there.

    Args:
        model: What `wrap` returned, trained.
        tokenizer: Its tokenizer; a resized embedding is saved with the adapter.
        recipe: The recipe.
        folder: Where it goes; what an earlier try of the same run left there is replaced.
        source: Where the base model is; found where `None`.
    """
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():  # left by a run that was killed here
        shutil.rmtree(partial)
    _use_cache_again(model)
    if recipe.lora is None:
        model.save_pretrained(partial)
    else:
        rows: int = unwrapped(model).get_input_embeddings().weight.shape[0]
        resized = rows != (source or find_base_model(recipe)).embedding_rows
        # Said outright: peft's own guess looks at the hub, and is wrong without a network.
        model.save_pretrained(partial, save_embedding_layers=resized)
    tokenizer.save_pretrained(partial)
    replaced = folder.with_name(folder.name + ".replaced")
    if folder.exists():  # a resumed run that was killed behind this point
        os.rename(folder, replaced)
    os.rename(partial, folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _use_cache_again(model: Any) -> None:
    """Mend `cache-left-off`."""
    config = unwrapped(model).config
    if getattr(config, "use_cache", None) is False:
        config.use_cache = True


def reload(
    recipe: Recipe, folder: Path, *, source: BaseModel | None = None
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load what `save` wrote, whole onto the recipe's device, in evaluation mode.

    The tokenizer comes from the same folder. `model.reload_with` chooses the way: a new base under
    `PeftModel.from_pretrained`, or `AutoModelForCausalLM.from_pretrained` on the folder.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if recipe.lora is None or recipe.model.reload_with == "auto":
        return _reload_folder(recipe, folder), tokenizer
    from peft import PeftModel

    base = load_base(recipe, tokenizer, source=source)
    device = base.device
    model = PeftModel.from_pretrained(base, str(folder))
    if recipe.quantization is None:
        model.to(device)
    return model.eval(), tokenizer


def _reload_folder(recipe: Recipe, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    device = choose_device(recipe)
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        trust_remote_code=recipe.model.trust_remote_code,
        **loading_options(recipe, device),
    )
    return on_device(recipe, model, device)


def probe_logits(model: Any, rows: Any) -> torch.Tensor:
    """Logits on the first rows of a split, in evaluation mode, without gradients.

    Args:
        model: Any causal language model.
        rows: Tokenized rows, as `TokenizedData` holds them.

    Returns:
        float32 on the CPU, `(tokens, vocab)`: every row one after the other, without pads.
    """
    import torch

    was_training = model.training
    model.eval()
    pieces = []
    with torch.no_grad():
        for row in rows.select(range(min(_PROBE_ROWS, len(rows)))):
            mask = torch.tensor(row["attention_mask"])
            ids = torch.tensor(row["input_ids"])[mask.bool()]
            if len(ids) == 0:
                continue
            logits = model(input_ids=ids[None].to(model.device)).logits  # (1, T, V)
            pieces.append(logits[0].float().cpu())
    model.train(was_training)
    return torch.cat(pieces) if pieces else torch.zeros(0)


def base_probe_logits(model: Any, rows: Any) -> torch.Tensor:
    """`probe_logits` of the base under an adapter: the adapter is switched off meanwhile."""
    if not hasattr(model, "disable_adapter"):
        return probe_logits(model, rows)
    with model.disable_adapter():
        return probe_logits(model, rows)


def compare(
    saved: torch.Tensor, loaded: torch.Tensor, base: torch.Tensor, recipe: Recipe
) -> ReloadComparison:
    """Compare logits before saving with logits after loading.

    The tolerance is relative to the largest logit: 1e-4 for float32 weights (rounding of another
    order of summation; on one CPU the difference is 0), 2e-2 for half precision (8 bits of
    mantissa in bfloat16, a few roundings deep). Quantized weights come back bit for bit, and what
    is not quantized has the type that the recipe names.

    Args:
        saved: Logits of the trained model.
        loaded: Logits of what was loaded again.
        base: Logits of the base without the adapter, before or after training.
        recipe: The recipe.

    Raises:
        ReloadMismatch: They differ by more than the tolerance, or are not finite.
    """
    import torch

    finite = bool(torch.isfinite(saved).all())
    scale = max(float(saved.abs().max()), 1.0) if finite and saved.numel() else 1.0
    tolerance = scale * (1e-4 if recipe.model.dtype == "float32" else 2e-2)
    difference = float((saved - loaded).abs().max()) if saved.numel() else 0.0
    effect = float((saved - base).abs().max()) if saved.numel() else 0.0
    if finite and difference <= tolerance:
        return ReloadComparison(difference=difference, tolerance=tolerance, adapter_effect=effect)
    looks_like_base = torch.allclose(loaded, base, rtol=0, atol=tolerance)
    reason = " They are those of the base model: the adapter was lost." if looks_like_base else ""
    raise ReloadMismatch(
        f"The reloaded model does not compute what was trained: its logits are off by "
        f"{difference:.3g} (at most {tolerance:.3g} would pass; training moved them by "
        f"{effect:.3g}).{reason}",
        difference=difference,
        tolerance=tolerance,
        next_step='Set model.reload_with = "peft"; known library bugs: ftcheck doctor.',
    )
