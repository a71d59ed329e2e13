"""What `import ftcheck`, `ftcheck --help` and the pytest plugin cost.

    python -m benchmarks.startup

Commands: wall time of whole processes beside `python -c pass`. Plugins: CPU time of `pytest
--collect-only` in an empty folder, each plugin alone beside none. One after the other in turn, so
that a drift of the machine hits all.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

ROUNDS = 21
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import ftcheck": ["-c", "import ftcheck"],
    "ftcheck --help": ["-m", "ftcheck", "--help"],
    "ftcheck recipes": ["-m", "ftcheck", "recipes"],
}
PLUGINS = {
    "ftcheck": "ftcheck.pytest_plugin.plugin",
    "pytest-benchmark": "pytest_benchmark.plugin",
    "pytest-torch": "pytest_torch.plugin",
    "pytest-memray": "pytest_memray.plugin",
}
"""Plugin to the module that its entry point names; what is not installed is left out, and said."""
PLUGIN_ROUNDS = 11


def measure(
    commands: dict[str, list[str]], clock: Callable[[], float], rounds: int
) -> dict[str, float]:
    """Median seconds of each command."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as empty:
        for _ in range(rounds + 1):
            for name, arguments in commands.items():
                begun = clock()
                subprocess.run(
                    [sys.executable, *arguments],
                    check=False,  # pytest collects nothing, and says so by its status
                    capture_output=True,
                    cwd=empty,
                    env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
                )
                seconds[name].append(clock() - begun)
    # The first round fills the caches.
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def cpu_of_children() -> float:
    """CPU seconds of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(what: str, medians: dict[str, float]) -> None:
    """Print medians, and what each adds to the first."""
    base = next(iter(medians.values()))
    print(f"{what:<22} {'median ms':>10} {'added ms':>10}")
    for name, seconds in medians.items():
        print(f"{name:<22} {seconds * 1000:>10.1f} {(seconds - base) * 1000:>10.1f}")


def main() -> None:
    """Print both tables."""
    table("command", measure(COMMANDS, time.perf_counter, ROUNDS))
    collect = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    commands = {"no plugin": collect}
    for name, module in PLUGINS.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            print(f"{name}: not installed, left out")
        else:
            commands[name] = [*collect, "-p", module]
    print()
    table("pytest, CPU time", measure(commands, cpu_of_children, PLUGIN_ROUNDS))


if __name__ == "__main__":
    main()
