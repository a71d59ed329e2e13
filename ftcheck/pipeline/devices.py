"""Where a run happens."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from ftcheck.recipe import Recipe

__all__ = ["PeakMemory", "choose_device", "launched_on_cpu", "peak_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Measured peak memory of this process.

    Attributes:
        device: `cuda:0`, … for memory of the card, `cpu` for resident memory of the process.
        allocated_bytes: Peak of `torch.cuda.max_memory_allocated`; on a CPU the peak resident
            size since the process started, which holds the libraries too.
        reserved_bytes: Peak of `torch.cuda.max_memory_reserved`; `None` on a CPU.
    """

    device: str
    allocated_bytes: int
    reserved_bytes: int | None


def launched_on_cpu() -> bool:
    """Whether accelerate's launcher was told to stay on the CPU."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def choose_device(recipe: Recipe) -> str:
    """Device of a recipe: `cpu`, `cuda:N` (N is the process's own card) or `mps`.

    `ACCELERATE_TORCH_DEVICE`, which accelerate obeys, names another one; a recipe that says
    `cpu` stays there.

    Raises:
        InputError: The recipe names a device that this machine does not have.
    """
    import torch

    wanted = recipe.model.device
    use_cpu = recipe.training.get("use_cpu", recipe.training.get("no_cuda", False))
    if wanted == "cpu" or use_cpu or launched_on_cpu():
        return "cpu"
    if named := os.environ.get("ACCELERATE_TORCH_DEVICE"):
        return named
    has_mps = torch.backends.mps.is_available()
    if (wanted == "cuda" and not torch.cuda.is_available()) or (wanted == "mps" and not has_mps):
        raise recipe.fault(
            "model.device",
            f'"{wanted}" is not available to the installed torch {torch.__version__}',
            'Set model.device = "auto" to take what there is.',
        )
    if torch.cuda.is_available() and wanted != "mps":
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
    return "mps" if has_mps else "cpu"


def peak_memory(device: str) -> PeakMemory:
    """Peak memory so far on a device that `choose_device` gave."""
    if device.startswith("cuda"):
        import torch

        return PeakMemory(
            device=device,
            allocated_bytes=torch.cuda.max_memory_allocated(device),
            reserved_bytes=torch.cuda.max_memory_reserved(device),
        )
    return PeakMemory(device=device, allocated_bytes=_peak_resident_bytes(), reserved_bytes=None)


def _peak_resident_bytes() -> int:
    if sys.platform == "win32":
        import psutil

        peak: int = psutil.Process().memory_info().peak_wset
        return peak
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes: getrusage(2) of each.
    return most if sys.platform == "darwin" else most * 1024
