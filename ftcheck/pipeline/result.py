"""What a run found out: plain data, for the summary and for `summary.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftcheck.environment import Environment
from ftcheck.pipeline.adapter import ParameterCounts
from ftcheck.pipeline.devices import PeakMemory
from ftcheck.pipeline.saving import ReloadComparison
from ftcheck.pipeline.tokens import TokenCounts
from ftcheck.pipeline.training import Evaluation

__all__ = ["BugNotice", "RunResult", "Sample", "TrainingResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What training did.

    Attributes:
        steps: Optimizer steps in all, those before a resume included.
        first_loss: First logged loss, in nats.
        last_loss: Last logged loss, in nats.
        seconds: Wall time of the training of this process.
        seconds_per_step: Median wall time of an optimizer step; `None` where none was taken.
    """

    steps: int
    first_loss: float | None
    last_loss: float | None
    seconds: float
    seconds_per_step: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A prompt and its continuation before and after training."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BugNotice:
    """A library bug that was active: its effect and what was done about it."""

    slug: str
    effect: str
    handled: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of `ftcheck.pipeline.run`.

    Attributes:
        recipe: Name of the recipe.
        folder: The run folder.
        device: Where it ran.
        processes: Processes that trained together.
        train_tokens: Counts of the training rows.
        evaluation_tokens: Counts of the evaluation rows; `None` without any.
        parameters: Trainable and all parameters, adapted modules.
        training: Steps, losses, time.
        before: Evaluation before training; `None` without evaluation rows.
        after: Evaluation after training.
        reload: Comparison of the logits before saving and after loading; `None` on other ranks
            than 0.
        memory: Measured peak memory of this process.
        samples: Prompts with texts before and after.
        bugs: Library bugs that were active.
        notices: What else the reader should know, a sentence each.
        environment: Versions, platform, commit.
        seconds: Wall time of the whole run.
    """

    recipe: str
    folder: Path
    device: str
    processes: int
    train_tokens: TokenCounts
    evaluation_tokens: TokenCounts | None
    parameters: ParameterCounts
    training: TrainingResult
    before: Evaluation | None
    after: Evaluation | None
    reload: ReloadComparison | None
    memory: PeakMemory
    samples: tuple[Sample, ...]
    bugs: tuple[BugNotice, ...]
    notices: tuple[str, ...]
    environment: Environment
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {**asdict(self), "folder": str(self.folder)}
