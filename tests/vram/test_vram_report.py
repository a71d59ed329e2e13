"""Reports from small traces: figures, verdicts, where the peak is."""

from __future__ import annotations

from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from ftcheck.cards import from_vram
from ftcheck.report.vram_summary import vram_markdown, vram_summary
from ftcheck.vram.vram_report import report_on

MIB = 1024**2
CONTEXT = 300 * MIB  # of a card of which only the memory is known


def trace() -> Trace:
    """100 MiB of weights, 60 of activations, 40 of logits that go again."""
    made = TraceRecorder()
    made.allocate(0, 100 * MIB, Tags(phase="load", category="base weights", op="copy"))
    made.allocate(
        1,
        60 * MIB,
        Tags(phase="step 1", category="saved activations", op="mm", module="h.0.mlp (GPT2MLP)"),
    )
    made.allocate(
        2, 40 * MIB, Tags(phase="step 1", category="logits and loss", op="softmax", module="head")
    )
    for block in (2, 1):
        made.free(block, Tags(phase="step 1"))
    made.allocate(3, 20 * MIB, Tags(phase="eval", category="inputs", op="copy"))
    made.free(3, Tags(phase="eval"))
    return made.finish()


def test_figures_and_the_place_of_the_peak() -> None:
    report = report_on(trace(), subject="small", card=None)
    assert report.peak_allocated_bytes == report.peak_reserved_bytes == 200 * MIB
    assert report.needed_bytes == 200 * MIB
    assert report.fits is None
    assert report.headroom_bytes is None
    peaks = {phase.phase: phase.allocated_bytes // MIB for phase in report.phases}
    assert peaks == {"load": 100, "step 1": 200, "eval": 120}
    peak = report.peak
    assert peak is not None
    assert (peak.phase, peak.op, peak.module) == ("step 1", "softmax", "head")
    assert [holding.name for holding in peak.holdings] == [
        "base weights",
        "saved activations",
        "logits and loss",
    ]
    assert [kind.name for kind in peak.activations] == ["GPT2MLP"]
    assert peak.blocks[0].size_bytes == 100 * MIB


def test_the_verdict_turns_at_the_last_two_mebibytes() -> None:
    fits = report_on(trace(), subject="small", card=from_vram(CONTEXT + 200 * MIB))
    assert fits.fits is True
    assert fits.headroom_bytes == 0
    assert fits.failure is None
    short = report_on(trace(), subject="small", card=from_vram(CONTEXT + 198 * MIB))
    assert short.fits is False
    assert short.headroom_bytes == -2 * MIB
    assert short.failure is not None
    assert (short.failure.phase, short.failure.op) == ("step 1", "softmax")
    assert "Tried to allocate 40.00 MiB" in short.failure.message


def test_the_text_says_the_verdict_first() -> None:
    short = report_on(trace(), subject="small", card=from_vram(CONTEXT + 100 * MIB))
    text = vram_summary(short)
    assert text.splitlines()[0].startswith(
        "small on a card with 400.00 MiB: DOES NOT FIT, 100.00 MiB too much (predicted in"
    )
    assert "torch.OutOfMemoryError: CUDA out of memory." in text
    assert "ftcheck vram --what-if" in text
    assert vram_markdown(short).startswith("**small on a card with 400.00 MiB: DOES NOT FIT")
    assert "so there is no verdict" in vram_summary(report_on(trace(), subject="s", card=None))


def test_an_empty_trace_has_no_peak() -> None:
    report = report_on(TraceRecorder().finish(), subject="nothing", card=None)
    assert report.peak is None
    assert report.peak_allocated_bytes == 0
    assert vram_summary(report)
