"""GPU tests where there is no card: one suite, run once, and what came of each of its tests."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SUITE = '''
import os
import warnings

import pytest
import torch

MIB = 2**20
BLOCK = 64 * MIB  # a whole segment of the allocator


def take(size_bytes=BLOCK):
    return torch.empty(size_bytes, dtype=torch.uint8, device="cuda")


# ------------------------------------------------------------------------------- where it runs

@pytest.mark.gpu
def test_shape_and_place():
    left = torch.ones(4, 8, device="cuda")
    assert (left @ left.T).shape == (4, 4)
    assert left.is_cuda

def test_handle(gpu):
    assert gpu.kind == "virtual"
    assert gpu.name == "NVIDIA GeForce RTX 4060 Laptop"
    assert gpu.compute_capability == (8, 9) == torch.cuda.get_device_capability()
    assert gpu.capacity_bytes == torch.cuda.mem_get_info()[1]
    assert torch.ones(2).to(gpu.device).device == gpu.device

def test_mixed_devices(gpu):
    torch.ones(4, 4, device=gpu.device) @ torch.ones(4, 4)

def test_counters(gpu):
    before = gpu.allocated_bytes
    block = take()
    assert gpu.allocated_bytes - before == BLOCK == torch.cuda.memory_allocated()
    assert gpu.reserved_bytes == torch.cuda.memory_reserved() >= BLOCK
    del block
    assert gpu.allocated_bytes == before
    assert gpu.allocated_peak_bytes == torch.cuda.max_memory_allocated() == BLOCK
    gpu.empty_cache()
    gpu.reset_peaks()
    assert (gpu.reserved_bytes, gpu.reserved_peak_bytes, gpu.allocated_peak_bytes) == (0, 0, 0)

def test_too_large(gpu):
    take(gpu.capacity_bytes)

def test_room_after_too_large(gpu):
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory. Tried to allocate"):
        take(gpu.capacity_bytes)
    take(gpu.capacity_bytes // 2)

# ------------------------------------------------------------------------------- values

def test_values_of_the_host(gpu):
    assert (torch.ones(4, device="cuda") * 2).sum().item() == 8

def test_item(gpu):
    assert torch.rand(40, device="cuda").sum().item() >= 0

def test_item_of_what_rests_on_one(gpu):
    assert torch.rand(40, device="cuda").sum().mul(2).add(1).item() == 3

def test_copy_to_the_host(gpu):
    assert torch.rand(40, device="cuda").cpu().shape == (40,)

def test_equal(gpu):
    one = torch.rand(40, device="cuda")
    assert torch.equal(one, one)

def test_close(gpu):
    one = torch.rand(40, device="cuda")
    torch.testing.assert_close(one, one)

def test_swallowed(gpu):
    with pytest.raises(Exception, match="only a real card computes"):
        torch.rand(40, device="cuda").sum().item()

def test_wrapped(gpu):
    try:
        torch.rand(40, device="cuda").sum().item()
    except Exception as error:
        raise ValueError("something else") from error

@pytest.mark.xfail(strict=True)
def test_expected_to_fail(gpu):
    assert torch.rand(40, device="cuda").sum().item() < 0

@pytest.fixture
def loss(gpu):
    return torch.rand(40, device="cuda").sum().item()

def test_in_a_fixture(loss):
    assert loss >= 0

# ------------------------------------------------------------------------------- budgets

@pytest.mark.parametrize("more", [-1, 0, 1])
def test_limit(vram, more):
    with vram.limit(BLOCK + more):
        take()

@pytest.mark.parametrize("more", [-1, 0, 1])
def test_limit_of_allocated(vram, more):
    with vram.limit(512 + more, of="allocated"):
        take(1)

@pytest.mark.vram_budget(BLOCK - 1)
def test_budget_below():
    take()

@pytest.mark.vram_budget(BLOCK)
def test_budget_at():
    take()

@pytest.mark.vram_budget("1 GiB", of="allocated")
@pytest.mark.vram_budget("65 MiB", of="card")
def test_budget_of_card():
    take()

@pytest.mark.vram_budget("1 GiB")
def test_budget_of_nothing():
    assert True

@pytest.mark.vram_budget(1)
def test_budget_of_a_failure():
    take()
    raise LookupError("this is it")

def test_measure(vram):
    before = take()
    with vram.measure() as outer:
        with vram.measure() as inner:
            take()
        take(BLOCK // 2)
    assert inner.allocated_peak_bytes == outer.allocated_peak_bytes == 2 * BLOCK
    with vram.measure() as later:
        take(BLOCK // 2)
    assert later.allocated_peak_bytes == BLOCK + BLOCK // 2
    assert later.reserved_peak_bytes == BLOCK + BLOCK // 2
    assert later.card_peak_bytes > later.reserved_peak_bytes
    assert later.kind == "predicted"

def test_measure_nothing(vram):
    with vram.measure():
        torch.ones(4)

# ------------------------------------------------------------------------------- needs

@pytest.mark.gpu(min_vram="7 GiB", min_capability=(8, 0), count=1)
def test_needs_what_there_is():
    take()

@pytest.mark.gpu(min_vram="24 GiB")
def test_needs_memory():
    take()

@pytest.mark.ftcheck_gpu(min_capability=(9, 0))
def test_needs_capability():
    take()

@pytest.mark.gpu(count=2)
def test_needs_cards():
    take()

# ------------------------------------------------------------------------------- pytest

made = []

@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Made in the process of the tests, and found by the forks."""
    made.append(os.getpid())
    folder = tmp_path_factory.mktemp("wide")
    (folder / "made").write_text(str(os.getpid()))
    yield folder
    (folder / "torn-down").write_text(str(os.getpid()))

@pytest.fixture(scope="module")
def wide_gpu(gpu, tmp_path_factory):
    """Made in a fork, and torn down in it."""
    folder = tmp_path_factory.mktemp("wide_gpu")
    (folder / "made").write_text(str(os.getpid()))
    yield take()
    (folder / "torn-down").write_text(str(os.getpid()))

def test_without_gpu(wide):
    assert made == [os.getpid()]

def test_finds_wide(wide, gpu):
    assert made[0] != os.getpid()
    assert not (wide / "torn-down").exists()

def test_finds_wide_again(wide, gpu):
    assert made[0] != os.getpid()
    assert not (wide / "torn-down").exists()

def test_makes_wide(wide_gpu, tmp_path):
    assert wide_gpu.is_cuda
    assert tmp_path.is_dir()

def test_says(gpu):
    print("to stdout")
    warnings.warn("look at this")
    assert gpu.kind == "cuda", "what failed"

def test_teardown_fails(gpu, request):
    request.addfinalizer(lambda: 1 / 0)

def test_dies(gpu):
    print("last words", flush=True)
    os.kill(os.getpid(), 9)

def test_leaves(gpu):
    os._exit(7)

@pytest.mark.skip(reason="not today")
def test_skipped(gpu):
    take()

@pytest.mark.xfail(raises=LookupError, strict=True)
def test_fails_as_expected(gpu):
    raise LookupError

@pytest.mark.timeout(1, method="signal")
def test_hangs(gpu):
    import time
    time.sleep(60)

def test_last(wide):
    assert made == [os.getpid()]
'''


@dataclass(frozen=True)
class Ran:
    """An inner run.

    Attributes:
        outcomes: Name of a test to the words that pytest had for it.
        output: All that it said.
        folder: Where it ran.
        cases: Name of a test to its element of the junit file.
    """

    outcomes: dict[str, list[str]]
    output: str
    folder: Path
    cases: dict[str, ET.Element]

    def failure(self, name: str) -> str:
        """What is written about a test that failed."""
        return self.output.partition(f"_ {name} _")[2].partition("\n____")[0]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The suite, run once, on an 8 GB laptop card that is not there."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_suite.py").write_text(SUITE, encoding="utf-8")
    inner = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-ra",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "--ftcheck-device=virtual",
            "--ftcheck-card=rtx4060-laptop-8gb",
            "--junitxml=junit.xml",
            f"--basetemp={folder / 'temporary'}",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    outcomes: dict[str, list[str]] = {}
    for name, word in re.findall(r"^test_suite\.py::(\S+) ([A-Z]+)", inner.stdout, re.MULTILINE):
        outcomes.setdefault(name, []).append(word)
    assert len(outcomes) > 40, inner.stdout + inner.stderr
    cases = {
        str(case.get("name")): case for case in ET.parse(folder / "junit.xml").iter("testcase")
    }
    return Ran(outcomes, inner.stdout, folder, cases)


EXPECTED = {
    "PASSED": [
        "test_shape_and_place",
        "test_handle",
        "test_counters",
        "test_room_after_too_large",
        "test_values_of_the_host",
        "test_limit[0]",
        "test_limit[1]",
        "test_limit_of_allocated[0]",
        "test_limit_of_allocated[1]",
        "test_budget_at",
        "test_measure",
        "test_needs_what_there_is",
        "test_without_gpu",
        "test_finds_wide",
        "test_finds_wide_again",
        "test_makes_wide",
        "test_last",
    ],
    "FAILED": [
        "test_mixed_devices",
        "test_too_large",
        "test_limit[-1]",
        "test_limit_of_allocated[-1]",
        "test_budget_below",
        "test_budget_of_card",
        "test_budget_of_a_failure",
        "test_says",
        "test_dies",
        "test_leaves",
        "test_hangs",
    ],
    "UNMEASURED": [
        "test_item",
        "test_item_of_what_rests_on_one",
        "test_copy_to_the_host",
        "test_equal",
        "test_close",
        "test_swallowed",
        "test_wrapped",
        "test_expected_to_fail",
        "test_in_a_fixture",
        "test_budget_of_nothing",
        "test_measure_nothing",
    ],
    "SKIPPED": ["test_needs_memory", "test_needs_capability", "test_needs_cards", "test_skipped"],
    "XFAIL": ["test_fails_as_expected"],
}


@pytest.mark.parametrize(
    ("name", "word"), [(name, word) for word, names in EXPECTED.items() for name in names]
)
def test_outcome(ran: Ran, name: str, word: str) -> None:
    assert ran.outcomes[name] == [word], ran.output


def test_every_test_has_an_outcome(ran: Ran) -> None:
    expected = {name for names in EXPECTED.values() for name in names} | {"test_teardown_fails"}
    assert set(ran.outcomes) == expected == set(ran.cases)
    assert ran.outcomes["test_teardown_fails"] == ["PASSED", "ERROR"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_mixed_devices", "RuntimeError: Expected all tensors to be on the same device"),
        ("test_too_large", "OutOfMemoryError: CUDA out of memory. Tried to allocate"),
        ("test_budget_below", "limited to 64.00 MiB reserved, took 1 byte more (predicted on NV"),
        ("test_budget_of_card", "limited to 65 MiB of the card, took "),
        ("test_budget_of_a_failure", "LookupError: this is it"),
        ("test_limit[-1]", "OverBudget: limited to 64.00 MiB reserved, took 1 byte more"),
        ("test_limit_of_allocated[-1]", "limited to 511 B allocated, took 512 B (predicted on"),
        ("test_dies", "its process, which had the virtual GPU, was ended by SIGKILL"),
        ("test_dies", "last words"),
        ("test_leaves", "its process, which had the virtual GPU, ended with exit status 7"),
        ("test_hangs", "Failed: Timeout (>1.0s) from pytest-timeout."),
        ("test_says", "AssertionError: what failed"),
        ("test_says", "Captured stdout call ---"),
        ("test_says", "to stdout"),
    ],
)
def test_a_failure_says(ran: Ran, name: str, words: str) -> None:
    assert words in ran.failure(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_item", r"test_suite\.py:\d+: it asks for the value of a float32, which only a real"),
        ("test_equal", r"test_suite\.py:\d+: it asks for whether two tensors are equal"),
        ("test_copy_to_the_host", r"the values of a float32 tensor of shape \[40\]"),
        ("test_budget_of_nothing", "nothing was put on NVIDIA GeForce RTX 4060 Laptop"),
        ("test_needs_memory", r"needs a card with 24\.00 GiB, NVIDIA .* has 7\.73 GiB"),
        ("test_needs_capability", r"needs compute capability 9\.0, .* has 8\.9"),
        ("test_needs_cards", "needs 2 cards, there is 1"),
    ],
)
def test_what_was_not_measured_says_why(ran: Ran, name: str, reason: str) -> None:
    skipped = ran.cases[name].find("skipped")
    assert skipped is not None
    assert re.search(reason, str(skipped.get("message")) + str(skipped.text))


def test_frames_are_those_of_the_test(ran: Ran) -> None:
    assert "kernels.py" not in ran.output
    assert "meter.py" not in ran.output
    assert not re.search(r"pytest_plugin/gpu_tests\.py:\d+", ran.output)


def test_warnings_of_forks_are_in_the_summary(ran: Ran) -> None:
    assert re.search(r"test_suite\.py::test_says\n .*UserWarning: look at this", ran.output)


def test_fixtures_are_torn_down_where_they_were_made(ran: Ran) -> None:
    made = {}
    for name in ("wide", "wide_gpu"):
        folder = ran.folder / "temporary" / f"{name}0"
        made[name] = (folder / "made").read_text(encoding="utf-8")
        assert (folder / "torn-down").read_text(encoding="utf-8") == made[name]
    assert made["wide"] != made["wide_gpu"]


def test_durations_are_those_of_the_tests(ran: Ran) -> None:
    assert 1 <= float(str(ran.cases["test_hangs"].get("time"))) < 60
