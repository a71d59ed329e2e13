"""Predicted beside measured, over a grid of configurations, on the card of this machine."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ftcheck import environment
from ftcheck.errors import FtcheckError
from ftcheck.files import write_text
from ftcheck.pipeline.progress import Progress
from ftcheck.recipe import Recipe, dump_recipe, load_recipe
from ftcheck.vram.measurement import this_card
from ftcheck.vram.prediction import predict_many
from ftcheck.vram.vram_report import VramReport

__all__ = [
    "GOALS",
    "GRID",
    "Configuration",
    "Outcome",
    "Row",
    "configurations",
    "summarize",
    "validate",
]

_VERDICT_VRAM: Final = "8 GiB"
"""The budget whose verdicts are compared: that of the reference card."""
_OWN_WORDS: Final = "ftcheck: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Goals:
    """Largest relative errors that pass, as shares of what was measured."""

    allocated_median: float = 0.01
    allocated_worst: float = 0.05
    reserved_median: float = 0.03
    reserved_worst: float = 0.08


GOALS: Final = Goals()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A configuration of the grid: overrides of the reference recipe.

    Attributes:
        name: Short, unique.
        overrides: As `--set` takes them.
        without: Sections of the reference recipe that it does without: `quantization`, `lora`.
    """

    name: str
    overrides: tuple[str, ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration, predicted and measured, in bytes.

    Attributes:
        name: Of the configuration.
        predicted_allocated_bytes: Peak.
        measured_allocated_bytes: Peak of `torch.cuda.max_memory_allocated`.
        predicted_reserved_bytes: Peak.
        measured_reserved_bytes: Peak of `torch.cuda.max_memory_reserved`.
        predicted_fits: On a card of 8 GiB.
        measured_fits: With the allocator held to 8 GiB.
        problem: Why one of both is missing; the figures are 0 then.
    """

    name: str
    predicted_allocated_bytes: int = 0
    measured_allocated_bytes: int = 0
    predicted_reserved_bytes: int = 0
    measured_reserved_bytes: int = 0
    predicted_fits: bool | None = None
    measured_fits: bool | None = None
    problem: str = ""

    @property
    def allocated_error(self) -> float:
        """Relative to what was measured; positive where too much was predicted."""
        return self.predicted_allocated_bytes / self.measured_allocated_bytes - 1

    @property
    def reserved_error(self) -> float:
        """Relative to what was measured; positive where too much was predicted."""
        return self.predicted_reserved_bytes / self.measured_reserved_bytes - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a validation found.

    Attributes:
        passed: Whether the goals were reached, with no wrong verdict and nothing missing.
        text: The table, as Markdown.
        summary: The same as JSON types.
    """

    passed: bool
    text: str
    summary: dict[str, Any]


def _grid() -> tuple[Configuration, ...]:
    lora = ("quantization",)
    full = ("quantization", "lora")
    found: list[Configuration] = []

    def add(name: str, *overrides: str, without: tuple[str, ...] = ()) -> None:
        found.append(Configuration(name=name, overrides=overrides, without=without))

    def batch(rows: int, length: int) -> tuple[str, str]:
        return (
            f"training.per_device_train_batch_size={rows}",
            f"tokenization.max_length={length}",
        )

    bf16 = ("training.fp16=false", "training.bf16=true")
    fp32 = ("training.fp16=false",)
    checkpointing = "training.gradient_checkpointing=true"
    add("reference int8 1x128")
    for rows, length in ((1, 128), (8, 128), (8, 512), (4, 1024)):
        add(f"gpt2 lora fp16 {rows}x{length}", *batch(rows, length), without=lora)
        add(f"gpt2 full fp16 {rows}x{length}", *batch(rows, length), without=full)
    for rows, length in ((8, 128), (8, 512)):
        add(f"gpt2 int8 fp16 {rows}x{length}", *batch(rows, length))
        add(f"gpt2 lora bf16 {rows}x{length}", *bf16, *batch(rows, length), without=lora)
        add(f"gpt2 lora fp32 {rows}x{length}", *fp32, *batch(rows, length), without=lora)
        add(
            f"gpt2 lora checkpointing {rows}x{length}",
            checkpointing,
            *batch(rows, length),
            without=lora,
        )
    for optimizer in ("adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "adafactor", "sgd"):
        add(f"gpt2 full {optimizer}", f"training.optim={optimizer}", *batch(4, 256), without=full)
    four_bits = (
        "quantization.load_in_8bit=false",
        "quantization.load_in_4bit=true",
        "quantization.bnb_4bit_quant_type=nf4",
        "quantization.bnb_4bit_use_double_quant=true",
        "quantization.bnb_4bit_compute_dtype=float16",
    )
    for rows, length in ((1, 128), (8, 512)):
        add(f"gpt2 nf4 {rows}x{length}", *four_bits, *batch(rows, length))
        add(
            f"gpt2 nf4 checkpointing {rows}x{length}",
            *four_bits,
            checkpointing,
            *batch(rows, length),
        )
    add("gpt2 packed lora", "tokenization.packing=true", *batch(8, 512), without=lora)
    add("gpt2 lora eager", 'model.attn_implementation="eager"', *batch(4, 512), without=lora)
    attention = 'lora.target_modules=["q_proj", "v_proj"]'
    neox = 'lora.target_modules=["query_key_value"]'
    for name, targets in (
        ("gpt2-medium", ""),
        ("distilgpt2", ""),
        ("facebook/opt-125m", attention),
        ("facebook/opt-350m", attention),
        ("EleutherAI/pythia-160m", neox),
        ("HuggingFaceTB/SmolLM2-135M", attention),
        ("Qwen/Qwen2.5-0.5B", attention),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", attention),
    ):
        base = (f"model.name_or_path={name}", *([targets] if targets else []))
        short = name.rpartition("/")[2]
        add(f"{short} lora bf16 4x512", *base, *bf16, *batch(4, 512), without=lora)
        add(f"{short} nf4 bf16 4x512", *base, *bf16, *four_bits, *batch(4, 512))
    evaluates = "data.eval_fraction=0.1"
    add("gpt2 lora eval 8x512", evaluates, *batch(8, 512), without=lora)
    add(
        "gpt2 lora eval batch 32",
        evaluates,
        "training.per_device_eval_batch_size=32",
        *batch(1, 512),
        without=lora,
    )
    add("gpt2 generates long", "generation.max_new_tokens=512", without=lora)
    return tuple(found)


GRID: Final = _grid()


def configurations() -> tuple[tuple[Configuration, Recipe], ...]:
    """The grid with its recipes."""
    return tuple((configuration, _recipe(configuration)) for configuration in GRID)


def _recipe(configuration: Configuration) -> Recipe:
    recipe = load_recipe("gpt2-wikitext2", overrides=configuration.overrides)
    return dataclasses.replace(
        recipe,
        name=configuration.name,
        budget=dataclasses.replace(recipe.budget, card=None, vram=_VERDICT_VRAM),
        quantization=None if "quantization" in configuration.without else recipe.quantization,
        lora=None if "lora" in configuration.without else recipe.lora,
    )


def validate(folder: Path, progress: Progress) -> Outcome:
    """Predict and measure the grid; write `vram-validation.md` and `.json`.

    Every configuration is measured in a process of its own, by `ftcheck vram --measure`.

    Args:
        folder: Where the tables go; made if it is not there.
        progress: Told of every configuration.

    Raises:
        InputError: There is no card.
    """
    card = this_card()
    pairs = configurations()
    progress.stage(f"Predicting {len(pairs)} configurations")
    recipes = [recipe for _, recipe in pairs]
    predictions: dict[int, VramReport | Exception] = {}
    for number, found in predict_many(recipes, capability=card.compute_capability):
        predictions[number] = found
        progress.steps(len(predictions), len(pairs), None)
    progress.stage(f"Measuring {len(pairs)} configurations on {card.title}")
    rows = []
    for number, (configuration, recipe) in enumerate(pairs):
        rows.append(_row(configuration, predictions[number], _measured(recipe)))
        progress.steps(len(rows), len(pairs), None)
    outcome = summarize(rows, card.title)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "vram-validation.md", outcome.text + "\n")
    write_text(folder / "vram-validation.json", json.dumps(outcome.summary, indent=2) + "\n")
    return outcome


def _measured(recipe: Recipe) -> dict[str, Any] | str:
    """What `ftcheck vram --measure` says, as JSON types; or why it says nothing."""
    with tempfile.TemporaryDirectory(prefix="ftcheck-validate-") as place:
        file = Path(place, "configuration.toml")
        file.write_text(dump_recipe(recipe), encoding="utf-8")
        answer = subprocess.run(
            [sys.executable, "-m", "ftcheck", "vram", str(file), "--measure", "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
    if answer.returncode not in (0, 1):
        return _reason(answer.stderr)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def _reason(said: str) -> str:
    """The line in which the command says what went wrong; its next step follows behind that."""
    lines = [line for line in said.splitlines() if line.startswith(_OWN_WORDS)]
    return lines[-1].removeprefix(_OWN_WORDS) if lines else "no answer"


def _row(
    configuration: Configuration,
    predicted: VramReport | Exception,
    measured: dict[str, Any] | str,
) -> Row:
    if isinstance(predicted, FtcheckError):
        return Row(name=configuration.name, problem=f"predicted: {predicted.message}")
    if isinstance(predicted, Exception):
        raise predicted
    if isinstance(measured, str):
        return Row(name=configuration.name, problem=f"measured: {measured}")
    return Row(
        name=configuration.name,
        predicted_allocated_bytes=predicted.peak_allocated_bytes,
        measured_allocated_bytes=measured["peak_allocated_bytes"],
        predicted_reserved_bytes=predicted.peak_reserved_bytes,
        measured_reserved_bytes=measured["peak_reserved_bytes"],
        predicted_fits=predicted.fits,
        measured_fits=measured["fits"],
    )


def summarize(rows: Sequence[Row], card: str) -> Outcome:
    """The table, and whether the goals were reached.

    Args:
        rows: One a configuration.
        card: Name of the card that was measured on.
    """
    whole = [row for row in rows if not row.problem]
    allocated = [abs(row.allocated_error) for row in whole]
    reserved = [abs(row.reserved_error) for row in whole]
    wrong = [row.name for row in whole if row.predicted_fits != row.measured_fits]
    figures = {
        "allocated_median": statistics.median(allocated) if allocated else None,
        "allocated_worst": max(allocated, default=None),
        "reserved_median": statistics.median(reserved) if reserved else None,
        "reserved_worst": max(reserved, default=None),
    }
    reached = all(
        value is not None and value <= getattr(GOALS, name) for name, value in figures.items()
    )
    passed = reached and not wrong and len(whole) == len(rows)
    here = environment.current()
    lines = [f"# VRAM, predicted and measured on {card}", ""]
    lines += [f"- {name} {version}" for name, version in here.versions.items()]
    lines += ["", "| error | median | worst | goal |", "| --- | ---: | ---: | --- |"]
    for kind in ("allocated", "reserved"):
        median, worst = figures[f"{kind}_median"], figures[f"{kind}_worst"]
        goal = f"{getattr(GOALS, kind + '_median'):.0%} and {getattr(GOALS, kind + '_worst'):.0%}"
        lines.append(f"| {kind} | {_share(median)} | {_share(worst)} | {goal} |")
    lines += ["", f"Wrong verdicts at {_VERDICT_VRAM}: {', '.join(wrong) or 'none'}.", ""]
    lines += [
        "| configuration | allocated MiB: predicted | measured | error "
        "| reserved MiB: predicted | measured | error | fits 8 GiB: predicted | measured |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    lines += [_line(row) for row in rows]
    summary = {
        "card": card,
        "environment": here.to_dict(),
        "passed": passed,
        "goals": asdict(GOALS),
        "figures": figures,
        "wrong_verdicts": wrong,
        "rows": [asdict(row) for row in rows],
    }
    return Outcome(passed=passed, text="\n".join(lines), summary=summary)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _line(row: Row) -> str:
    if row.problem:
        return f"| {row.name} | {row.problem} | | | | | | | |"
    mib = 1024**2
    answer = {True: "yes", False: "no", None: "-"}
    return (
        f"| {row.name} | {row.predicted_allocated_bytes / mib:.1f} "
        f"| {row.measured_allocated_bytes / mib:.1f} | {row.allocated_error:+.2%} "
        f"| {row.predicted_reserved_bytes / mib:.1f} | {row.measured_reserved_bytes / mib:.1f} "
        f"| {row.reserved_error:+.2%} "
        f"| {answer[row.predicted_fits]} | {answer[row.measured_fits]} |"
    )
