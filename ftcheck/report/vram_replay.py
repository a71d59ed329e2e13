"""The report of `ftcheck vram --replay`: the replay, beside what the snapshot recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ftcheck.allocator.conf import format_conf
from ftcheck.allocator.recording import Recording
from ftcheck.report.vram_summary import table, vram_markdown, vram_summary
from ftcheck.units import format_bytes, format_count
from ftcheck.vram.snapshot_replay import SnapshotReplay

__all__ = ["replay_dict", "replay_markdown", "replay_summary"]


def replay_summary(replayed: SnapshotReplay) -> str:
    """The report for a terminal."""
    rows = [("", "recorded", "replayed"), *_figures(replayed)]
    gaps = "\n".join(f"  {gap}" for gap in replayed.recording.gaps)
    return "\n\n".join(
        [
            vram_summary(replayed.report),
            f"{_source(replayed.recording)}\n{table(rows)}\n  {_settings(replayed)}",
            f"Not in the snapshot\n{gaps}",
        ]
    )


def replay_markdown(replayed: SnapshotReplay) -> str:
    """The report for a pull request."""
    lines = [
        vram_markdown(replayed.report),
        "",
        f"{_source(replayed.recording)}:",
        "",
        "| | recorded | replayed |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {was} | {now} |" for name, was, now in _figures(replayed)),
        "",
        f"- {_settings(replayed)}",
        *(f"- not in the snapshot: {gap}" for gap in replayed.recording.gaps),
    ]
    return "\n".join(lines)


def replay_dict(replayed: SnapshotReplay) -> dict[str, Any]:
    """The report as JSON types, with the recording as `recorded`."""
    recorded = asdict(replayed.recording)
    del recorded["trace"]
    return {
        **replayed.report.to_dict(),
        "alloc_conf": format_conf(replayed.report.settings),
        "recorded": {**recorded, "gaps": list(replayed.recording.gaps)},
    }


def _source(recording: Recording) -> str:
    return f"Recorded on device {recording.device}, events: {format_count(recording.events)}"


def _figures(replayed: SnapshotReplay) -> Iterator[tuple[str, str, str]]:
    """Name, recorded amount, replayed amount."""
    recording, report = replayed.recording, replayed.report
    requested = recording.trace.requested_peak_bytes
    yield "peak requested", format_bytes(recording.peak_requested_bytes), format_bytes(requested)
    peak = recording.peak_reserved_bytes
    reserved = "unknown" if peak is None else format_bytes(peak)
    yield "peak reserved", reserved, format_bytes(report.peak_reserved_bytes)
    yield "allocated at the end", format_bytes(recording.allocated_bytes), ""
    yield "reserved at the end", format_bytes(recording.reserved_bytes), ""
    if recording.available_bytes is not None:
        yield "available when it ran out", format_bytes(recording.available_bytes), ""


def _settings(replayed: SnapshotReplay) -> str:
    conf = replayed.recording.conf
    recorded = "unknown" if conf is None else conf or "defaults"
    used = format_conf(replayed.report.settings) or "defaults"
    return f"allocator settings: recorded: {recorded}; replayed: {used}"
