"""Memory that kernels of CUDA take beside their results, where it can reach a MiB.

Not followed, because it stays below that or beside far larger results: the temporary storage of
sorting, `topk` and `cumsum` when tokens are picked, partial sums of `sum` over many rows, and those
of `native_layer_norm_backward`, which has some from 65,536 rows on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from ftcheck.memory.vgpu.kernels import Kernels

__all__ = ["install", "multiprocessors"]

_PROCESSORS: Final = {
    (7, 0): 80,  # V100
    (7, 5): 72,  # Quadro RTX 6000
    (8, 0): 108,  # A100
    (8, 6): 84,  # A40
    (8, 9): 142,  # L40S
    (9, 0): 132,  # H100 SXM
    (10, 0): 148,  # B200
    (12, 0): 188,  # RTX PRO 6000
}
"""Multiprocessors of a large card of each capability (NVIDIA's data sheets)."""
_USUAL_PROCESSORS: Final = 108


def multiprocessors(capability: tuple[int, int]) -> int:
    """Multiprocessors, which decide how kernels split their work; more of them take more scratch.

    Args:
        capability: Compute capability; a smaller card of the same one has fewer.
    """
    return _PROCESSORS.get(capability, _USUAL_PROCESSORS)


def install(kernels: Kernels, capability: tuple[int, int]) -> None:
    """Tell the kernels what to allocate besides their results."""
    aten, processors = torch.ops.aten, multiprocessors(capability)
    kernels.beside(aten.embedding_dense_backward.default, lambda args: _embedding(args, processors))
    kernels.beside(aten._foreach_norm.Scalar, _norms)


def _embedding(args: Sequence[Any], processors: int) -> dict[str, int]:
    """Sums of the gradients of each run of ten equal tokens, before they are added up.

    `embedding_dense_backward_cuda` of `aten/src/ATen/native/cuda/Embedding.cu` and
    `embedding_backward_cuda_kernel` of `EmbeddingBackwardKernel.cu` of torch 2.13, which sizes its
    buffers for the most runs that could be, not for those that are.
    """
    gradient, indices, rows, _, by_frequency = args
    tokens, width = indices.numel(), gradient.shape[-1]
    if tokens <= 3072 and not by_frequency:
        return {}
    segments = min(tokens, rows)
    parts = tokens // 10 + segments  # NROWS_PER_THREAD
    index_bytes = indices.dtype.itemsize
    buffers = {
        "sorted_indices": tokens * index_bytes,
        "orig_indices": tokens * index_bytes,
        "segment_offsets": tokens * index_bytes,
        "partials_per_segment": segments * index_bytes,
        "partials_per_segment_offset": segments * index_bytes,
        "partial_segment_offset": parts * index_bytes,
    }
    threads = -(-width // 32) * 32
    blocks = -(-segments * threads // min(threads, 1024))
    half = gradient.dtype.itemsize < 4
    if (
        blocks < 4 * processors  # MAX_ATOMIC_ACCUM_BLOCKS_PER_SM
        and parts > 4 * blocks
        and not torch.are_deterministic_algorithms_enabled()
    ):
        buffers["partial_to_segment_idx"] = parts * index_bytes
        if half:
            buffers["grad_weight_acc"] = rows * width * 4
    else:
        sum_bytes = 4 if half else gradient.dtype.itemsize
        buffers["grad_weight_per_segment"] = parts * width * sum_bytes
    return buffers


def _norms(args: Sequence[Any]) -> dict[str, int]:
    """Norms of all chunks, when gradients are clipped: as many for each as the largest has.

    `foreach_tensor_norm_cuda` of `aten/src/ATen/native/cuda/ForeachReduceOp.cu`; a chunk
    (`kChunkSize` of `MultiTensorApply.cuh`) has 65,536 elements.
    """
    tensors = args[0]
    chunks = max(-(-tensor.numel() // 65_536) for tensor in tensors)
    return {"output_per_tensor": len(tensors) * chunks * max(4, tensors[0].dtype.itemsize)}
