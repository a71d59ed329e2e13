"""A GPU that exists only as a device type: shapes, dtypes, devices, aliasing and lifetimes are
real, memory is not there, values are nominal.

`run` starts a child process, hands a callable the virtual GPU, and returns the trace of what it
allocated. Importing this package costs nothing: torch is imported in the child.
"""

from __future__ import annotations

from ftcheck.vgpu.child import Call, Result, run, run_many
from ftcheck.vgpu.errors import ChildDied, ChildFailed, ChildTimedOut, Unmeasured

__all__ = [
    "Call",
    "ChildDied",
    "ChildFailed",
    "ChildTimedOut",
    "Result",
    "Unmeasured",
    "run",
    "run_many",
]
