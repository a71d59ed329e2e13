"""From a wrapped model to a saved and compared one: the long part of a run."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck import environment
from ftcheck.pipeline import library_bugs, processes, resuming, saving
from ftcheck.pipeline.adapter import count_parameters
from ftcheck.pipeline.devices import choose_device, peak_memory
from ftcheck.pipeline.folder import Checkpoint, RunFolder
from ftcheck.pipeline.generation import generate
from ftcheck.pipeline.progress import Progress
from ftcheck.pipeline.result import BugNotice, RunResult, Sample, TrainingResult
from ftcheck.pipeline.tokens import TokenizedData
from ftcheck.pipeline.training import Evaluation, build_trainer, evaluate
from ftcheck.recipe import Recipe
from ftcheck.sources.base_model import BaseModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

__all__ = ["FineTuning", "Interrupted", "Session"]


class Interrupted(Exception):
    """A run was stopped by Ctrl-C and can go on.

    Args:
        folder: The run folder.
        checkpoint: The checkpoint that was saved.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint | None) -> None:
        super().__init__(f"interrupted in {folder}")
        self.folder = folder
        self.checkpoint = checkpoint


@dataclass(slots=True, kw_only=True)
class Session:
    """What the steps of a run share."""

    recipe: Recipe
    source: BaseModel
    """Where its base model is."""
    folder: RunFolder
    progress: Progress
    """Receives what happens."""
    notices: list[str]
    """What the reader should know, one sentence each; grows during the run."""
    main: bool = field(default_factory=processes.is_main_process)
    """Whether this process writes and prints."""
    start: float = field(default_factory=time.perf_counter)
    """`time.perf_counter()` at the start."""


class FineTuning:
    """The model of a run: looked at, trained, saved, loaded again, looked at.

    Args:
        session: What the steps of the run share.
        model: What `wrap` returned.
        tokens: What `tokenize` returned.
        tokenizer: Their tokenizer.
        checkpoint: Where to go on from; `None` for the start.
    """

    def __init__(
        self,
        session: Session,
        model: Any,
        tokens: TokenizedData,
        tokenizer: PreTrainedTokenizerBase,
        checkpoint: Checkpoint | None,
    ) -> None:
        from ftcheck.pipeline import watch

        self.session, self.recipe, self.folder = session, session.recipe, session.folder
        self.model, self.tokens, self.tokenizer = model, tokens, tokenizer
        self.checkpoint = checkpoint
        self.parameters = count_parameters(model)
        self.biases = library_bugs.quantized_biases(model)
        self.clock = watch.StepClock()
        self.interruption = watch.Interruption(session.progress)
        callbacks = [self.clock, self.interruption, watch.ProgressCallback(session.progress)]
        if session.main:
            step = checkpoint.step if checkpoint else 0
            callbacks.append(watch.MetricsFile(self.folder.metrics, step))
        self.trainer: Trainer = build_trainer(
            model,
            tokens,
            tokenizer,
            self.recipe,
            self.folder.checkpoints,
            callbacks=callbacks,
        )
        self.before: Evaluation | None = None
        self.after: Evaluation | None = None
        self.texts_before: tuple[str, ...] = ()
        self.texts_after: tuple[str, ...] = ()
        self.seconds = 0.0

    def train(self) -> None:
        self._look_before()
        self.session.progress.stage("Training")
        begun = time.perf_counter()
        with self.interruption.listening():
            self._train()
        self.seconds = time.perf_counter() - begun
        if self.interruption.requested:
            raise Interrupted(self.folder.root, self.folder.last_checkpoint())
        self.session.progress.stage("Evaluating")
        self.after = evaluate(self.trainer)

    def _look_before(self) -> None:
        """Loss and text of the base; a resumed run has them from its first start."""
        kept = self.folder.read_json("before.json") if self.checkpoint else None
        if kept is not None:
            self.before = Evaluation(**kept["evaluation"]) if kept["evaluation"] else None
            self.texts_before = tuple(kept["texts"])
            return
        self.session.progress.stage("Evaluating and generating before training")
        self.before = evaluate(self.trainer)
        if self.session.main:
            self.texts_before = generate(self.model, self.tokenizer, self.recipe)
            evaluation = dataclasses.asdict(self.before) if self.before else None
            self.folder.write_json(
                "before.json", {"evaluation": evaluation, "texts": self.texts_before}
            )

    def _train(self) -> None:
        if self.checkpoint is None:
            self.trainer.train()
            return
        if resuming.is_last(self.checkpoint):
            # Resuming a run that is at its last step would train one step more.
            resuming.load_weights(self.trainer, self.recipe, self.checkpoint.folder)
            return
        self.trainer.train(resume_from_checkpoint=str(self.checkpoint.folder))

    def saved_and_loaded(self) -> saving.ReloadComparison | None:
        """Save, load again, compare, generate; on rank 0 only."""
        comparison = None
        if self.session.main:
            self.session.progress.stage("Saving and loading again")
            # Out of the autocast that accelerate wraps `forward` in: what is loaded has none.
            self.model = self.trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            library_bugs.mend_biases(self.biases)
            rows = self.tokens.evaluation or self.tokens.train
            trained = saving.probe_logits(self.model, rows)
            base = saving.base_probe_logits(self.model, rows)
            source = self.session.source
            saving.save(self.model, self.tokenizer, self.recipe, self.folder.adapter, source=source)
            self._let_go()
            loaded, tokenizer = saving.reload(self.recipe, self.folder.adapter, source=source)
            again = saving.probe_logits(loaded, rows)
            comparison = saving.compare(trained, again, base, self.recipe)
            self.session.progress.stage("Generating")
            self.texts_after = generate(loaded, tokenizer, self.recipe)
        processes.wait_for_all()
        return comparison

    def _let_go(self) -> None:
        """Free the trained model before its successor is loaded: on a card both would not fit."""
        import gc

        import torch

        self.log_history = list(self.trainer.state.log_history)
        self.steps = int(self.trainer.state.global_step)
        del self.model, self.trainer, self.biases
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def result(
        self, bugs: tuple[Any, ...], comparison: saving.ReloadComparison | None
    ) -> RunResult:
        recipe = self.recipe
        return RunResult(
            recipe=recipe.name,
            folder=self.folder.root,
            device=choose_device(recipe),
            processes=processes.process_count(),
            train_tokens=self.tokens.train_counts,
            evaluation_tokens=self.tokens.evaluation_counts,
            parameters=self.parameters,
            training=self._training_result(),
            before=self.before,
            after=self.after,
            reload=comparison,
            memory=peak_memory(choose_device(recipe)),
            samples=self._samples(),
            bugs=tuple(
                BugNotice(slug=bug.slug, effect=bug.effect, handled=bug.handled, source=bug.source)
                for bug in bugs
            ),
            notices=tuple(self.session.notices),
            environment=environment.current(),
            seconds=time.perf_counter() - self.session.start,
        )

    def _training_result(self) -> TrainingResult:
        if hasattr(self, "trainer"):
            self.log_history = list(self.trainer.state.log_history)
            self.steps = int(self.trainer.state.global_step)
        losses = [entry["loss"] for entry in self.log_history if "loss" in entry]
        times = self.clock.seconds
        return TrainingResult(
            steps=self.steps,
            first_loss=losses[0] if losses else None,
            last_loss=losses[-1] if losses else None,
            seconds=self.seconds,
            seconds_per_step=statistics.median(times) if times else None,
        )

    def _samples(self) -> tuple[Sample, ...]:
        prompts = self.recipe.generation.prompts
        several = max(1, len(self.texts_after) // max(1, len(prompts)))
        repeated = [prompt for prompt in prompts for _ in range(several)]
        return tuple(
            Sample(prompt=prompt, before=before, after=after)
            for prompt, before, after in zip(
                repeated, self.texts_before, self.texts_after, strict=False
            )
        )
