"""Small programs for the virtual GPU, each of which returns what it saw."""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = [
    "accumulation",
    "attention",
    "autocast",
    "clipping",
    "configured_product",
    "embedding",
    "kept",
    "kernels",
    "loop",
    "moves",
    "product",
    "products",
    "swallowed",
    "unknown_size",
    "values",
]


def values(gpu: Any) -> dict[str, Any]:
    """Contents that are known, and single numbers that are not."""
    import torch

    device = gpu.device
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).to(device)
    matrix = torch.tensor([[1, 2], [3, 4]], device=device)
    row = matrix[0]  # a view
    row.add_(10)
    loss = torch.nn.functional.mse_loss(torch.rand(3, device=device), torch.rand(3, device=device))
    seen = {
        "padding": bool(mask.all()),
        "count": int(mask.sum().item()),
        "written through a view": matrix.tolist(),
        "where": torch.nonzero(mask).shape,
        "cumsum": torch.cumsum(mask, dim=1).cpu().tolist(),
        "range": int(torch.arange(7, device=device).max()),
        "joined": torch.stack([matrix, matrix])[1].tolist(),
        "nominal": loss.item(),
        "finite": bool(torch.isfinite(loss)),
    }
    gone = torch.rand(4, 4, device=device).argmax(dim=-1)
    seen["token"] = gone.tolist()
    return seen


def unknown_size(gpu: Any) -> None:
    """The size of a result depends on values that are not there."""
    import torch

    torch.nonzero(torch.rand(64, 64, device=gpu.device))


def swallowed(gpu: Any) -> int:
    """As above, by a program that goes on."""
    with contextlib.suppress(Exception):
        unknown_size(gpu)
    return 1


def _tied(*, scaled: bool = False) -> Any:
    """An embedding and a head of one matrix, 100 x 16, and a buffer of 16 where it is scaled."""
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(100, 16)
            self.head = nn.Linear(16, 100, bias=False)
            self.head.weight = self.embed.weight
            if scaled:
                self.register_buffer("scale", torch.ones(16))

        def forward(self, ids: Any) -> Any:
            return self.head(self.embed(ids))

    return Tied()


def moves(gpu: Any) -> dict[str, Any]:
    """Modules and tensors between the host and the card."""
    import torch
    from torch import nn

    alive = gpu.recorder.alive_bytes
    seen: dict[str, Any] = {}
    model = _tied(scaled=True).to(gpu.device)
    seen["moved"] = (alive(), model.head.weight is model.embed.weight, model.scale.device.type)
    model.half()
    seen["half"] = (alive(), model.head.weight is model.embed.weight)
    model.cpu()
    seen["back"] = (alive(), model.head.weight.device.type)
    with torch.device("meta"):
        empty = _tied(scaled=True)
    gpu.materialize(empty)
    seen["materialized"] = (alive(), empty.head.weight is empty.embed.weight)
    del model, empty
    seen["gone"] = alive()
    mix: Any
    for name, mix in {
        "embedding": lambda: nn.functional.embedding(
            torch.zeros(2, dtype=torch.long), torch.rand(4, 4, device=gpu.device)
        ),
        "add": lambda: torch.rand(3, device=gpu.device) + torch.rand(3),
        "mm": lambda: torch.rand(3, 3, device=gpu.device) @ torch.rand(3, 3),
        "layer_norm": lambda: nn.functional.layer_norm(
            torch.rand(3, device=gpu.device), (3,), torch.rand(3), torch.rand(3)
        ),
    }.items():
        try:
            mix()
        except RuntimeError as error:
            seen[name] = str(error)
    seen["scalar of the host"] = (torch.rand(3, device=gpu.device) * torch.tensor(2.0)).device.type
    return seen


def kept(gpu: Any) -> dict[str, Any]:
    """A model that was trained on the host, watched and held by an optimizer, and then moved."""
    import weakref

    import torch

    model = _tied()
    weight = model.head.weight
    adam, watch, hooks = torch.optim.AdamW(model.parameters()), weakref.ref(weight), []
    ids = torch.zeros(3, dtype=torch.long)
    torch.autograd.backward(model(ids).sum())
    hooks_of: Any = weight  # registering them has no types
    hooks_of.register_hook(lambda _: hooks.append("gradient"))
    hooks_of.register_post_accumulate_grad_hook(lambda _: hooks.append("accumulated"))
    model.to(gpu.device)
    seen: dict[str, Any] = {
        "same": model.head.weight is weight and model.embed.weight is watch(),
        "gradient": "none" if weight.grad is None else weight.grad.device.type,
    }
    torch.autograd.backward(model(ids.to(gpu.device)).sum())
    adam.step()
    seen["hooks"] = hooks
    seen["state"] = adam.state[weight]["exp_avg"].device.type
    adam.zero_grad()
    seen["alive"] = gpu.recorder.alive_bytes()
    model.cpu()
    seen["back"] = (model.head.weight is weight, weight.device.type)
    return seen


def accumulation(gpu: Any) -> bool:
    """A sum of gradients inside of the graph, and one in a leaf: is it where the first was?"""
    import torch

    leaf = torch.rand(256, 256, device=gpu.device, requires_grad=True)
    inner = leaf * 2
    total = (inner * 3 * 5 + inner * 4 * 5).sum()
    gpu.phase("backward")
    torch.autograd.backward(total)
    gpu.phase("second")
    assert leaf.grad is not None
    first = leaf.grad.data_ptr()
    torch.autograd.backward((leaf * 2).sum())
    return leaf.grad.data_ptr() == first


def autocast(gpu: Any, dtype: str) -> dict[str, str]:
    """Dtype of the result of each operation on fp32 under autocast; and the cache of casts."""
    import torch
    from torch.nn import functional as F

    half = getattr(torch, dtype)
    matrix = torch.rand(8, 8, device=gpu.device)
    low = matrix.to(half)
    weight = torch.nn.Parameter(torch.rand(8, 8, device=gpu.device))
    target = torch.zeros(8, dtype=torch.long, device=gpu.device)
    qkv = torch.rand(1, 2, 8, 16, device=gpu.device)
    alive = gpu.recorder.alive_bytes
    seen: dict[str, Any] = {}
    run: Any
    with torch.autocast("vgpu", dtype=half):
        for name, run in {
            "linear": lambda: F.linear(matrix, weight),
            "matmul": lambda: matrix @ matrix,
            "bmm": lambda: torch.bmm(matrix[None], matrix[None]),
            "attention": lambda: F.scaled_dot_product_attention(qkv, qkv, qkv),
            "softmax": lambda: torch.softmax(low, -1),
            "log_softmax": lambda: F.log_softmax(low, -1),
            "layer_norm": lambda: F.layer_norm(low, (8,)),
            "cross_entropy": lambda: F.cross_entropy(low, target),
            "sum": low.sum,
            "pow": lambda: low.pow(2),
            "norm": lambda: torch.norm(low),
            "gelu": lambda: F.gelu(low),
            "add": lambda: low + matrix,
            "addcmul": lambda: torch.addcmul(low, low, matrix),
            "embedding": lambda: F.embedding(target, weight),
        }.items():
            seen[name] = str(run().dtype).removeprefix("torch.")
        # The cast of a trained fp32 weight is kept until the outermost autocast ends.
        F.linear(low, weight)
        before = alive()
        F.linear(low, weight)
        seen["second cast"] = alive() - before
        seen["kept"] = alive()
    seen["let go"] = seen["kept"] - alive()
    try:
        with torch.autocast("vgpu", dtype=half):
            F.binary_cross_entropy(matrix, matrix)
    except RuntimeError as error:
        seen["banned"] = str(error)
    return seen


def kernels(gpu: Any) -> dict[str, str]:
    """The attention kernel for some shapes, masks and dtypes on this card."""
    import torch

    def choice(dtype: torch.dtype, head: int = 64, **changes: Any) -> str:
        grad = changes.pop("grad", True)
        query = torch.rand(2, 4, 32, head, device=gpu.device, dtype=dtype, requires_grad=grad)
        settings = {"mask": None, "dropout": 0.0, "is_causal": True, "enable_gqa": False, **changes}
        return str(gpu.attention.choose(query, query, query, **settings))

    half, brain, full = torch.float16, torch.bfloat16, torch.float32
    mask = torch.ones(32, 32, dtype=torch.bool, device=gpu.device)
    return {
        "fp16": choice(half),
        "bf16": choice(brain),
        "fp32": choice(full),
        "mask": choice(half, mask=mask, is_causal=False),
        "head 100": choice(half, 100),
        "head 100 mask": choice(half, 100, mask=mask, is_causal=False),
        "head 200": choice(half, 200),
        "head 256 dropout": choice(half, 256, dropout=0.1),
        "head 256 no grad": choice(half, 256, grad=False),
        "head 300": choice(half, 300),
        "dropout": choice(half, dropout=0.1),
    }


def products(gpu: Any) -> dict[str, int]:
    """Products of both passes, and of a second round, with the bytes beside the tensors."""
    import torch

    alive = gpu.recorder.alive_bytes
    matrix = torch.rand(64, 64, device=gpu.device, requires_grad=True)
    tensors = alive()
    seen: dict[str, int] = {}
    for phases in (("mm", "backward"), ("mm again", "backward again")):
        twice = matrix * 2
        seen.setdefault("before the products", alive() - tensors - 64 * 64 * 4)
        gpu.phase(phases[0])
        total = (twice @ matrix).sum()
        gpu.phase(phases[1])
        torch.autograd.backward(total)
        matrix.grad = None
        del twice, total
    seen["held"] = alive() - tensors
    return seen


def product(gpu: Any, name: str) -> None:
    """One product of a kind."""
    import torch

    matrix = torch.rand(8, 8, device=gpu.device)
    row = torch.rand(8, device=gpu.device)
    batch = torch.rand(2, 8, 8, device=gpu.device)
    run: Any = {
        "mm": lambda: torch.mm(matrix, matrix),
        "addmm": lambda: torch.addmm(row, matrix, matrix),
        "bmm": lambda: torch.bmm(batch, batch),
        "baddbmm": lambda: torch.baddbmm(batch, batch, batch),
        "mv": lambda: torch.mv(matrix, row),
        "addmv": lambda: torch.addmv(row, matrix, row),
        "dot": lambda: torch.dot(row, row),
        "linear": lambda: torch.nn.functional.linear(batch, matrix, row),
        "matmul": lambda: batch @ matrix,
        "in place": lambda: matrix.addmm_(matrix.clone(), matrix.clone()),
    }[name]
    gpu.phase("product")
    run()


def configured_product(gpu: Any, config: str) -> None:
    """A product after `CUBLAS_WORKSPACE_CONFIG` has been set."""
    import os

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = config
    product(gpu, "mm")


def embedding(gpu: Any, rows: int, tokens: int, dtype: str, *, deterministic: bool = False) -> None:
    """The backward pass of an embedding of width 64."""
    import torch

    torch.use_deterministic_algorithms(deterministic)
    weight = torch.empty(rows, 64, device=gpu.device, dtype=getattr(torch, dtype))
    weight.requires_grad_()
    ids = torch.zeros(tokens, dtype=torch.long).to(gpu.device)
    torch.autograd.backward(torch.nn.functional.embedding(ids, weight).sum())


def clipping(gpu: Any) -> None:
    """Clips three gradients, of which the largest has three chunks."""
    import torch

    parameters = []
    for elements in (10, 65_536, 65_536 * 2 + 1):
        parameter = torch.nn.Parameter(torch.empty(elements, device=gpu.device))
        parameter.grad = torch.empty_like(parameter)
        parameters.append(parameter)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)


def attention(
    gpu: Any,
    query: tuple[int, ...],
    key: tuple[int, ...],
    *,
    dropout: float = 0.0,
    deterministic: bool | None = None,
) -> None:
    """One attention in half precision, with its backward pass if `deterministic` is said."""
    import torch

    if deterministic is not None:
        torch.use_deterministic_algorithms(deterministic)
    queries = torch.empty(query, device=gpu.device, dtype=torch.float16)
    keys = torch.empty(key, device=gpu.device, dtype=torch.float16)
    queries.requires_grad_(deterministic is not None)
    out = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, keys, dropout_p=dropout, enable_gqa=True
    )
    if deterministic is not None:
        torch.autograd.backward(out.sum())


def loop(gpu: Any, *, optimizer: bool, drop: bool) -> None:
    """A loop of people's own, with an optimizer of torch, or by hand; gradients dropped or kept."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)).to(gpu.device)
    batch = torch.rand(4, 64).to(gpu.device)
    adam = torch.optim.AdamW(model.parameters()) if optimizer else None
    for step in (1, 2):
        gpu.phase(f"step {step}")
        torch.autograd.backward(model(batch).square().mean())
        if adam is not None:
            adam.step()
        else:
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=0.1)
        model.zero_grad(set_to_none=drop)
