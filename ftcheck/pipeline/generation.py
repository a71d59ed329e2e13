"""Step 7, generation: text from a model, as a decoder-only model has to be asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftcheck.pipeline.model import longest_context
from ftcheck.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check_prompts", "generate", "new_tokens"]

_DEFAULT_NEW_TOKENS = 50


def generate(
    model: Any, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, prompts: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Continue prompts: padded on the left, with mask and pad id, in evaluation mode.

    Args:
        model: A causal language model; inputs are moved to its device.
        tokenizer: Its tokenizer; the padding side is as before afterwards.
        recipe: Decides the arguments of `generate` and the seed of a sampled text.
        prompts: Texts to continue; those of the recipe where empty.

    Returns:
        Prompt and continuation, a text a prompt (`num_return_sequences` texts, where that is set).
    """
    import torch
    from transformers import GenerationConfig

    prompts = prompts or recipe.generation.prompts
    if not prompts:
        return ()
    check_prompts(model, tokenizer, recipe, prompts)
    batch = _left_padded(tokenizer, prompts).to(model.device)
    arguments = {"max_new_tokens": _DEFAULT_NEW_TOKENS, **recipe.generation.arguments}
    if "max_length" in recipe.generation.arguments:
        arguments.pop("max_new_tokens")
    arguments.setdefault("pad_token_id", tokenizer.pad_token_id)
    arguments.setdefault("eos_token_id", tokenizer.eos_token_id)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        # `stop_strings` are found in text, for which `generate` wants the tokenizer.
        more = {"tokenizer": tokenizer} if "stop_strings" in arguments else {}
        ids = model.generate(**batch, generation_config=GenerationConfig(**arguments), **more)
    model.train(was_training)
    return tuple(tokenizer.batch_decode(ids, skip_special_tokens=True))


def _left_padded(tokenizer: PreTrainedTokenizerBase, prompts: tuple[str, ...]) -> Any:
    side = tokenizer.padding_side
    tokenizer.padding_side = "left"
    try:
        # An empty prompt has no token to continue from; texts start at the separator.
        texts = [prompt or tokenizer.bos_token or tokenizer.eos_token for prompt in prompts]
        return tokenizer(texts, return_tensors="pt", padding=True)
    finally:
        tokenizer.padding_side = side


def new_tokens(recipe: Recipe) -> int:
    """How many tokens a recipe generates at most; 0 where it limits prompt and text together."""
    arguments = recipe.generation.arguments
    default = 0 if "max_length" in arguments else _DEFAULT_NEW_TOKENS
    return int(arguments.get("max_new_tokens", default))


def check_prompts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    prompts: tuple[str, ...] = (),
) -> None:
    """Refuse prompts that leave no room in the context for what is to be generated.

    Raises:
        InputError: Prompt and new tokens together are longer than the context.
    """
    context = longest_context(model)
    if context is None:
        return
    new = new_tokens(recipe)
    for prompt in prompts or recipe.generation.prompts:
        length = len(tokenizer(prompt, verbose=False)["input_ids"])
        if length + new > context:
            raise recipe.fault(
                "generation.prompts",
                f"a prompt of {length} tokens and {new} new ones do not fit into the context of "
                f"{context}",
                "Shorten the prompt, or set max_new_tokens lower.",
            )
