"""Memory that kernels take beside their results, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ftcheck.allocator.categories import WORKSPACES
from ftcheck.vgpu import Call, Result
from tests.helpers.vgpu_runs import run_all, workspaces
from tests.vgpu import jobs, probes

USUAL = 8_519_680
SHAPE = (1, 12, 512, 64)
PRODUCTS = ["mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "matmul", "in place"]
SPLITS = [
    # 12 heads by 8 blocks of 64 queries are 96 of 216 places; 2 blocks of 256 keys.
    ((1, 12, 512, 64), (1, 12, 512, 64), 2),
    ((2, 12, 512, 64), (2, 12, 512, 64), 1),  # 192 of 216 are enough
    ((1, 12, 512, 64), (1, 12, 256, 64), 1),  # one block of keys
    # Groups of 4 heads become 4 queries of 8 heads; 16 splits of 2 blocks are as full as 32.
    ((1, 32, 1, 128), (1, 8, 4096, 128), 16),
]
CALLS = [
    Call(probes.products),
    *(Call(probes.product, (product,)) for product in PRODUCTS),
    Call(probes.configured_product, (":16:8",)),
    *(
        Call(probes.embedding, (rows, tokens, dtype))
        for rows, tokens, dtype in (
            (50_000, 4000, "float16"),
            (20, 4000, "float16"),
            (20, 4000, "float32"),
            (50_000, 3072, "float32"),
            (50_000, 3073, "float32"),
        )
    ),
    Call(probes.embedding, (20, 4000, "float16"), {"deterministic": True}),
    Call(probes.clipping),
    *(Call(probes.attention, (query, key), {}, (8, 0)) for query, key, _ in SPLITS),
    Call(probes.attention, (SHAPE, SHAPE), {"dropout": 0.1}, (8, 0)),
    *(
        Call(probes.attention, (SHAPE, SHAPE), {"deterministic": sure}, (8, 0))
        for sure in (False, True)
    ),
    Call(jobs.generates),
    *(
        Call(probes.loop, (), {"optimizer": optimizer, "drop": drop})
        for optimizer in (False, True)
        for drop in (False, True)
    ),
]

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run() -> Run:
    """`ftcheck.vgpu.run`, of the calls above, which are made together."""
    return run_all(CALLS)


def taken(result: Result, op: str) -> dict[str, int]:
    """Bytes of each buffer of an operation."""
    return {
        event.tags.op.removeprefix(op).strip(" ()"): event.size_bytes
        for event in result.trace
        if event.action == "alloc"
        and event.tags.category == WORKSPACES
        and event.tags.op.startswith(op)
    }


def test_each_thread_has_one_workspace_from_its_first_product(run: Run) -> None:
    """The caller's thread in the forward pass, autograd's in the backward pass."""
    result = run(probes.products)
    assert workspaces(result) == [("mm", USUAL), ("backward", USUAL)]
    assert result.value == {"before the products": 0, "held": 2 * USUAL}
    assert result.alive_bytes == 0


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_takes_a_workspace(run: Run, product: str) -> None:
    assert workspaces(run(probes.product, product)) == [("product", USUAL)]


def test_the_environment_is_read_at_the_first_product(run: Run) -> None:
    """`enable_full_determinism` of transformers sets it when the run has long begun."""
    result = run(probes.configured_product, ":16:8")
    assert workspaces(result) == [("product", 16 * 1024 * 8)]


EMBEDDING = "aten::embedding_dense_backward"


def test_the_gradient_of_an_embedding_takes_partial_sums(run: Run) -> None:
    """Of 4000 tokens, at most 4000 different ones, with 400 parts more."""
    tokens, parts = 4000, 4400
    assert taken(run(probes.embedding, 50_000, tokens, "float16"), EMBEDDING) == {
        "sorted_indices": tokens * 8,
        "orig_indices": tokens * 8,
        "segment_offsets": tokens * 8,
        "partials_per_segment": tokens * 8,
        "partials_per_segment_offset": tokens * 8,
        "partial_segment_offset": parts * 8,
        "grad_weight_per_segment": parts * 64 * 4,
    }


def test_an_embedding_of_few_rows_is_summed_by_atomics(run: Run) -> None:
    buffers = taken(run(probes.embedding, 20, 4000, "float16"), EMBEDDING)
    assert buffers["grad_weight_acc"] == 20 * 64 * 4
    assert "grad_weight_per_segment" not in buffers
    full = taken(run(probes.embedding, 20, 4000, "float32"), EMBEDDING)
    assert "grad_weight_acc" not in full
    sure = taken(run(probes.embedding, 20, 4000, "float16", deterministic=True), EMBEDDING)
    assert sure["grad_weight_per_segment"] == (400 + 20) * 64 * 4


@pytest.mark.parametrize(("tokens", "some"), [(3072, False), (3073, True)])
def test_few_tokens_are_not_sorted(run: Run, tokens: int, some: bool) -> None:
    assert bool(taken(run(probes.embedding, 50_000, tokens, "float32"), EMBEDDING)) is some


def test_clipping_takes_as_many_chunks_for_each_gradient_as_the_largest_has(run: Run) -> None:
    buffers = taken(run(probes.clipping), "aten::_foreach_norm")
    assert buffers == {"output_per_tensor": 3 * 3 * 4}


FLASH = "aten::_scaled_dot_product_flash_attention"


@pytest.mark.parametrize(("query", "key", "splits"), SPLITS)
def test_few_queries_have_their_keys_split(
    run: Run, query: tuple[int, ...], key: tuple[int, ...], splits: int
) -> None:
    result = run(probes.attention, query, key, capability=(8, 0))
    rows = query[0] * query[1] * query[2] * 4
    expected = {"softmax_lse_accum": splits * rows, "out_accum": splits * rows * query[3]}
    assert taken(result, FLASH) == (expected if splits > 1 else {})


def test_keys_are_not_split_under_dropout(run: Run) -> None:
    result = run(probes.attention, SHAPE, SHAPE, dropout=0.1, capability=(8, 0))
    assert taken(result, FLASH) == {}


@pytest.mark.parametrize(("deterministic", "times"), [(False, 1), (True, 9)])
def test_a_deterministic_backward_pass_keeps_the_sums_of_each_split(
    run: Run, deterministic: bool, times: int
) -> None:
    """108 multiprocessors for 12 heads: nine splits."""
    result = run(probes.attention, SHAPE, SHAPE, deterministic=deterministic, capability=(8, 0))
    buffers = taken(result, f"{FLASH}_backward")
    assert buffers["dq_accum"] == times * 12 * 512 * 64 * 4


def test_nominal_values_are_said_once_each(run: Run) -> None:
    result = run(jobs.generates)
    losses = [line for line in result.assumptions if "losses" in line]
    tokens = [line for line in result.assumptions if "tokens" in line]
    assert len(tokens) == 1
    assert tokens[0].endswith("taken as 3")
    assert len(losses) <= 1
    trained = run(probes.loop, optimizer=True, drop=True)
    assert [line for line in trained.assumptions if "losses" in line] == [
        "losses, norms and scales that the card would compute are taken as 1"
    ]


@pytest.mark.parametrize("optimizer", [True, False])
@pytest.mark.parametrize("drop", [True, False])
def test_gradients_of_plain_loops_are_called_so(run: Run, optimizer: bool, drop: bool) -> None:
    result = run(probes.loop, optimizer=optimizer, drop=drop)
    parameters = 4 * (64 * 128 + 128 + 128 * 64 + 64)
    found = {"step 1": 0, "step 2": 0}
    for event in result.trace:
        if event.action == "alloc" and event.tags.category == "gradients":
            found[event.tags.phase] += event.size_bytes
    assert found == {"step 1": parameters, "step 2": parameters if drop else 0}
