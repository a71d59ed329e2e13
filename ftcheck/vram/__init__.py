"""VRAM: predicted without a card, measured on one.

`predict` runs a recipe, a `Trainer` or a step on the virtual GPU and replays what it allocated
through a simulation of PyTorch's CUDA caching allocator; `measure` runs it on a card;
`replay_snapshot` replays the memory snapshot of a run. Each gives a `VramReport`, the last beside
what was recorded. The names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftcheck.cards import Card as Card
    from ftcheck.cards import cards as known_cards
    from ftcheck.vram.measurement import measure as measure
    from ftcheck.vram.prediction import predict as predict
    from ftcheck.vram.snapshot_replay import replay_snapshot as replay_snapshot
    from ftcheck.vram.vram_report import VramReport as VramReport

_HOMES = {
    "Card": ("ftcheck.cards", "Card"),
    "VramReport": ("ftcheck.vram.vram_report", "VramReport"),
    "known_cards": ("ftcheck.cards", "cards"),
    "measure": ("ftcheck.vram.measurement", "measure"),
    "predict": ("ftcheck.vram.prediction", "predict"),
    "replay_snapshot": ("ftcheck.vram.snapshot_replay", "replay_snapshot"),
}

__all__ = ["Card", "VramReport", "known_cards", "measure", "predict", "replay_snapshot"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home, attribute = _HOMES[name]
        return getattr(importlib.import_module(home), attribute)
    raise AttributeError(f"module 'ftcheck.vram' has no attribute {name!r}")
