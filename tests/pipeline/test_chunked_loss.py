"""The loss in chunks is the loss."""

from __future__ import annotations

import pytest

from ftcheck.pipeline import load_base, load_tokenizer
from ftcheck.pipeline.chunked_loss import chunked_loss
from tests.helpers.recipes import small_recipe
from tests.helpers.versions import at_least


@pytest.mark.parametrize("chunk_tokens", [1, 7, 16, 1000])
@pytest.mark.parametrize("items", [None, 5])
def test_loss_and_gradient_are_those_of_transformers(chunk_tokens: int, items: int | None) -> None:
    import torch
    from transformers.loss.loss_utils import ForCausalLMLoss

    torch.manual_seed(0)
    labels = torch.randint(0, 11, (2, 8))
    labels[0, 5:] = -100
    whole = torch.randn(2, 8, 11, requires_grad=True)
    chunked = whole.detach().clone().requires_grad_()
    expected = ForCausalLMLoss(whole, labels, 11, num_items_in_batch=items)
    found = chunked_loss(chunk_tokens)(chunked, labels, 11, num_items_in_batch=items)
    torch.autograd.backward([expected, found])
    # float32 sums of 13 terms in another order
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(chunked.grad, whole.grad, rtol=1e-6, atol=1e-7)


@pytest.mark.skipif(
    not at_least("transformers", "4.52"), reason="below, a model's loss cannot be set"
)
def test_a_recipe_sets_it() -> None:
    import torch

    plain = small_recipe()
    recipe = small_recipe("model.loss_chunk_tokens=5")
    tokenizer = load_tokenizer(plain)
    ids = torch.arange(24).reshape(2, 12)
    losses = [
        load_base(one, tokenizer)(input_ids=ids, labels=ids).loss.item() for one in (plain, recipe)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
