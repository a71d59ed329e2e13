"""The device type `vgpu`: registered with torch, holding tensors that have no memory.

A tensor on it is a plain `torch.Tensor` whose storage has a size and an address where nothing is.
Nothing in torch treats it as a subclass: `Module.to`, parameters, in-place gradient accumulation
and the stealing of gradients by `AccumulateGrad` are those of CUDA, which decides about peaks.

Registration follows `torch.utils.backend_registration._setup_privateuseone_for_python_backend`
(experimental; added by pytorch#157859) and `torch/csrc/acc/Module.cpp`. It holds for the whole
process and cannot be undone, therefore it happens in a child process only.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from ftcheck.vgpu.errors import Unmeasured

__all__ = ["DEVICE_TYPE", "Backend", "device", "register"]

DEVICE_TYPE: Final = "vgpu"


class Backend:
    """The module `torch.vgpu`: what autocast, accelerate and checkpointing ask of `torch.cuda`.

    Args:
        capability: Compute capability of the card that is stood in for, such as `(8, 9)`.
    """

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.endswith(("memory_allocated", "memory_reserved")):
            return lambda device=None: 0  # the trace answers this, afterwards
        raise AttributeError(f"module 'torch.{DEVICE_TYPE}' has no attribute {name!r}")

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None:
        """There is one device."""

    def device(self, device: object) -> Any:
        """A context that selects the one device."""
        import contextlib

        return contextlib.nullcontext()

    def synchronize(self, device: object = None) -> None:
        """Nothing runs, nothing is waited for."""

    def empty_cache(self) -> None:
        """Nothing is cached here; the replay of the trace has the cache."""

    def reset_peak_memory_stats(self, device: object = None) -> None:
        """Peaks are taken from the trace."""

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        raise Unmeasured(
            "torch.cuda.mem_get_info", "the virtual GPU has no capacity until its trace is replayed"
        )

    def get_device_capability(self, device: object = None) -> tuple[int, int]:
        return self.capability

    def get_device_name(self, device: object = None) -> str:
        return "virtual GPU, compute capability {}.{}".format(*self.capability)

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return including_emulation or self.capability >= (8, 0)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]

    def manual_seed(self, seed: int) -> None:
        """Values are nominal, so are random ones."""

    def manual_seed_all(self, seed: int) -> None:
        """Values are nominal, so are random ones."""

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.zeros(16, dtype=torch.uint8)  # 16 bytes, the size of CUDA's Philox state

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        """Values are nominal, so are random ones."""

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return [self.get_rng_state()]

    def set_rng_state_all(self, states: object) -> None:
        """Values are nominal, so are random ones."""


def device() -> torch.device:
    """The one device of the type; it has no name before `register`."""
    return torch.device(DEVICE_TYPE, 0)


def register(capability: tuple[int, int]) -> None:
    """Register the device type; a second call in a process only sets the capability.

    Raises:
        Unmeasured: This torch has no interface for device types written in Python.
    """
    known = getattr(torch, DEVICE_TYPE, None)
    if known is not None:
        known.capability = capability
        return
    from torch.utils import backend_registration

    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None or not hasattr(torch._C, "_acc"):
        raise Unmeasured(
            f"torch {torch.__version__}",
            "it has no device types written in Python",
            next_step="Install torch 2.13 or newer.",
        )
    setup(DEVICE_TYPE, backend_module=Backend(capability))
    # The backward of one device runs on one thread; on the caller's, so that order is certain.
    torch.autograd.set_multithreading_enabled(False)
