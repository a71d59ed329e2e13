"""What a prediction costs: time and memory, and what they grow with.

    python -m benchmarks.prediction

Whole processes, from the prompt. Ratios are within one table of one run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

LLAMA = (
    'model.name_or_path="meta-llama/Llama-3.1-8B"',
    'model.dtype="bfloat16"',
    'lora.target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]',
    'quantization.bnb_4bit_compute_dtype="bfloat16"',
    "training.fp16=false",
    "training.bf16=true",
    "training.gradient_checkpointing=true",
    "tokenization.max_length=512",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One prediction.

    Attributes:
        seconds: From the prompt to the end of the process.
        rss_bytes: Largest resident set of the child.
        peak_bytes: What was predicted: peak allocated.
    """

    seconds: float
    rss_bytes: int
    peak_bytes: int


def predict(recipe: str, *overrides: str) -> Cost:
    """Run `ftcheck vram` on a card of 80 GB, in a process of its own."""
    changes = [part for override in overrides for part in ("--set", override)]
    begun = time.perf_counter()
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "ftcheck",
            "vram",
            recipe,
            "--card",
            "h100-80gb",
            "--format",
            "json",
            *changes,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begun
    found = json.loads(answer.stdout)
    return Cost(
        seconds=seconds,
        rss_bytes=found["facts"]["rss_bytes"],
        peak_bytes=found["peak_allocated_bytes"],
    )


def table(title: str, rows: list[tuple[str, Cost]]) -> None:
    """Print costs, each beside the first."""
    mib = 1024**2
    first = rows[0][1]
    print(f"\n{title}")
    print(f"{'':<34} {'seconds':>8} {'ratio':>6} {'RSS MiB':>8} {'peak MiB':>9}")
    for name, cost in rows:
        print(
            f"{name:<34} {cost.seconds:>8.1f} {cost.seconds / first.seconds:>6.2f} "
            f"{cost.rss_bytes / mib:>8.0f} {cost.peak_bytes / mib:>9.0f}"
        )


def main() -> None:
    """Print the tables: reference, growth with shape, growth with layers, 8B."""
    predict("gpt2-wikitext2")  # fills the caches
    reference = predict("gpt2-wikitext2")
    eight = predict("gpt2-wikitext2-nf4", *LLAMA)
    table(
        "reference recipe, and Llama 3.1 8B in nf4",
        [
            ("gpt2-wikitext2", reference),
            ("Llama 3.1 8B, nf4, LoRA", eight),
        ],
    )
    table(
        "batch, length, width: the time does not grow",
        [
            ("1 x 128", reference),
            ("64 x 128", predict("gpt2-wikitext2", "training.per_device_train_batch_size=64")),
            ("1 x 1024", predict("gpt2-wikitext2", "tokenization.max_length=1024")),
            ("Llama 3.1 8B, 1 x 512", eight),
            (
                "Llama 3.1 8B, 8 x 4096",
                predict(
                    "gpt2-wikitext2-nf4",
                    *LLAMA,
                    "training.per_device_train_batch_size=8",
                    "tokenization.max_length=4096",
                ),
            ),
        ],
    )
    sizes = ("distilgpt2", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    table(
        "layers: 6, 12, 24, 36, 48, wider and wider",
        [(name, predict("gpt2-wikitext2", f'model.name_or_path="{name}"')) for name in sizes],
    )


if __name__ == "__main__":
    main()
