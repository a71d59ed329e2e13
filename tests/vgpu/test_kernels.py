"""Memory that single kernels take: figures of CUDA's own code, compiled, or from its arithmetic."""

from __future__ import annotations

import pytest

from ftcheck.vgpu import Result, run
from tests.vgpu import kernel_probes, probes
from tests.vgpu.test_scratch import taken


def made(result: Result, phase: str) -> list[tuple[str, int]]:
    return [
        (event.tags.op, event.size_bytes)
        for event in result.trace
        if event.action == "alloc" and event.tags.phase == phase
    ]


@pytest.mark.parametrize(
    ("capability", "sizes", "dims", "dtype", "buffers"),
    [
        ((8, 9), (4096, 768), (0,), "float32", (25_165_824, 24)),
        ((8, 0), (8, 512, 768), (0, 1), "float16", (25_165_824, 24)),
        ((8, 6), (4096, 11008), (0,), "float32", (67_633_152, 344)),
        ((8, 9), (1024, 768), (0,), "float32", (6_291_456, 24)),
        ((8, 9), (1020, 768), (0,), "float32", ()),  # 255 values a thread
        ((8, 9), (4096, 768), (1,), "float32", ()),  # what is summed lies side by side
        ((8, 9), (4096, 768), (0,), "int64", ()),
    ],
)
def test_sums_over_rows_take_partial_sums(
    capability: tuple[int, int],
    sizes: tuple[int, ...],
    dims: tuple[int, ...],
    dtype: str,
    buffers: tuple[int, ...],
) -> None:
    """By `setReduceConfig` of the wheel's Reduce.cuh, compiled and run without a card."""
    result = run(kernel_probes.summed, sizes, dims, dtype, capability=capability)
    assert tuple(taken(result, "aten::sum").values()) == buffers
    assert any("multiprocessors" in line for line in result.assumptions) is bool(buffers)


@pytest.mark.parametrize(
    ("sizes", "buffers"),
    [
        ((4, 4096), {}),
        ((5000,), {"indices": 40_000, "cub": 60_000}),
        (
            (4, 5000),
            {
                "indices_and_segment": 160_000,
                "indices_and_segment2": 160_000,
                "keys_out": 80_000,
                "cub": 240_000,
            },
        ),
        ((128, 5000), {"reverse_indices": 5_120_000, "cub": 7_680_000}),
    ],
)
def test_long_rows_are_sorted_beside_themselves(
    sizes: tuple[int, ...], buffers: dict[str, int]
) -> None:
    assert taken(run(kernel_probes.sorted_scores, *sizes), "aten::sort") == buffers


@pytest.mark.parametrize(
    ("count", "replacement", "buffers"),
    [(1, False, {"q": 16_000}), (1, True, {"q": 16_000}), (2, False, {"q": 16_000}), (2, True, {})],
)
def test_picking_takes_a_random_number_for_each_token(
    count: int, replacement: bool, buffers: dict[str, int]
) -> None:
    result = run(kernel_probes.picked, count, replacement=replacement)
    assert taken(result, "aten::multinomial") == buffers


@pytest.mark.parametrize(
    ("which", "staged"),
    [
        ("slice to host", 4000),
        ("slice to card", 0),  # made contiguous by the host
        ("into a slice", 4000),
        ("whole", 0),
        ("transposed", 0),  # the same piece of memory
        ("cast", 0),  # by the host
        ("cast, not awaited", 2000),
        ("on the card", 0),
    ],
)
def test_copies_cross_in_one_piece(which: str, staged: int) -> None:
    buffers = taken(run(kernel_probes.crossing, which), "aten::_copy_from")
    assert buffers == ({"staging": staged} if staged else {})


EFFICIENT = "aten::_scaled_dot_product_efficient_attention_backward"


@pytest.mark.parametrize(
    ("capability", "dtype", "head", "deterministic", "workspace"),
    [
        ((7, 5), "float16", 64, False, 262_400),
        ((8, 6), "float16", 128, False, 1_573_376),
        ((8, 6), "float16", 128, True, 1_049_088),
        ((8, 0), "float16", 128, False, 524_416),
        ((8, 6), "float32", 64, False, 262_400),
        ((8, 0), "float32", 128, False, 524_544),
        ((8, 0), "float16", 160, False, 2_883_968),
    ],
)
def test_efficient_attention_sums_in_its_workspace(
    capability: tuple[int, int], dtype: str, head: int, deterministic: bool, workspace: int
) -> None:
    """By `workspace_size` of the wheel's kernel_backward.h, compiled; fp32 makes `delta` itself."""
    result = run(
        kernel_probes.efficient, dtype, head, deterministic=deterministic, capability=capability
    )
    rows = 2 * 4 * 100 * 4
    buffers = taken(result, EFFICIENT)
    assert buffers.pop("workspace") == workspace
    assert buffers.pop("delta") == rows
    by_itself = {"product": rows * head, "sum": rows, "delta, made": rows}
    assert buffers == (by_itself if dtype == "float32" else {})
    forward = taken(result, "aten::_scaled_dot_product_efficient_attention (")
    assert forward == ({"output_accum": rows * head} if head > 128 else {})


@pytest.mark.parametrize(("head", "rounded"), [(64, 64), (72, 96), (160, 192), (200, 256)])
def test_flash_attention_rounds_heads_up_to_its_kernels(head: int, rounded: int) -> None:
    """Kernels of the wheel: 32, 64, 96, 128, 192, 256."""
    shape = (1, 12, 512, head)
    result = run(probes.attention, shape, shape, deterministic=False, capability=(8, 0))
    buffers = taken(result, "aten::_scaled_dot_product_flash_attention_backward")
    assert buffers["dq_accum"] == 12 * 512 * rounded * 4


def test_the_norm_of_torch_is_one_kernel() -> None:
    result = run(kernel_probes.normed)
    assert made(result, "forward") == [
        ("aten::_fused_rms_norm", 100 * 64 * 4),
        ("aten::_fused_rms_norm", 100 * 4),
    ]
    assert ("aten::_fused_rms_norm_backward", 100 * 64 * 4) in made(result, "backward")
