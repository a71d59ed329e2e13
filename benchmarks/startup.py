"""What `import ftcheck` and `ftcheck --help` cost beside `python -c pass`.

    python -m benchmarks.startup

Wall time of whole processes, one after the other in turn, so that a drift of the machine hits all.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 21
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import ftcheck": ["-c", "import ftcheck"],
    "ftcheck --help": ["-m", "ftcheck", "--help"],
    "ftcheck recipes": ["-m", "ftcheck", "recipes"],
}


def measure(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of each command, a figure a round."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - begun)
    return {name: values[1:] for name, values in seconds.items()}  # the first fills the caches


def main() -> None:
    """Print medians, and what each adds to a bare start of Python."""
    medians = {name: statistics.median(values) for name, values in measure().items()}
    base = medians["python -c pass"]
    print(f"{'command':<18} {'median ms':>10} {'added ms':>10}")
    for name, seconds in medians.items():
        print(f"{name:<18} {seconds * 1000:>10.0f} {(seconds - base) * 1000:>10.0f}")


if __name__ == "__main__":
    main()
