"""Real (non-pad) tokens a second of the published recipe, against packed, grouped, longest-padded.

    python -m benchmarks.throughput [--text FILE] [--tokens 12000] [--work DIR]

The same model, LoRA, data and number of real tokens for each, in turn on one machine; then the
loss on the real tokens of rows that none has seen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workload import quiet, reference, text_file
from ftcheck.pipeline import (
    TokenizedData,
    build_trainer,
    load_base,
    load_data,
    load_tokenizer,
    tokenize,
    wrap,
)

EVALUATED_ROWS = 40
VARIANTS: dict[str, tuple[str, ...]] = {
    "as published": (),
    "longest padding": ("tokenization.padding=longest",),
    "longest, masked": ("tokenization.padding=longest", "tokenization.labels=pads_masked"),
    "grouped by length": (
        "tokenization.padding=longest",
        "tokenization.labels=pads_masked",
        "training.per_device_train_batch_size=4",
        "training.gradient_accumulation_steps=1",
        "training.train_sampling_strategy=group_by_length",
    ),
    "packed": (
        "tokenization.packing=true",
        "training.per_device_train_batch_size=1",
        "training.gradient_accumulation_steps=1",
    ),
    "packed 2 × 128": (
        "tokenization.packing=true",
        "training.per_device_train_batch_size=2",
        "training.gradient_accumulation_steps=1",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one variant did.

    Attributes:
        name: Of the variant.
        steps: Optimizer steps.
        real_tokens: Tokens that are no pads, in the steps taken.
        positions: Tokens that went through the model.
        seconds: Wall time of `Trainer.train()`.
        loss: Mean loss on the real tokens of held-out rows, in nats.
    """

    name: str
    steps: int
    real_tokens: int
    positions: int
    seconds: float
    loss: float

    @property
    def speed(self) -> float:
        """Real tokens a second."""
        return self.real_tokens / self.seconds


def run_variant(folder: Path, text: Path, name: str, target: int) -> Figures:
    """Train a variant until it has seen `target` real tokens."""
    from transformers import TrainerCallback

    recipe = reference(folder, text, "data.rows=1000", *VARIANTS[name])
    tokenizer = load_tokenizer(recipe)
    raw = load_data(recipe)
    tokens = tokenize(raw, tokenizer, recipe)

    class Counter(TrainerCallback):  # type: ignore[misc]
        real = positions = 0

        def count(self, mask: Any) -> None:
            self.real += int(mask.sum())
            self.positions += mask.numel()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_training_stop = self.real >= target
            return control

    counter = Counter()
    model = wrap(load_base(recipe, tokenizer), recipe)
    trainer = build_trainer(
        model, tokens, tokenizer, recipe, folder / "checkpoints", callbacks=[counter]
    )
    trainer.args.save_strategy = "no"
    collate = trainer.data_collator

    def counted(rows: Any) -> Any:
        batch = collate(rows)
        counter.count(batch["attention_mask"])
        return batch

    trainer.data_collator = counted
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    return Figures(
        name=name,
        steps=trainer.state.global_step,
        real_tokens=counter.real,
        positions=counter.positions,
        seconds=seconds,
        loss=loss_on_real_tokens(model, held_out(folder, text)),
    )


def held_out(folder: Path, text: Path) -> TokenizedData:
    """Rows behind the thousand that the variants train on, without padding."""
    recipe = reference(
        folder,
        text,
        "data.rows=2000",
        "data.drop_empty=true",
        "tokenization.padding=longest",
        "tokenization.labels=pads_masked",
    )
    raw = load_data(recipe)
    trained = set(load_data(reference(folder, text, "data.rows=1000")).train["text"])
    unseen = [index for index, row in enumerate(raw.train["text"]) if row not in trained]
    rows = raw.train.select(unseen[:EVALUATED_ROWS])
    import dataclasses

    return tokenize(dataclasses.replace(raw, train=rows), load_tokenizer(recipe), recipe)


def loss_on_real_tokens(model: Any, tokens: TokenizedData) -> float:
    """Mean loss over all predicted tokens, row by row."""
    import torch

    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in tokens.train:
            ids = torch.tensor([row["input_ids"]])
            loss = model(input_ids=ids, labels=ids).loss
            total += float(loss) * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    return total / count


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a variant, with the ratio to the published recipe."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--text", type=Path, help="text, a row a line [default: embedded prose]")
    parser.add_argument("--tokens", type=int, default=12_000, help="real tokens for each variant")
    parser.add_argument("--work", type=Path, help="folder for the model [default: a temporary one]")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args(arguments)
    quiet()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        text = text_file(folder, options.text)
        print(
            f"{'variant':<18} {'steps':>6} {'real':>7} {'in all':>7} {'seconds':>8} "
            f"{'real/s':>7} {'ratio':>6} {'loss':>7}"
        )
        first: Figures | None = None
        for name in options.only:
            found = run_variant(folder, text, name, options.tokens)
            first = first or found
            print(
                f"{name:<18} {found.steps:>6} {found.real_tokens:>7} {found.positions:>7} "
                f"{found.seconds:>8.1f} {found.speed:>7.1f} {found.speed / first.speed:>6.2f} "
                f"{found.loss:>7.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
