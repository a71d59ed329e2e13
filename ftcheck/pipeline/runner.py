"""All steps in their order: a recipe in, an adapter and text out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck import environment
from ftcheck.errors import InputError, ResumeRefused
from ftcheck.pipeline import library_bugs, processes, saving
from ftcheck.pipeline.adapter import count_parameters, wrap
from ftcheck.pipeline.availability import disk_refusals
from ftcheck.pipeline.data import load_data
from ftcheck.pipeline.defaults import with_defaults
from ftcheck.pipeline.devices import choose_device, peak_memory
from ftcheck.pipeline.folder import Checkpoint, RunFolder, write_text
from ftcheck.pipeline.generation import check_prompts, generate
from ftcheck.pipeline.model import load_base
from ftcheck.pipeline.progress import Progress, Silent
from ftcheck.pipeline.result import BugNotice, RunResult, Sample, TrainingResult
from ftcheck.pipeline.tokens import TokenizedData, load_tokenizer, tokenize
from ftcheck.pipeline.training import Evaluation, build_arguments, build_trainer, evaluate
from ftcheck.recipe import Arguments, Recipe, dump_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

__all__ = ["Interrupted", "run"]


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


def run(
    recipe: Recipe,
    folder: RunFolder,
    *,
    resume: bool = False,
    inexact_resume: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Fine-tune by a recipe, save, load again, compare, generate.

    Args:
        recipe: The recipe.
        folder: A run folder that was just made, or one to resume.
        resume: Go on from the last complete checkpoint in `folder`, from the start without one.
        inexact_resume: Resume even where the installed versions would not go on as the run
            without a stop had done.
        progress: Told what happens.

    Raises:
        InputError: The recipe, its data or its model cannot be used; `DiskError` and
            `Unavailable` among them.
        ReloadMismatch: What was saved does not compute what was trained.
        Interrupted: Ctrl-C; a checkpoint was saved.
    """
    try:
        with disk_refusals(), _environment_kept():
            return _Run(recipe, folder, progress or Silent(), inexact_resume).whole(resume)
    except ImportError as error:
        raise InputError(
            f"The recipe needs a package that is not installed: {error}",
            next_step="Install it, or change the recipe.",
        ) from error


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Restore `os.environ`: transformers 4 leaves ACCELERATE_MIXED_PRECISION behind, and the next
    run of the process would train in the precision of this one."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


class _Run:
    """One run: what its steps share."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, progress: Progress, inexact_resume: bool
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.progress = progress
        self.inexact_resume = inexact_resume
        self.notices = list(recipe.notices)
        self.main = processes.is_main_process()
        self.start = time.perf_counter()

    def whole(self, resume: bool) -> RunResult:
        recipe = self.recipe
        build_arguments(recipe, self.folder.checkpoints)  # refuses bad ones before the long steps
        self._record()
        self.progress.stage("Loading data and tokenizer")
        tokenizer = load_tokenizer(recipe)
        tokens = tokenize(load_data(recipe), tokenizer, recipe)
        self.progress.stage("Loading the base model")
        base = load_base(recipe, tokenizer)
        check_prompts(base, tokenizer, recipe)
        situation = library_bugs.Situation(recipe=recipe, base=base, device=choose_device(recipe))
        bugs = library_bugs.active_bugs(situation)
        model = wrap(base, recipe)
        checkpoint = self._checkpoint(resume, bugs)
        trained = _Trained(self, model, tokens, tokenizer, checkpoint)
        trained.train()
        reloaded = trained.saved_and_loaded()
        result = trained.result(bugs, reloaded)
        if self.main:
            self._finish(result)
        processes.wait_for_all()
        return result

    def _record(self) -> None:
        """What the run is, before anything long begins."""
        self._notice_precision()
        if not self.main or self.folder.recipe.exists():
            return
        write_text(self.folder.recipe, dump_recipe(with_defaults(self.recipe)))
        here = environment.current().to_dict()
        seed = self.recipe.training.get("seed", 42)
        self.folder.write_json("environment.json", {**here, "seed": seed})

    def _notice_precision(self) -> None:
        if choose_device(self.recipe) != "cpu":
            return
        if (self.recipe.quantization or Arguments()).get("bnb_4bit_compute_dtype") == "float16":
            self.notices.append(
                "quantization.bnb_4bit_compute_dtype: 4-bit layers computed in float32 on this CPU"
            )
        if self.recipe.training.get("fp16"):
            self.notices.append(
                "training.fp16 has no effect on a CPU: this run was in float32, and says nothing "
                "about how fp16 goes"
            )

    def _checkpoint(self, resume: bool, bugs: tuple[Any, ...]) -> Checkpoint | None:
        if not resume:
            return None
        self._compare_versions()
        checkpoint = self.folder.last_checkpoint()
        if checkpoint is None:
            self.notices.append("there was no complete checkpoint: training began anew")
            return None
        state = json.loads((checkpoint.folder / "trainer_state.json").read_text(encoding="utf-8"))
        past_first_epoch = float(state.get("epoch") or 0) >= 1
        repeats = any(bug.slug == "resume-repeats-data" for bug in bugs)
        if past_first_epoch and repeats and not self.inexact_resume:
            raise ResumeRefused(
                f"{checkpoint.folder} lies behind the first epoch, and the installed transformers "
                f"{environment.installed_version('transformers')} would go on with rows in another "
                "order (resume-repeats-data, huggingface/transformers#40691).",
                next_step="Upgrade to transformers 5, or accept another result with "
                "--inexact-resume.",
            )
        self.progress.note(f"Going on from {checkpoint.folder.name}")
        library_bugs.mend_torch_load()
        return checkpoint

    def _compare_versions(self) -> None:
        then = (self.folder.read_json("environment.json") or {}).get("versions", {})
        now = environment.current().versions
        changed = [
            f"{name} {then[name]} → {now.get(name, 'none')}"
            for name in then
            if now.get(name) != then[name]
        ]
        if changed:
            self.notices.append(f"resumed with other versions: {', '.join(changed)}")

    def _finish(self, result: RunResult) -> None:
        from ftcheck.pipeline.curve import draw_loss_curve

        draw_loss_curve(self.folder.metrics, self.folder.loss_curve)
        self.folder.write_json(
            "generated.json",
            {"samples": [dataclasses.asdict(sample) for sample in result.samples]},
        )
        self.folder.write_json("summary.json", result.to_dict())


class _Trained:
    """The model of a run, before and after its training."""

    def __init__(
        self,
        owner: _Run,
        model: Any,
        tokens: TokenizedData,
        tokenizer: PreTrainedTokenizerBase,
        checkpoint: Checkpoint | None,
    ) -> None:
        from ftcheck.pipeline import watch

        self.run, self.recipe, self.folder = owner, owner.recipe, owner.folder
        self.model, self.tokens, self.tokenizer = model, tokens, tokenizer
        self.checkpoint = checkpoint
        self.parameters = count_parameters(model)
        self.biases = library_bugs.quantized_biases(model)
        self.clock = watch.StepClock()
        self.interruption = watch.Interruption(owner.progress)
        callbacks = [self.clock, self.interruption, watch.ProgressCallback(owner.progress)]
        if owner.main:
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
        self.run.progress.stage("Training")
        begun = time.perf_counter()
        with self.interruption.listening():
            self._train()
        self.seconds = time.perf_counter() - begun
        if self.interruption.requested:
            raise Interrupted(self.folder.root, self.folder.last_checkpoint())
        self.run.progress.stage("Evaluating")
        self.after = evaluate(self.trainer)

    def _look_before(self) -> None:
        """Loss and text of the base; a resumed run has them from its first start."""
        kept = self.folder.read_json("before.json") if self.checkpoint else None
        if kept is not None:
            self.before = Evaluation(**kept["evaluation"]) if kept["evaluation"] else None
            self.texts_before = tuple(kept["texts"])
            return
        self.run.progress.stage("Evaluating and generating before training")
        self.before = evaluate(self.trainer)
        if self.run.main:
            self.texts_before = generate(self.model, self.tokenizer, self.recipe)
            evaluation = dataclasses.asdict(self.before) if self.before else None
            self.folder.write_json(
                "before.json", {"evaluation": evaluation, "texts": self.texts_before}
            )

    def _train(self) -> None:
        if self.checkpoint is None:
            self.trainer.train()
            return
        if self._is_last(self.checkpoint):
            # Resuming a run that is at its last step would train one step more.
            self._load_weights(self.checkpoint.folder)
            return
        self.trainer.train(resume_from_checkpoint=str(self.checkpoint.folder))

    def _is_last(self, checkpoint: Checkpoint) -> bool:
        state = self._state(checkpoint.folder)
        return checkpoint.step >= int(state["max_steps"])

    def _state(self, folder: Path) -> dict[str, Any]:
        text = (folder / "trainer_state.json").read_text(encoding="utf-8")
        state: dict[str, Any] = json.loads(text)
        return state

    def _load_weights(self, folder: Path) -> None:
        from safetensors.torch import load_file
        from transformers import TrainerState

        self.trainer.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        best = self.trainer.state.best_model_checkpoint
        if self.trainer.args.load_best_model_at_end and best is not None:
            folder = Path(best)
        weights: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights.update(load_file(file))
        if self.recipe.lora is None:
            self.model.load_state_dict(weights, strict=False)  # tied weights are saved once
        else:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.model, weights)

    def saved_and_loaded(self) -> saving.ReloadComparison | None:
        """Save, load again, compare, generate; on rank 0 only."""
        comparison = None
        if self.run.main:
            self.run.progress.stage("Saving and loading again")
            # Out of the autocast that accelerate wraps `forward` in: what is loaded has none.
            self.model = self.trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            library_bugs.mend_biases(self.biases)
            rows = self.tokens.evaluation or self.tokens.train
            trained = saving.probe_logits(self.model, rows)
            base = saving.base_probe_logits(self.model, rows)
            saving.save(self.model, self.tokenizer, self.recipe, self.folder.adapter)
            self._let_go()
            loaded, tokenizer = saving.reload(self.recipe, self.folder.adapter)
            again = saving.probe_logits(loaded, rows)
            comparison = saving.compare(trained, again, base, self.recipe)
            self.run.progress.stage("Generating")
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
            notices=tuple(self.run.notices),
            environment=environment.current(),
            seconds=time.perf_counter() - self.run.start,
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
