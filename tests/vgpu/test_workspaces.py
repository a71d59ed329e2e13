"""cuBLAS' workspaces: how large, how many, and for how long."""

from __future__ import annotations

import pytest

from ftcheck.vgpu import Call
from ftcheck.vgpu.workspaces import workspace_bytes
from tests.helpers.vgpu_runs import run_all, workspaces
from tests.vgpu import jobs


@pytest.mark.parametrize(
    ("capability", "size_bytes"),
    [
        ((7, 5), 8_519_680),
        ((8, 9), 8_519_680),
        ((9, 0), 33_554_432),
        ((10, 0), 33_554_432),
        ((11, 0), 8_519_680),
        ((12, 0), 33_554_432),
    ],
)
def test_the_size_is_that_of_the_architecture(capability: tuple[int, int], size_bytes: int) -> None:
    assert workspace_bytes(capability, {}) == size_bytes


def test_the_environment_decides() -> None:
    assert workspace_bytes((9, 0), {"CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8"}) == 8_519_680
    assert workspace_bytes((9, 0), {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}) == 16 * 1024 * 8
    assert workspace_bytes((8, 9), {"CUBLAS_WORKSPACE_CONFIG": "nonsense"}) == 8_519_680


def test_training_has_two_and_inference_one() -> None:
    arguments = {"steps": 2, "accumulation": 1, "config": {"n_layer": 2}}
    run = run_all([Call(jobs.train, (), arguments), Call(jobs.evaluate, (), {}, (9, 0))])
    training = run(jobs.train, **arguments)
    assert workspaces(training) == [("step 1", 8_519_680)] * 2
    assert training.alive_bytes == 0
    inference = run(jobs.evaluate, capability=(9, 0))
    assert workspaces(inference) == [("eval", 33_554_432)]
