"""The fixture vram_benchmark, on the virtual GPU and on a card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ftcheck.pytest_plugin.devices import Gpu

pytest_plugins = ["pytester"]

PLAIN = (
    *("-p", "ftcheck.pytest_plugin.plugin", "-p", "no:cacheprovider"),
    *("--ftcheck-device=virtual", "--ftcheck-card=l4-24gb"),
)
FIVE = """\
import pytest, torch

def step(model, batch):
    loss = model(batch).sum()
    loss.backward()
    model.zero_grad()
    return "done"

@pytest.mark.parametrize("width", [256, 512, 1024, 2048])
def test_step(vram_benchmark, gpu, width):
    model = torch.nn.Linear(1024, width).to(gpu.device)
    batch = torch.zeros(64, 1024, device="cuda")
    assert vram_benchmark(step, model, batch=batch) == "done"

@pytest.mark.vram_budget("64 MiB")
@pytest.mark.vram_budget("32 MiB", of="allocated")
def test_budget(vram_benchmark, gpu):
    calls = []
    def take():
        calls.append(torch.zeros(2**20, device=gpu.device).shape)
        return len(calls)
    assert vram_benchmark(take) == 3
"""
UPDATE = ("--ftcheck-baseline=b.json", "--ftcheck-update-baseline")
GATE = ("--ftcheck-baseline=b.json", "--ftcheck-compare-fail=allocated:0%,reserved:0%")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no plugin that is not named, and be no worker: pytest-benchmark asks for one by name."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def run(pytester: pytest.Pytester, *arguments: str, status: int = 0) -> pytest.RunResult:
    """Run the suite in a process of its own, which forks, and see to the exit status."""
    found = pytester.runpytest_subprocess(*PLAIN, *arguments)
    assert found.ret == status, found.stdout.str() + found.stderr.str()
    return found


def recorded(pytester: pytest.Pytester) -> dict[str, Any]:
    text = (pytester.path / "b.json").read_text(encoding="utf-8")
    peaks: dict[str, Any] = json.loads(text)["peaks"]
    return peaks


@pytest.mark.slow
def test_recorded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_five=FIVE)
    found = run(pytester, *UPDATE)
    found.stdout.fnmatch_lines(
        [
            "*- ftcheck: VRAM benchmarks -*",
            "predicted for NVIDIA L4:",
            "*allocated*reserved*budget",
            "  test_five.py::test_budget * 4.00 MiB  *32 MiB allocated, 64 MiB reserved",
            "5 of 5 benchmarks recorded in b.json",
        ]
    )
    found.stdout.no_fnmatch_line("* time")
    sizes = [
        recorded(pytester)[f"test_five.py::test_step[{width}]"][0]["allocated_bytes"]
        for width in (256, 512, 1024, 2048)
    ]
    half_a_weight = 4 * 1024 * 1024
    assert 2 * half_a_weight <= sizes[3] - sizes[2] < 2.1 * half_a_weight  # with its gradient


@pytest.mark.slow
def test_recorded_here_and_compared_by_workers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_five=FIVE)
    run(pytester, *UPDATE)
    found = run(pytester, *GATE, "-p", "xdist.plugin", "-n", "2")
    found.stdout.fnmatch_lines(["  test_five.py::test_budget * =  * =  *reserved"])
    pytester.makepyfile(test_five=FIVE.replace("zeros(2**20", "zeros(2**20 + 128"))
    found = run(pytester, *GATE, "-k", "budget", status=1)
    found.stdout.fnmatch_lines(
        ["*::test_budget: allocated grew by 512 B (+512 B), from 4,194,304 to 4,194,816 bytes; *"]
    )


@pytest.mark.slow
def test_what_goes_wrong_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_wrong="""
        import pytest, torch

        def test_twice(vram_benchmark):
            vram_benchmark(torch.zeros, 8, device="cuda")
            vram_benchmark(torch.zeros, 8, device="cuda")

        def test_not_used(vram_benchmark):
            pass

        def test_not_on_the_card(vram_benchmark):
            vram_benchmark(torch.zeros, 8)

        def test_it_raises(vram_benchmark):
            vram_benchmark(torch.zeros, 8, device="nowhere")

        def test_it_grows(vram_benchmark):
            kept = []
            vram_benchmark(lambda: kept.append(torch.zeros(2**20, device="cuda")))

        @pytest.mark.vram_budget("16 MiB")
        def test_more_before(vram_benchmark):
            torch.zeros(2**23, device="cuda")
            vram_benchmark(torch.zeros, 8, device="cuda")

        def test_calls(vram_benchmark):
            vram_benchmark.calls = 0
            vram_benchmark(torch.zeros, 8, device="cuda")
        """
    )
    found = run(pytester, *UPDATE, status=1)
    found.assert_outcomes(failed=4, passed=2)
    found.stdout.fnmatch_lines_random(
        [
            "*vram_benchmark was called twice in a test, which has one line in a baseline.",
            "*vram_benchmark.calls: got 0, expected 1 or more.",
            "*nothing was put on NVIDIA L4*",
            "limited to 16 MiB reserved, took 34.00 MiB (predicted on NVIDIA L4)",
            "*::test_more_before: failed, so its peaks do not count.",
            "0 of 7 benchmarks recorded in b.json",
            "The recording failed:",
            "*::test_twice: failed, so its peaks do not count.",
            "*::test_not_used: asked for vram_benchmark and measured nothing.",
            "*::test_not_on_the_card: asked for vram_benchmark and measured nothing.",
            "*::test_it_raises: asked for vram_benchmark and measured nothing.",
            "*::test_it_grows: allocated does not repeat: got from 8,388,608 to 12,582,912 bytes *",
        ]
    )
    assert not (pytester.path / "b.json").exists()


def test_no_gpu_is_no_pass_of_the_gate(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_one="def test_a(vram_benchmark): vram_benchmark(print)")
    found = run(pytester, *GATE, "--ftcheck-device=none", status=1)
    found.stdout.fnmatch_lines(["No test used vram_benchmark, so nothing was compared."])


def test_what_only_a_card_knows_does_not_count(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_one="""
        import torch

        def test_a(vram_benchmark):
            total = vram_benchmark(torch.rand, 8, device="cuda").sum()
            assert total.item() > 0
        """
    )
    found = run(pytester, *GATE, status=1)
    found.stdout.fnmatch_lines(["*::test_a: unmeasured, so its peaks do not count."])


TIMED = """\
import torch

def test_step(vram_benchmark, gpu):
    weight = torch.ones(1024, 1024, device=gpu.device)
    assert vram_benchmark(torch.mm, weight, weight).shape == (1024, 1024)
"""
TWO_AND_ANOTHER = """\
import pytest

@pytest.mark.parametrize("size", [1, 2])
def test_step(size, vram_benchmark, gpu):
    import torch
    vram_benchmark(torch.zeros, size, device=gpu.device)

def test_other(request):
    assert request.fixturenames == ["request"]
"""


def times(pytester: pytest.Pytester) -> list[dict[str, Any]]:
    """What pytest-benchmark wrote."""
    file = pytester.path / "t.json"
    if not file.exists() or not file.stat().st_size:
        return []
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    return found


def test_time_is_left_out_where_it_means_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_timed=TIMED)
    found = run(pytester, "-p", "pytest_benchmark.plugin", "--benchmark-json=t.json")
    found.stdout.fnmatch_lines(["  test_timed.py::test_step *MiB *MiB"])
    assert times(pytester) == []


@pytest.mark.parametrize(
    ("option", "ran", "left"), [("only", 2, "test_other"), ("skip", 1, "test_step*")]
)
def test_benchmarks_are_chosen_as_those_of_pytest_benchmark_are(
    pytester: pytest.Pytester, option: str, ran: int, left: str
) -> None:
    pytester.makepyfile(test_timed=TWO_AND_ANOTHER)
    found = run(pytester, "-p", "pytest_benchmark.plugin", f"--benchmark-{option}", "-v")
    found.assert_outcomes(passed=ran, skipped=3 - ran)
    found.stdout.fnmatch_lines([f"test_timed.py::{left} SKIPPED*"])


@pytest.mark.gpu
def test_time_and_peaks_on_this_card(pytester: pytest.Pytester, gpu: Gpu) -> None:
    if gpu.kind == "virtual":
        pytest.skip("time is for cards")
    pytester.makepyfile(test_timed=TIMED)
    here = ("--ftcheck-device=cuda", *UPDATE)
    found = run(pytester, *here)
    found.stdout.fnmatch_lines([f"measured on {gpu.name}:", "*time", "  test_timed.py::* s"])
    run(pytester, *here, "-p", "pytest_benchmark.plugin", "--benchmark-json=t.json")
    (timed,) = times(pytester)
    told = timed["extra_info"]["vram"]
    (entry,) = recorded(pytester)["test_timed.py::test_step"]
    assert told["seconds"] == timed["stats"]["median"]
    assert told["allocated_bytes"] == [entry["allocated_bytes"]] * 2
    weights = 3 * 4 * 1024**2
    assert weights <= entry["allocated_bytes"] <= entry["reserved_bytes"]
    run(pytester, "--ftcheck-device=cuda", *GATE)
    run(pytester, "-p", "xdist.plugin", "-n", "2", "--ftcheck-device=cuda", *GATE)
    found = run(pytester, *GATE, status=1)  # on the virtual GPU
    found.stdout.fnmatch_lines(["*(measured for *) cannot be compared with *"])
