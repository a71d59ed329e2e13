"""Memory that kernels of CUDA take beside their results, where it can reach a MiB.

Attention and sums over rows have modules of their own. Not followed, because it stays below a MiB
or comes beside far larger results: what `topk`, `cumsum` and `nonzero` take, the sorted indices of
`index_put_`, sums of `native_layer_norm_backward`, which has some from 65,536 rows on, and copies
of matrices whose strides cuBLAS does not take. Losses, softmax, dropout, `cat` and the fused
optimizers take nothing. The random state is the host's, except in CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch

from ftcheck.vgpu.chip import Chip
from ftcheck.vgpu.device import DEVICE_TYPE
from ftcheck.vgpu.kernels import Kernels

__all__ = ["install"]

_INDEX_BYTES: Final = 8


def install(kernels: Kernels, chip: Chip) -> None:
    """Tell the kernels what to allocate besides their results."""
    aten, beside = torch.ops.aten, kernels.beside
    beside(aten.embedding_dense_backward.default, partial(_embedding, chip))
    beside(aten._foreach_norm.Scalar, _norms)
    beside(aten.sort.values_stable, _sorting)
    beside(aten.multinomial.default, _picking)
    beside(aten._copy_from.default, _staging)


def _embedding(chip: Chip, args: Sequence[Any], kwargs: Any) -> dict[str, int]:
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
        parts > 4 * blocks
        and blocks < 4 * chip.processors()  # MAX_ATOMIC_ACCUM_BLOCKS_PER_SM
        and not torch.are_deterministic_algorithms_enabled()
    ):
        buffers["partial_to_segment_idx"] = parts * index_bytes
        if half:
            buffers["grad_weight_acc"] = rows * width * 4
    else:
        sum_bytes = 4 if half else gradient.dtype.itemsize
        buffers["grad_weight_per_segment"] = parts * width * sum_bytes
    return buffers


def _norms(args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """Norms of all chunks, when gradients are clipped: as many for each as the largest has.

    `foreach_tensor_norm_cuda` of `aten/src/ATen/native/cuda/ForeachReduceOp.cu` of torch 2.13; a
    chunk (`kChunkSize` of `MultiTensorApply.cuh`) has 65,536 elements.
    """
    tensors = args[0]
    chunks = max(-(-tensor.numel() // 65_536) for tensor in tensors)
    return {"output_per_tensor": len(tensors) * chunks * max(4, tensors[0].dtype.itemsize)}


def _sorting(args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """What the ordering of tokens by their scores (`top_p`) takes beside both results.

    `launch_stable_sort_kernel` of `aten/src/ATen/native/cuda/SortStable.cu` and `sort_cuda_kernel`
    of `Sort.cpp` of torch 2.13: rows of up to 4096 are sorted in place. cub's radix sort holds keys
    and indices a second time, which is all of its temporary storage but some KiB.
    """
    scores = args[0]
    length = scores.shape[kwargs.get("dim", -1)] if scores.dim() else 1
    if length <= 4096:
        return {}
    elements, keys = scores.numel(), scores.numel() * scores.dtype.itemsize
    rows, positions = elements // length, elements * _INDEX_BYTES
    if rows == 1 or length >= 1_000_000:  # segmented_sort_large_segments, row by row
        row = length * _INDEX_BYTES
        return {"indices": row, "cub": row + length * scores.dtype.itemsize}
    if rows >= 128:  # segmented_sort_pairs
        return {"reverse_indices": positions, "cub": positions + keys}
    return {  # segmented_sort_pairs_by_full_sort
        "indices_and_segment": positions,
        "indices_and_segment2": positions,
        "keys_out": keys,
        "cub": positions + keys,
    }


def _picking(args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """Random numbers for each token that could be picked.

    `multinomial_out` of `aten/src/ATen/native/Distributions.cpp` of torch 2.13, which CUDA shares,
    where one is picked, or none twice.
    """
    weights, count = args[0], args[1]
    if count > 1 and len(args) > 2 and args[2]:  # with replacement
        return {}
    return {"q": weights.numel() * weights.dtype.itemsize}


def _staging(args: Sequence[Any], kwargs: Any) -> dict[str, int]:
    """What a copy between the host and the card goes through on the card.

    `copy_requires_temporaries` and `copy_kernel_cuda` of `aten/src/ATen/native/cuda/Copy.cu` of
    torch 2.13: what crosses is contiguous, and is cast on the card only if nobody waits for it.
    """
    source, target, nobody_waits = args[0], args[1], len(args) > 2 and args[2]
    to_card = target.device.type == DEVICE_TYPE
    if to_card and source.device.type == DEVICE_TYPE:
        return {}
    casts = source.dtype != target.dtype
    if not casts and source.stride() == target.stride() and _is_dense(source):
        return {}
    casts = casts and nobody_waits and not to_card
    ours = target if to_card else source
    if ours.is_contiguous() and not casts:
        return {}
    return {"staging": target.numel() * (target if casts else ours).dtype.itemsize}


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one piece of memory, in whatever order."""
    if tensor.is_contiguous():
        return True
    filled = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != filled:
                return False
            filled *= size
    return True
