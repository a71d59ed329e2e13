from __future__ import annotations

from typing import Any

import pytest

from ftcheck.errors import InputError
from ftcheck.pipeline import generate, load_base, load_tokenizer
from tests.helpers.recipes import small_recipe

# A missing mask or right padding would warn; what old versions say at their import is not meant.
pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::DeprecationWarning",
    "ignore:`do_sample` is set to `False`:UserWarning",  # up to 4.46: of a temperature beside it
)


@pytest.fixture(scope="module")
def model_and_tokenizer() -> tuple[Any, Any]:
    recipe = small_recipe()
    tokenizer = load_tokenizer(recipe)
    return load_base(recipe, tokenizer), tokenizer


def test_a_batch_gives_what_each_prompt_gives_alone(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    recipe = small_recipe("generation.max_new_tokens=12")
    prompts = ("The ", "def main(argv):\n    return", "A much longer prompt about classes and ")
    together = generate(model, tokenizer, recipe, prompts)
    alone = tuple(generate(model, tokenizer, recipe, (prompt,))[0] for prompt in prompts)
    assert together == alone
    assert all(text.startswith(prompt) for text, prompt in zip(together, prompts, strict=True))


def test_state_is_as_before(model_and_tokenizer: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = model_and_tokenizer
    recipe = small_recipe("generation.do_sample=true")
    model.train()
    state, side = torch.get_rng_state(), tokenizer.padding_side
    first, second = (generate(model, tokenizer, recipe, ("The ",)) for _ in range(2))
    assert first == second  # seeded, and dropout is off
    assert model.training
    assert tokenizer.padding_side == side
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()


def test_an_empty_prompt_starts_a_text(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    (text,) = generate(model, tokenizer, small_recipe(), ("",))
    assert isinstance(text, str)


def test_no_prompts_give_no_texts(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    assert generate(model, tokenizer, small_recipe("generation.prompts=[]")) == ()


@pytest.mark.parametrize(("new", "fits"), [(255, True), (256, False)])
def test_prompt_and_new_tokens_must_fit(
    model_and_tokenizer: tuple[Any, Any], new: int, fits: bool
) -> None:
    from ftcheck.pipeline.generation import check_prompts

    model, tokenizer = model_and_tokenizer
    recipe = small_recipe(f"generation.max_new_tokens={new}", 'generation.prompts=["x"]')
    if fits:
        check_prompts(model, tokenizer, recipe)
    else:
        with pytest.raises(InputError, match="1 tokens and 256 new ones do not fit"):
            check_prompts(model, tokenizer, recipe)


def test_several_texts_a_prompt(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    recipe = small_recipe("generation.do_sample=true", "generation.num_return_sequences=3")
    assert len(generate(model, tokenizer, recipe, ("The ", "A "))) == 6
