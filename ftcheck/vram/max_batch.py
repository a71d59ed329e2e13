"""The largest batch that fits, and how memory grows with batch and length."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ftcheck.cards import Card
from ftcheck.pipeline.progress import Progress, Silent
from ftcheck.recipe import Recipe
from ftcheck.vram.prediction import predict_many
from ftcheck.vram.vram_report import VramReport

__all__ = ["BatchPoint", "LargestBatch", "largest_batch"]

_FIRST: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_LARGEST: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPoint:
    """One prediction of the curve.

    Attributes:
        batch: `per_device_train_batch_size`.
        length: `max_length`, in tokens.
        peak_allocated_bytes: Without a limit.
        needed_bytes: Smallest card that works, context included.
        fits: Whether it runs on the card.
    """

    batch: int
    length: int
    peak_allocated_bytes: int
    needed_bytes: int
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestBatch:
    """The answer.

    Attributes:
        batch: The largest that fits; 0 if not even one row does.
        card: The card's name.
        by_batch: The curve over the batch, at the recipe's length.
        by_length: The curve over the length, at the recipe's batch.
    """

    batch: int
    card: str
    by_batch: tuple[BatchPoint, ...]
    by_length: tuple[BatchPoint, ...]


def largest_batch(
    recipe: Recipe,
    card: Card,
    report: VramReport,
    *,
    timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> LargestBatch:
    """Search the largest batch that fits on a card: by powers of two, then by bisection.

    Memory grows almost evenly with the batch, so that the bisection starts where a line between
    the two neighbours meets the card. What is returned was predicted to fit, and the next batch
    not to.

    Args:
        recipe: The recipe.
        card: To fit.
        report: The recipe's own prediction, a point of both curves.
        timeout_s: Seconds that each prediction may take.
        progress: Told how it goes.

    Raises:
        FtcheckError: A prediction failed.
    """
    progress = progress or Silent()
    length = recipe.tokenization.max_length
    own = recipe.per_device_train_batch_size
    search = _Search(recipe, card, timeout_s, progress)
    search.add(own, length, report)
    lengths = sorted({max(length // 4, 2), max(length // 2, 2)})
    progress.stage("Predicting batches of 1 to 128 rows")
    search.run([*((batch, length) for batch in _FIRST), *((own, some) for some in lengths)])
    works, fails = search.bounds(length)
    while fails is None and works < _LARGEST:
        search.run([(works * 2, length), (works * 4, length)])
        works, fails = search.bounds(length)
    while fails is not None and fails - works > 1:
        middle = search.guess(works, fails, length)
        progress.stage(f"Between {works} and {fails} rows: trying {middle}")
        search.run([(batch, length) for batch in {middle, middle + 1} if works < batch < fails])
        works, fails = search.bounds(length)
    points = sorted(search.points.values(), key=lambda point: (point.batch, point.length))
    return LargestBatch(
        batch=works,
        card=card.name,
        by_batch=tuple(point for point in points if point.length == length),
        by_length=tuple(point for point in points if point.batch == own),
    )


class _Search:
    """Predictions so far, by batch and length."""

    def __init__(self, recipe: Recipe, card: Card, timeout_s: float, progress: Progress) -> None:
        self.points: dict[tuple[int, int], BatchPoint] = {}
        self._recipe = recipe
        self._card = card
        self._timeout_s = timeout_s
        self._progress = progress

    def run(self, wanted: Sequence[tuple[int, int]]) -> None:
        """Predict what is not there yet."""
        missing = [point for point in dict.fromkeys(wanted) if point not in self.points]
        recipes = [_with(self._recipe, batch, length) for batch, length in missing]
        outcomes = predict_many(recipes, card=self._card, timeout_s=self._timeout_s)
        for done, (number, outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, Exception):
                raise outcome
            self.add(*missing[number], outcome)
            self._progress.steps(done, len(missing), None)

    def add(self, batch: int, length: int, report: VramReport) -> None:
        """Keep a prediction."""
        assert report.needed_bytes is not None
        self.points[batch, length] = BatchPoint(
            batch=batch,
            length=length,
            peak_allocated_bytes=report.peak_allocated_bytes,
            needed_bytes=report.needed_bytes,
            fits=bool(report.fits),
        )

    def bounds(self, length: int) -> tuple[int, int | None]:
        """The largest batch below the first that fails, and that one."""
        known = self._at(length)
        fails = min((batch for batch, point in known.items() if not point.fits), default=None)
        works = max(
            (
                batch
                for batch, point in known.items()
                if point.fits and (fails is None or batch < fails)
            ),
            default=0,
        )
        return works, fails

    def guess(self, works: int, fails: int, length: int) -> int:
        """Where a line from the batch that works to the one that fails meets the card."""
        known = self._at(length)
        low, high = known.get(works), known[fails]
        if low is None or high.needed_bytes <= low.needed_bytes:
            return (works + fails) // 2
        slope = (high.needed_bytes - low.needed_bytes) / (fails - works)
        met = works + int((self._card.capacity_bytes - low.needed_bytes) / slope)
        return min(max(met, works + 1), fails - 1)

    def _at(self, length: int) -> Mapping[int, BatchPoint]:
        return {batch: point for (batch, some), point in self.points.items() if some == length}


def _with(recipe: Recipe, batch: int, length: int) -> Recipe:
    return dataclasses.replace(
        recipe,
        training=recipe.training.replace(per_device_train_batch_size=batch),
        tokenization=dataclasses.replace(recipe.tokenization, max_length=length),
    )
