"""The device itself: what is known on it, what moves to it, what autograd does on it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ftcheck.vgpu import Unmeasured, run
from tests.vgpu import probes


def test_integers_from_the_host_are_computed_and_losses_are_one() -> None:
    result = run(probes.values)
    assert result.value == {
        "padding": False,
        "count": 5,
        "written through a view": [[11, 12], [3, 4]],
        "where": (5, 2),
        "cumsum": [[1, 2, 2], [1, 2, 3]],
        "range": 6,
        "joined": [[11, 12], [3, 4]],
        "nominal": 1.0,
        "finite": True,
        "token": [3, 3, 3, 3],
    }
    assert result.alive_bytes == 0


@pytest.mark.parametrize("probe", [probes.unknown_size, probes.swallowed])
def test_a_size_that_values_decide_is_unmeasured(probe: object) -> None:
    """Even where the program swallows the error and goes on."""
    with pytest.raises(Unmeasured, match=r"aten::nonzero.*depends on values of the card"):
        run(probe)  # type: ignore[arg-type] # both are functions of a virtual GPU


def test_moving_keeps_ties_and_mixing_devices_raises() -> None:
    seen = run(probes.moves).value
    weights, scale = 100 * 16 * 4, 16 * 4
    assert seen["moved"] == (weights + scale, True, "vgpu")
    assert seen["half"] == ((weights + scale) // 2, True)
    assert seen["back"] == (0, "cpu")
    assert seen["materialized"] == (weights + scale, True)
    assert seen["gone"] == 0
    for name in ("embedding", "add", "mm", "layer_norm"):
        assert "Expected all tensors to be on the same device" in seen[name]
        assert "vgpu:0" in seen[name]
        assert "cpu" in seen[name]
    assert seen["scalar of the host"] == "vgpu"


def test_parameters_stay_what_they_are_when_a_module_moves() -> None:
    """As on CUDA: for ties, an optimizer made before, weak references, hooks and gradients."""
    seen = run(probes.kept).value
    matrix, workspaces = 100 * 16 * 4, 2 * 8_519_680
    assert seen["same"]
    assert seen["gradient"] == "vgpu"
    assert seen["hooks"] == ["gradient", "accumulated"]
    assert seen["state"] == "vgpu"
    assert seen["alive"] == 3 * matrix + workspaces  # the weight and two moments
    assert seen["back"] == (True, "cpu")


def test_gradients_are_added_in_place_as_on_cuda() -> None:
    """Autograd adds in place only to what nobody else holds; watching must not hold it."""
    result = run(probes.accumulation)
    matrix = 256 * 256 * 4
    backward = [event for event in result.trace if event.tags.phase == "backward"]
    made = [event for event in backward if event.action == "alloc" and event.size_bytes == matrix]
    # 5g and 3·5g, 5g and 4·5g, and twice their sum; none for the sum itself.
    assert len(made) == 5
    assert {event.tags.op for event in made} == {"aten::mul"}
    assert result.value


def test_a_torch_without_the_interface_is_told_which_one_has_it() -> None:
    program = (
        "from torch.utils import backend_registration as registration\n"
        "del registration._setup_privateuseone_for_python_backend\n"
        "from ftcheck.vgpu.device import register\n"
        "register((8, 9))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert "it has no device types written in Python" in answer.stderr
    assert "Install torch 2.13 or newer." in answer.stderr
