"""A memory snapshot of a real run, replayed on another GPU or with other allocator settings."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.conf import parse_conf
from ftcheck.allocator.recording import Recording, load_recording
from ftcheck.cards import Card
from ftcheck.vram.vram_report import VramReport, report_on

__all__ = ["SnapshotReplay", "replay_snapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReplay:
    """What a run recorded, beside what its requests take in the simulated allocator."""

    recording: Recording
    report: VramReport


def replay_snapshot(
    file: Path,
    *,
    card: Card | None = None,
    settings: AllocatorSettings | None = None,
    device: int | None = None,
) -> SnapshotReplay:
    """Replay what `torch.cuda.memory._dump_snapshot`, or `--timeline FILE.pickle`, wrote.

    Args:
        file: The pickle; only plain containers, text and numbers are read from it.
        card: The budget; `None` gives no verdict.
        settings: Of the allocator; `None`: those of the recorded run.
        device: Which device of the file; `None`: the busiest.

    Raises:
        InputError: The file is no such snapshot, or nothing was allocated on the device.
    """
    begun = time.monotonic()
    recording = load_recording(file, device)
    assumptions = []
    if settings is None:
        settings, problem = _recorded_settings(recording)
        assumptions = [f"allocator settings: the defaults; {problem}"] if problem else []
    report = report_on(
        recording.trace,
        subject=file.name,
        card=card,
        how="replayed",
        settings=settings,
        assumptions=assumptions,
    )
    return SnapshotReplay(
        recording=recording, report=replace(report, seconds=time.monotonic() - begun)
    )


def _recorded_settings(recording: Recording) -> tuple[AllocatorSettings, str]:
    """Settings of the run, or the defaults and why."""
    if recording.conf is None:
        return AllocatorSettings(), "the snapshot has none"
    try:
        return parse_conf(recording.conf), ""
    except ValueError as error:
        return AllocatorSettings(), f"those of the run cannot be simulated: {error}"
