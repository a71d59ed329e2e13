"""Single operations on the virtual GPU, for what their kernels take beside their results."""

from __future__ import annotations

from typing import Any

__all__ = ["crossing", "efficient", "normed", "picked", "sorted_scores", "summed"]


def summed(gpu: Any, sizes: tuple[int, ...], dims: tuple[int, ...], dtype: str) -> None:
    """A sum over some dimensions."""
    import torch

    values = torch.empty(sizes, device=gpu.device, dtype=getattr(torch, dtype))
    gpu.phase("sum")
    values.sum(dims)


def sorted_scores(gpu: Any, *sizes: int) -> None:
    """Scores of tokens in fp32, in order."""
    import torch

    torch.sort(torch.empty(*sizes, device=gpu.device), dim=-1, descending=True)


def picked(gpu: Any, count: int, *, replacement: bool) -> None:
    """Tokens picked by their probabilities."""
    import torch

    probabilities = torch.empty(4, 1000, device=gpu.device)
    torch.multinomial(probabilities, count, replacement=replacement)


def crossing(gpu: Any, which: str) -> None:
    """One copy between the host and the card, of 100 x 10 out of 100 x 20."""
    import torch

    host, card = torch.empty(100, 20), torch.empty(100, 20, device=gpu.device)
    halves = torch.empty(100, 10, dtype=torch.float16)
    run: Any = {
        "slice to host": card[:, :10].cpu,
        "slice to card": lambda: host[:, :10].to(gpu.device),
        "into a slice": lambda: card[:, :10].copy_(host[:, :10]),
        "whole": card.cpu,
        "transposed": lambda: card.t().cpu(),
        "cast": lambda: card.to("cpu", torch.float16),
        "cast, not awaited": lambda: halves.copy_(card[:, :10].contiguous(), non_blocking=True),
        "on the card": card[:, :10].clone,
    }[which]
    gpu.phase("copy")
    run()


def efficient(gpu: Any, dtype: str, head: int, *, deterministic: bool = False) -> None:
    """Memory-efficient attention (there is a mask), with its backward pass."""
    import torch

    torch.use_deterministic_algorithms(deterministic)
    sizes = (2, 4, 100, head)
    query = torch.empty(sizes, device=gpu.device, dtype=getattr(torch, dtype), requires_grad=True)
    mask = torch.ones(100, 100, dtype=torch.bool, device=gpu.device)
    out = torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
    gpu.phase("backward")
    torch.autograd.backward(out, torch.empty_like(out))


def normed(gpu: Any) -> None:
    """`RMSNorm` of torch, which CUDA has a kernel for."""
    import torch

    norm = torch.nn.RMSNorm(64).to(gpu.device)
    values = torch.empty(100, 64, device=gpu.device, requires_grad=True)
    gpu.phase("forward")
    out = norm(values)
    gpu.phase("backward")
    torch.autograd.backward(out, torch.empty_like(out))
