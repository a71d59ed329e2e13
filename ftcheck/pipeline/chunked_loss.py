"""The causal loss over a few tokens at a time: the logits are never all in float32 at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["chunked_loss"]

_IGNORED = -100  # `ignore_index` of torch.nn.functional.cross_entropy


def chunked_loss(chunk_tokens: int) -> Callable[..., torch.Tensor]:
    """A loss to set as `model.loss_function`, equal to `ForCausalLMLoss` of transformers.

    Each chunk is a checkpoint: its copy in float32, its softmax and their gradient exist only while
    it is computed, forward and again backward.

    Args:
        chunk_tokens: Tokens of a chunk, over the rows of a batch joined together.
    """
    return partial(_loss, chunk_tokens)


def _loss(
    chunk_tokens: int,
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    *,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = _IGNORED,
    shift_labels: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Mean over label tokens, or their sum by `num_items_in_batch`.

    Args:
        chunk_tokens: Tokens of a chunk.
        logits: `(batch, seq, vocab)`, of any floating dtype.
        labels: `(batch, seq)` int64, not shifted.
        vocab_size: Columns of the logits.
        num_items_in_batch: Label tokens of all accumulated batches.
        ignore_index: Label that is left out.
        shift_labels: `(batch, seq)` labels that are shifted already.
        kwargs: What transformers hands to every loss.

    Returns:
        A float32 scalar on the device of the logits.
    """
    import torch
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint

    del kwargs
    if shift_labels is None:
        shift_labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    targets = shift_labels.reshape(-1).to(logits.device)  # (batch * seq,)
    rows = logits.reshape(-1, vocab_size)  # (batch * seq, vocab)
    total = torch.zeros((), device=logits.device)
    # `split`, not slices: the backward of a slice would make a whole gradient for each chunk.
    parts = zip(torch.split(rows, chunk_tokens), torch.split(targets, chunk_tokens), strict=True)
    for part, wanted in parts:
        total = total + checkpoint(_sum, part, wanted, ignore_index, use_reentrant=False)
    count = num_items_in_batch
    if count is None:
        count = (targets != ignore_index).sum()
    elif isinstance(count, torch.Tensor):
        count = count.to(logits.device)
    return total / count


def _sum(logits: torch.Tensor, targets: torch.Tensor, ignore_index: int) -> torch.Tensor:
    from torch.nn import functional

    return functional.cross_entropy(
        logits.float(), targets, ignore_index=ignore_index, reduction="sum"
    )
