"""The report of `ftcheck vram`, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ftcheck.allocator.categories import ACTIVATIONS
from ftcheck.units import format_bytes, format_count, format_seconds
from ftcheck.vram.vram_report import Failure, Holding, Peak, VramReport

__all__ = ["table", "vram_markdown", "vram_summary"]

_MOST_KINDS = 5


def vram_summary(report: VramReport) -> str:
    """The report for a terminal: the verdict first, then where the memory goes."""
    blocks = [_verdict(report), _figures(report), _phases(report)]
    if report.peak is not None:
        blocks.append(_peak(report))
    if report.failure is not None:
        blocks.append(_failure(report))
    if report.assumptions:
        blocks.append("Assumed\n" + "\n".join(f"  {line}" for line in report.assumptions))
    return "\n\n".join(blocks)


def _verdict(report: VramReport) -> str:
    took = format_seconds(report.seconds)
    tail = f"{report.how} in {took}"
    if report.card is None or report.headroom_bytes is None:
        return f"{report.subject}: no card was named, so there is no verdict ({tail})"
    room = format_bytes(abs(report.headroom_bytes))
    says = f"FITS, {room} to spare" if report.fits else f"DOES NOT FIT, {room} too much"
    if report.fits is False and report.headroom_bytes >= 0:
        says = "DOES NOT FIT, although a smaller card would do: fragmentation"
    return f"{report.subject} on {report.card.title}: {says} ({tail})"


def _figures(report: VramReport) -> str:
    how = report.how
    rows = [
        ("peak allocated", format_bytes(report.peak_allocated_bytes), f"{how}, tensors"),
        (
            "peak reserved",
            format_bytes(report.peak_reserved_bytes),
            f"{how}, by the allocator; {report.fragmentation:.0%} of it unused",
        ),
    ]
    if report.card is not None:
        estimate = report.card.sources.context_overhead.startswith("estimate")
        rows.append(
            (
                "CUDA context",
                format_bytes(report.context_bytes),
                "estimated, outside of the allocator" if estimate else "outside of the allocator",
            )
        )
    if report.needed_bytes is not None:
        what = "smallest card that works, with the context" if report.card else "without a context"
        rows.append(("needed", format_bytes(report.needed_bytes), what))
    if report.card is not None:
        rows.append(("card", format_bytes(report.card.capacity_bytes), report.card.name))
    return table(rows)


def _phases(report: VramReport) -> str:
    rows = [("phase", "allocated", "reserved")]
    rows += [
        (
            phase.phase or "start",
            format_bytes(phase.allocated_bytes),
            format_bytes(phase.reserved_bytes),
        )
        for phase in report.phases
    ]
    return table(rows)


def _peak(report: VramReport) -> str:
    peak = report.peak
    assert peak is not None
    lines = [f"At the peak, in {_where(peak)}"]
    rows: list[tuple[str, ...]] = []
    for holding in peak.holdings:
        rows.append(_holding(holding, report.peak_allocated_bytes))
        if holding.name == ACTIVATIONS:
            rows += [
                _holding(kind, report.peak_allocated_bytes, "  ")
                for kind in peak.activations[:_MOST_KINDS]
            ]
            rest = sum(kind.size_bytes for kind in peak.activations[_MOST_KINDS:])
            if rest:
                rows.append(
                    _holding(
                        Holding(name="others", size_bytes=rest), report.peak_allocated_bytes, "  "
                    )
                )
    return "\n".join(lines) + "\n" + table(rows)


def _holding(holding: Holding, whole: int, indent: str = "") -> tuple[str, str, str]:
    share = holding.size_bytes / whole if whole else 0.0
    return indent + holding.name, format_bytes(holding.size_bytes), f"{share:.1%}"


def _failure(report: VramReport) -> str:
    failure = report.failure
    assert failure is not None
    lines = [f"torch.OutOfMemoryError: {failure.message}", f"  in {_where(failure)}"]
    if report.how != "replayed":
        lines.append("  What helps, and by how much: ftcheck vram --what-if")
    elif not report.settings.expandable_segments:
        lines.append("  Try other allocator settings: --alloc-conf expandable_segments:True")
    return "\n".join(lines)


def _where(place: Peak | Failure) -> str:
    """Phase, operation and module, as far as they are known."""
    phase = place.phase or "start"
    if not place.op:
        return phase
    return f"{phase}: {place.op} in {place.module}" if place.module else f"{phase}: {place.op}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Columns of text: the first and the last to the left, amounts between them to the right."""
    lines = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    last = len(widths) - 1
    out = []
    for row in lines:
        cells = [row[0].ljust(widths[0])]
        for column in range(1, len(row)):
            words = column == last and not row[column][:1].isdigit()
            cells.append(row[column] if words else row[column].rjust(widths[column]))
        out.append("  " + "  ".join(cells).rstrip())
    return "\n".join(out)


def vram_markdown(report: VramReport) -> str:
    """The report for a pull request."""
    lines = [f"**{_verdict(report)}**", "", "| | |", "| --- | ---: |"]
    lines += [
        f"| peak allocated ({report.how}) | {format_bytes(report.peak_allocated_bytes)} |",
        f"| peak reserved ({report.how}) | {format_bytes(report.peak_reserved_bytes)} |",
        f"| CUDA context | {format_bytes(report.context_bytes)} |",
    ]
    if report.needed_bytes is not None:
        lines.append(f"| needed | {format_bytes(report.needed_bytes)} |")
    trainable = report.facts.get("parameters", {}).get("trainable")
    if trainable is not None:
        lines.append(f"| trainable parameters | {format_count(trainable)} |")
    lines += ["", "| phase | allocated | reserved |", "| --- | ---: | ---: |"]
    lines += [
        f"| {phase.phase} | {format_bytes(phase.allocated_bytes)} "
        f"| {format_bytes(phase.reserved_bytes)} |"
        for phase in report.phases
    ]
    if report.peak is not None:
        lines += ["", f"At the peak, in {report.peak.phase} (`{report.peak.op}`):", ""]
        lines += ["| held by | bytes |", "| --- | ---: |"]
        lines += [
            f"| {holding.name} | {format_bytes(holding.size_bytes)} |"
            for holding in report.peak.holdings
        ]
    if report.failure is not None:
        lines += ["", f"`{report.failure.message}`"]
    lines += ["", *(f"- assumed: {line}" for line in report.assumptions)]
    return "\n".join(lines)
