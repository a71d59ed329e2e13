"""GPU tests: where they run, what they need, what they may take. Registered where there are any."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NoReturn

import pytest

from ftcheck.pytest_plugin.devices import HANDLE, CudaGpu, Gpu, VirtualGpu, stood_in_for
from ftcheck.pytest_plugin.meter import Vram, excess
from ftcheck.pytest_plugin.requirements import budgets_of, is_gpu_test, needs_of
from ftcheck.pytest_plugin.state import SETTINGS, tell, unmeasured
from ftcheck.units import format_bytes
from ftcheck.vgpu.errors import Unmeasured

__all__ = ["GpuTests", "handle_of", "register"]

_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"


@dataclass(frozen=True, slots=True)
class Place:
    """Where GPU tests run.

    Attributes:
        kind: `none` where they do not.
        reason: Why they do not.
        wanted: Whether they should: then they are unmeasured, not skipped.
    """

    kind: Literal["cuda", "virtual", "none"]
    reason: str = ""
    wanted: bool = True


def register(config: pytest.Config) -> None:
    """Choose the place, and begin to look after GPU tests."""
    place = place_of(config.stash[SETTINGS]["device"])
    manager = config.pluginmanager
    manager.register(GpuTests(config, place), "ftcheck-gpu")
    if place.kind == "virtual":
        manager.register(OnVirtual(config), "ftcheck-virtual")
    if place.kind == "cuda":
        from ftcheck.pytest_plugin.real import OnCuda

        manager.register(OnCuda(config), "ftcheck-cuda")


def place_of(device: str) -> Place:
    """The place that `--ftcheck-device` means here; no CUDA context is made."""
    if device == "none":
        return Place("none", "--ftcheck-device=none: GPU tests are not run", wanted=False)
    try:
        import torch
    except ImportError as error:
        return Place("none", f"torch cannot be imported: {error}")
    if device == "virtual":
        return _virtual()
    before = os.environ.get(_NVML)
    os.environ[_NVML] = "1"  # asks the driver, which makes no context; forks stay possible
    try:
        there = torch.cuda.is_available()
    finally:
        if before is None:
            del os.environ[_NVML]
    if there:
        return Place("cuda")
    if device == "cuda":
        return Place("none", f"torch {torch.__version__} finds no CUDA card here")
    return _virtual()


def _virtual() -> Place:
    if not hasattr(os, "fork"):
        return Place("none", "the virtual GPU needs a system that can fork processes")
    return Place("virtual")


def handle_of(config: pytest.Config) -> Gpu:
    """The card of this process.

    Raises:
        pytest.UsageError: It has none, for the test is not known to need one.
    """
    if HANDLE not in config.stash:
        tests: Any = config.pluginmanager.get_plugin("ftcheck-gpu")
        if tests is None or tests.place.kind != "cuda":
            raise pytest.UsageError(
                "the fixture gpu was asked for by a test that is not known to need a card; "
                "mark it with @pytest.mark.gpu, or name the fixture among its arguments"
            )
        config.stash[HANDLE] = CudaGpu()
    return config.stash[HANDLE]


class GpuTests:
    """What holds for GPU tests wherever they run.

    Args:
        config: Of the session.
        place: Where they run.
    """

    def __init__(self, config: pytest.Config, place: Place) -> None:
        self.place = place
        self._must_run: bool = config.stash[SETTINGS]["require-gpu"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Let a test run only where there is the card that it needs."""
        if not is_gpu_test(item):
            return
        if self.place.kind == "none":
            _leave(item, self.place.reason, wanted=self.place.wanted)
        gpu, needs = handle_of(item.config), needs_of(item)
        tell(item, {"gpu": gpu.kind, "card": gpu.name, "assumed": gpu.assumed})
        if gpu.capacity_bytes < needs.min_vram_bytes:
            has, wants = format_bytes(gpu.capacity_bytes), format_bytes(needs.min_vram_bytes)
            _leave(item, f"needs a card with {wants}, {gpu.name} has {has}", wanted=False)
        if gpu.compute_capability < needs.min_capability:
            has, wants = _dotted(gpu.compute_capability), _dotted(needs.min_capability)
            _leave(item, f"needs compute capability {wants}, {gpu.name} has {has}", wanted=False)
        if _count(gpu) < needs.cards:
            _leave(item, f"needs {needs.cards} cards, there is {_count(gpu)}", wanted=False)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hold the call of a test against its budgets."""
        __tracebackhide__ = True
        budgets = budgets_of(item) if is_gpu_test(item) else ()
        if not budgets:
            return (yield)
        with Vram(handle_of(item.config), item).measure() as found:
            result = yield
        above = list(filter(None, (excess(found, budget) for budget in budgets)))
        if above:
            pytest.fail("\n".join(above), pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let nothing pass that needs what only a real card computes."""
        report = yield
        if not is_gpu_test(item):
            return report
        refused = Unmeasured.within(call.excinfo.value) if call.excinfo else None
        if call.when == "call" and report.passed and HANDLE in item.config.stash:
            refused = item.config.stash[HANDLE].refused()  # and somebody swallowed the error
        if refused is not None:
            report.outcome = "skipped"
            report.longrepr = _at(item, str(refused).removeprefix("unmeasured: "))
            if hasattr(report, "wasxfail"):
                del report.wasxfail
            tell(item, {"status": "unmeasured", "reason": report.longrepr[2]})
            report.user_properties = list(item.user_properties)
        elif call.when == "call" and report.passed and HANDLE in item.config.stash:
            tell(item, {"assumptions": item.config.stash[HANDLE].assumptions()})
            report.user_properties = list(item.user_properties)
        if self._must_run and report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            report.outcome = "failed"
            report.longrepr = f"a GPU test must run (--ftcheck-require-gpu): {reason}"
        return report


class OnVirtual:
    """Runs GPU tests on the virtual GPU, each in a fork.

    Args:
        config: Of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._imports: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not is_gpu_test(item):
            return None
        from ftcheck.pytest_plugin.virtual import run_apart

        run_apart(item, nextitem, begin=self._begin, imports=self._imports)
        return True

    def _begin(self) -> None:
        """Make the virtual GPU of this process; it stays."""
        from ftcheck.allocator.caching import Allocator
        from ftcheck.allocator.conf import conf_from_environ
        from ftcheck.pytest_plugin.values_asked import Asked, mark_metrics, mark_numbers
        from ftcheck.vgpu.gpu import VirtualGpu as Device
        from ftcheck.vgpu.libraries import on_import

        card, assumed = stood_in_for(self._config.stash[SETTINGS])
        allocator = Allocator(
            conf_from_environ(os.environ),
            card.allocator_bytes,
            device_total_bytes=card.capacity_bytes,
        )
        device = Device(card.compute_capability)
        device.limit(allocator)
        asked = device.values.asked = Asked(device.assume)
        nominal = mark_numbers(device.values)
        on_import("transformers.trainer", partial(mark_metrics, asked, nominal))
        device.as_cuda()
        for name, module in list(sys.modules.items()):
            if name.startswith(Device.__module__.rpartition(".")[0]):
                vars(module)["__tracebackhide__"] = True  # errors are shown as those of torch
        self._config.stash[HANDLE] = VirtualGpu(card, device, allocator, assumed)


def _leave(item: pytest.Item, reason: str, *, wanted: bool) -> NoReturn:
    if wanted:
        unmeasured(item, reason)
    pytest.skip(reason)


def _count(gpu: Gpu) -> int:
    if gpu.kind == "virtual":
        return 1
    import torch

    return torch.cuda.device_count()


def _dotted(capability: tuple[int, int]) -> str:
    return "{}.{}".format(*capability)


def _at(item: pytest.Item, reason: str) -> tuple[str, int, str]:
    path, line, _ = item.reportinfo()
    return str(path), (line or 0) + 1, reason
