"""The summary of a run, as text."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

from ftcheck.pipeline.result import RunResult
from ftcheck.units import format_bytes, format_count, format_seconds

__all__ = ["run_summary"]

_LABEL = 12
_WIDTH = 96


def run_summary(result: RunResult) -> str:
    """What a person wants to know of a run, on one page."""
    lines = [f"{result.recipe}: fine-tuned on {result.device}{_processes(result)}", ""]
    lines += [_row(label, text) for label, text in _rows(result)]
    for sample in result.samples:
        lines += ["", f"before   {sample.prompt!r} →", _quoted(sample.before)]
        lines += [f"after    {sample.prompt!r} →", _quoted(sample.after)]
    notes = [*result.notices, *(_bug(bug.slug, bug.effect, bug.handled) for bug in result.bugs)]
    if notes:
        lines += ["", "Worth knowing"]
        lines += [
            fill(note, _WIDTH, initial_indent="  - ", subsequent_indent="    ") for note in notes
        ]
    lines += ["", *_places(result)]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "\n".join(f"  │ {line}" for line in text.strip("\n").split("\n"))


def _processes(result: RunResult) -> str:
    return f" by {result.processes} processes" if result.processes > 1 else ""


def _row(label: str, text: str) -> str:
    return fill(
        text,
        _WIDTH,
        initial_indent=f"{label:<{_LABEL}} ",
        subsequent_indent=" " * (_LABEL + 1),
        break_on_hyphens=False,
    )


def _rows(result: RunResult) -> Iterator[tuple[str, str]]:
    yield "rows", _rows_text(result)
    yield "tokens", _tokens_text(result)
    yield "parameters", _parameters_text(result)
    training = result.training
    if training.first_loss is not None and training.last_loss is not None:
        yield (
            "loss",
            f"{training.first_loss:.4f} first logged, {training.last_loss:.4f} last, "
            f"in {training.steps} steps",
        )
    yield "evaluation", _evaluation_text(result)
    if result.reload is not None:
        yield (
            "reload",
            f"logits differ by {result.reload.difference:.2g} from those before saving "
            f"(at most {result.reload.tolerance:.2g} passes; training moved them by "
            f"{result.reload.adapter_effect:.2g})",
        )
    yield "memory", _memory_text(result)
    yield "time", _time_text(result)


def _rows_text(result: RunResult) -> str:
    counts = result.train_tokens
    text = f"{format_count(counts.rows)} to train on"
    if counts.raw_rows != counts.rows:
        text += f", from {format_count(counts.raw_rows)} rows of text"
    if counts.short_rows:
        text += f" ({format_count(counts.short_rows)} with fewer than 2 tokens left out)"
    if result.evaluation_tokens is not None:
        text += f", {format_count(result.evaluation_tokens.rows)} to evaluate on"
    return text


def _tokens_text(result: RunResult) -> str:
    counts = result.train_tokens
    share = counts.pads / counts.positions if counts.positions else 0.0
    pads = f"{format_count(counts.pads)} pads ({share:.0%} of all)"
    if counts.padded_in_batches:
        pads = "pads only up to the longest row of a batch"
    text = f"{format_count(counts.real)} real, {pads}"
    if counts.cut:
        whole = counts.real + counts.cut
        text += f"; {format_count(counts.cut)} cut off ({counts.cut / whole:.0%} of the text)"
    return text


def _parameters_text(result: RunResult) -> str:
    counts = result.parameters
    text = (
        f"{format_count(counts.trainable)} of {format_count(counts.total)} trainable "
        f"({counts.trainable / counts.total:.2%})"
    )
    if counts.adapted:
        kinds = ", ".join(f"{number} × {kind}" for kind, number in counts.adapted.items())
        text += f"; adapters on {kinds}"
    shared = _shared_leaves(counts.adapted)
    if shared:
        text += f" ({shared})"
    return text


def _shared_leaves(adapted: object) -> str:
    """Names that hit modules of several kinds, such as `c_proj` in attention and MLP."""
    assert hasattr(adapted, "__iter__")
    by_leaf: dict[str, list[str]] = {}
    for kind in adapted:
        by_leaf.setdefault(kind.rpartition(".")[2], []).append(kind)
    return "; ".join(
        f"{leaf} names modules in {' and in '.join(k.rpartition('.')[0] for k in kinds)}"
        for leaf, kinds in by_leaf.items()
        if len(kinds) > 1
    )


def _evaluation_text(result: RunResult) -> str:
    before, after = result.before, result.after
    if before is None or after is None:
        return "none: the recipe names no rows to evaluate on"
    change = after.perplexity / before.perplexity - 1
    return (
        f"loss {before.loss:.4f} before, {after.loss:.4f} after; perplexity "
        f"{before.perplexity:.2f} before, {after.perplexity:.2f} after ({change:+.0%}) "
        f"on {format_count(after.tokens)} label tokens"
    )


def _memory_text(result: RunResult) -> str:
    memory = result.memory
    if memory.reserved_bytes is None:
        return f"peak resident {format_bytes(memory.allocated_bytes)}, measured on the CPU"
    return (
        f"peak allocated {format_bytes(memory.allocated_bytes)}, peak reserved "
        f"{format_bytes(memory.reserved_bytes)}, measured on {memory.device}"
    )


def _time_text(result: RunResult) -> str:
    step = result.training.seconds_per_step
    whole, training = format_seconds(result.seconds), format_seconds(result.training.seconds)
    text = f"{whole} in all, {training} training"
    return text if step is None else f"{text}, {format_seconds(step)} a step (median)"


def _bug(slug: str, effect: str, handled: str) -> str:
    return f"library bug {slug}: {effect}. What ftcheck does: {handled}."


def _places(result: RunResult) -> list[str]:
    return [
        f"everything   {result.folder}/",
        f"adapter      {result.folder / 'adapter'}/",
        f"go on        ftcheck generate {result.folder} 'a prompt of your own'",
    ]
