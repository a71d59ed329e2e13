"""FT40x: arguments of training, schedule and optimizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ftcheck.checks.facts import Setup
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen
from ftcheck.units import format_bytes

__all__: list[str] = []

_ADAPTIVE: Final = ("adam", "lion", "ademamix", "lamb")
_GIB: Final = 2**30
_LOWER: Final = frozenset({"loss", "perplexity", "ppl", "wer", "cer", "mse", "mae", "rmse", "nll"})
_HIGHER: Final = frozenset(
    {
        "accuracy",
        "acc",
        "f1",
        "bleu",
        "rouge",
        "rouge1",
        "rouge2",
        "rougel",
        "precision",
        "recall",
        "sacrebleu",
        "meteor",
        "auc",
    }
)
"""Words of metrics whose names say which way is better."""


@check("FT401", "optimizer-lacks-parameters", Level.STEP, Severity.ERROR)
def lacks(self: Check, seen: Seen) -> Iterator[Finding]:
    """The optimizer does not hold parameters that are to be trained.

    It was made before the adapter was put on the model, or from another model.

    Bad:

        optimizer = AdamW(model.parameters())
        model = get_peft_model(model, config)

    Good: the other way round, or let `Trainer` make it.
    """
    held = seen.need("training").in_optimizer
    if held is None:
        raise NotMeasured("no step was run")
    missing = [
        one.name for one in seen.need("setup").trainable if one.name not in held and not one.tied_to
    ]
    if missing:
        whole = len([one for one in seen.need("setup").trainable if not one.tied_to])
        yield self.finding(
            f"the optimizer lacks {len(missing)} of {whole} parameters that are to be trained",
            evidence=missing[:3],
            key="training",
            fix="Make the optimizer from the parameters of the wrapped model.",
            severity=None if 2 * len(missing) >= whole else Severity.WARNING,
        )


@check("FT402", "optimizer-holds-frozen", Level.STEP, Severity.NOTE)
def holds_frozen(self: Check, seen: Seen) -> Iterator[Finding]:
    """The optimizer holds parameters that are not trained.

    Without gradients they stay as they are, and take no state.

    Bad: `AdamW(model.parameters())` on a model with a frozen base.

    Good: `AdamW(p for p in model.parameters() if p.requires_grad)`
    """
    setup = seen.need("setup")
    held = seen.need("training").in_optimizer or frozenset()
    frozen = [one.name for one in setup.parameters if not one.trainable and one.name in held]
    foreign = "?" in held
    if frozen or foreign:
        what = f"{len(frozen)} frozen parameters" if frozen else "parameters of another model"
        yield self.finding(f"the optimizer holds {what}", evidence=frozen[:3], key="training")


@check("FT403", "learning-rate-zero", Level.STATIC, Severity.ERROR)
def zero(self: Check, seen: Seen) -> Iterator[Finding]:
    """The learning rate is zero, or so small that nothing moves.

    From 1e-8 down an update of AdamW is below the rounding of float32 weights of size 0.1. Of a
    loop of the script's own: the rate was not zero, and is so from one of its first steps on.

    Bad: `learning_rate=0.0`; a schedule that is told epochs, and stepped after each batch.

    Good: 1e-4 to 3e-4 for LoRA, 1e-5 to 5e-5 for all parameters.
    """
    setup = seen.need("setup")
    rates = seen.record.rates if seen.record is not None else ()
    if any(rates) and len(rates) > 2 and not any(rates[-2:]):
        steps = max(number for number, rate in enumerate(rates, 1) if rate)
        yield self.finding(
            f"the learning rate is 0 after {steps} steps: nothing is learned from then on",
            evidence=[", ".join(f"{rate:.3g}" for rate in rates)],
            key="training",
            fix="Tell the scheduler the optimizer steps of the whole run: epochs × batches ÷ "
            "accumulation.",
        )
        return
    if setup.optimizer_given:
        raise NotApplicable("the trainer was given an optimizer")
    rate = float(setup.arguments.get("learning_rate") or 0.0)
    if rate <= 1e-8:
        yield self.finding(
            f"learning_rate is {rate:g}: nothing is learned",
            key="training.learning_rate",
            fix="Set it to 2e-4 for LoRA, 5e-5 for all parameters.",
            change={"training.learning_rate": 2e-4 if setup.adapters else 5e-5},
        )


@check("FT404", "learning-rate-too-high", Level.STATIC, Severity.ERROR)
def high(self: Check, seen: Seen) -> Iterator[Finding]:
    """A learning rate that moves every weight by more than its size in some steps.

    A step of an Adam moves each weight by about the rate; weights of transformers are of the size
    0.02. An error from 0.1 on, for these optimizers. Lower rates are judged by what they do (FT409,
    FT420).

    Bad: `learning_rate=0.5`, or `2` where `2e-4` was meant.

    Good: 2e-4 for LoRA.
    """
    setup = seen.need("setup")
    if setup.optimizer_given:
        raise NotApplicable("the trainer was given an optimizer")
    rate, name = float(setup.arguments.get("learning_rate") or 0.0), str(setup.arguments["optim"])
    if rate >= 0.1 and any(part in name for part in _ADAPTIVE):
        yield self.finding(
            f"learning_rate is {rate:g} with {name}: each step moves every weight by that much",
            key="training.learning_rate",
            fix="Set it to 2e-4 for LoRA, 5e-5 for all parameters.",
            change={"training.learning_rate": 2e-4 if setup.adapters else 5e-5},
        )


@check("FT405", "warmup-takes-the-run", Level.STEP, Severity.WARNING)
def warmup(self: Check, seen: Seen) -> Iterator[Finding]:
    """Half of the run or more is spent before the learning rate is reached.

    The rate counts as reached where the schedule is at its highest.

    Bad: `warmup_steps=500` in a run of 250 steps: it ends at half of its rate.

    Good: `warmup_ratio=0.03`
    """
    training = seen.need("training")
    if not training.schedule or not training.steps:
        raise NotMeasured("the number of steps is not known before training")
    schedule = training.schedule
    peak = max(schedule)
    setup = seen.need("setup")
    wanted = float(setup.arguments.get("learning_rate") or 0.0)
    share = schedule.index(peak) / len(schedule)
    short = not setup.optimizer_given and wanted > 0 and peak < 0.95 * wanted
    if (share >= 0.5 and training.steps > 2 and schedule[0] < 0.5 * peak) or (
        short and training.steps > 2 and share >= 0.5
    ):
        yield self.finding(
            f"the warm-up does not end within the {training.steps} steps: the rate gets to "
            f"{peak:.2g} of {wanted:.2g}"
            if short
            else f"{100 * share:.0f} % of the {training.steps} steps are warm-up",
            key="training.warmup_steps",
            fix="Set warmup_steps to a few percent of the steps.",
            change={"training.warmup_steps": max(1, training.steps // 30)},
        )


@check("FT406", "too-few-steps", Level.STEP, Severity.ERROR)
def too_few(self: Check, seen: Seen) -> Iterator[Finding]:
    """The run has no optimizer step, or an epoch is too short for one.

    A run of one step is a note: it may be meant, to try whether a script runs. LoRA's A does not
    move in it, since its gradient is zero as long as B is.

    Bad: 16 rows, `per_device_train_batch_size=8` and `gradient_accumulation_steps=64`.

    Good: rows ÷ (batch × accumulation) × epochs of some hundreds.
    """
    training = seen.need("training")
    setup = seen.need("setup")
    if training.steps is None:
        raise NotMeasured("the number of steps is not known before training")
    batches = seen.batches.batches if seen.batches is not None else None
    accumulation = int(setup.arguments.get("gradient_accumulation_steps") or 1)
    if training.steps == 0:
        yield self.finding(
            "the run has no optimizer step",
            key="training",
            fix="Give more rows, or set num_train_epochs higher.",
        )
    elif seen.real_data and batches is not None and accumulation > batches and batches > 0:
        yield self.finding(
            f"an epoch has {batches} batches, and {accumulation} of them make a step: "
            f"{training.steps} steps in all",
            key="training.gradient_accumulation_steps",
            fix="Accumulate less, or train longer.",
            severity=Severity.WARNING,
        )
    elif seen.real_data and training.steps == 1:
        yield self.finding(
            "the run has one optimizer step",
            key="training",
            fix="Train longer, if it is to learn.",
            severity=Severity.NOTE,
        )


@check("FT417", "batch-size-found-anew", Level.STATIC, Severity.NOTE)
def auto_batch(self: Check, seen: Seen) -> Iterator[Finding]:
    """`auto_find_batch_size` halves the batch when memory runs out, and leaves the accumulation.

    The effective batch, the steps and the schedule change with what else is on the card.

    Bad: `auto_find_batch_size=True` in a run that is to be repeated.

    Good: a fixed size that fits: `ftcheck vram --max-batch`.
    """
    setup = seen.need("setup")
    if setup.arguments.get("auto_find_batch_size"):
        yield self.finding(
            "auto_find_batch_size changes the effective batch with the free memory",
            key="training.auto_find_batch_size",
            fix="Set the largest batch that fits: ftcheck vram --max-batch.",
        )


@check("FT418", "eval-keeps-logits", Level.DATA, Severity.WARNING)
def keeps_logits(self: Check, seen: Seen) -> Iterator[Finding]:
    """`compute_metrics` gets the logits of all evaluation rows at once.

    They are kept in memory: rows × tokens × vocabulary × 4 bytes. A warning from 4 GiB on.

    Bad: `Trainer(compute_metrics=...)` with 1,000 rows of 512 tokens: 103 GB.

    Good: `preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1)`
    """
    setup = seen.need("setup")
    if not setup.compute_metrics or setup.preprocess_logits:
        raise NotApplicable("logits are not kept")
    if setup.arguments.get("prediction_loss_only") or setup.arguments.get("batch_eval_metrics"):
        raise NotApplicable("logits are not kept")
    if setup.eval_rows is None or seen.eval_batches is None or not seen.eval_batches.rows:
        raise NotMeasured("the evaluation rows were not looked at")
    rows = seen.eval_batches.rows
    length = sum(len(row.ids) for row in rows) / len(rows)
    size = int(setup.eval_rows * length * setup.embedding_rows * 4)
    if size >= 4 * _GIB:
        yield self.finding(
            f"evaluating keeps {format_bytes(size)} of logits for compute_metrics",
            evidence=[
                f"{setup.eval_rows:,} rows × {length:.0f} × {setup.embedding_rows:,} × 4 bytes"
            ],
            key="training",
            fix="Give preprocess_logits_for_metrics, such as an argmax.",
        )


def _best_metric(setup: Setup) -> str:
    """The metric by which the best checkpoint is chosen.

    Raises:
        NotApplicable: None is.
    """
    wanted = setup.arguments.get("metric_for_best_model")
    if not wanted:
        raise NotApplicable("no metric is asked for")
    if not (setup.arguments.get("load_best_model_at_end") or setup.early_stopping):
        raise NotApplicable("no best checkpoint is chosen")
    return str(wanted)


@check("FT419", "best-metric-missing", Level.STEP, Severity.ERROR)
def best_metric(self: Check, seen: Seen) -> Iterator[Finding]:
    """The best checkpoint is chosen by a metric that evaluating does not report.

    `KeyError: The metric_for_best_model training argument is set to 'eval_...', which is not
    found`, after the first evaluation.

    Bad: `metric_for_best_model="accuracy"` without `compute_metrics`.

    Good: `metric_for_best_model="eval_loss"`
    """
    setup = seen.need("setup")
    wanted = _best_metric(setup)
    name = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
    reported = seen.need("training").eval_metrics
    if reported is None:
        if setup.eval_rows is None:
            yield self.finding(
                f"metric_for_best_model is {wanted!r}, and there are no rows to evaluate on",
                key="training.metric_for_best_model",
                fix="Give an evaluation set.",
            )
            return
        raise NotMeasured("nothing was evaluated")
    if name not in reported:
        yield self.finding(
            f"metric_for_best_model is {wanted!r}, and evaluating reports no {name}",
            evidence=[f"reported: {', '.join(reported)}"],
            key="training.metric_for_best_model",
            fix='Set it to "eval_loss", or report it from compute_metrics.',
            change={"training.metric_for_best_model": "eval_loss"},
        )


@check("FT428", "best-metric-backwards", Level.STATIC, Severity.ERROR)
def backwards(self: Check, seen: Seen) -> Iterator[Finding]:
    """The worst checkpoint is kept as the best: `greater_is_better` is the wrong way round.

    Losses, perplexities and error rates are better when lower; accuracy, F1, BLEU and ROUGE when
    higher. Left out, the library takes every metric for the greater the better whose name does not
    end in "loss": perplexity, too.

    Bad: `metric_for_best_model="eval_loss", greater_is_better=True`

    Good: `greater_is_better=False`, or left out for a loss.
    """
    setup = seen.need("setup")
    wanted = _best_metric(setup)
    greater = setup.arguments.get("greater_is_better")
    words = set(re.split(r"[^a-z0-9]+", wanted.lower()))
    lower, higher = bool(words & _LOWER), bool(words & _HIGHER)
    if greater is None or lower == higher or bool(greater) == higher:
        return
    yield self.finding(
        f"{wanted} is better when it is {'lower' if lower else 'higher'}, and greater_is_better is "
        f"{bool(greater)}: the worst checkpoint is kept",
        key="training.greater_is_better",
        fix=f"Set greater_is_better={higher}.",
        change={"training.greater_is_better": higher},
    )


@check("FT421", "eval-loss-missing", Level.STEP, Severity.ERROR)
def eval_loss(self: Check, seen: Seen) -> Iterator[Finding]:
    """Evaluating reports no `eval_loss`.

    `label_names` does not name the labels, or peft hides the model's signature (no `task_type`, up
    to transformers 4.52).

    Bad: `label_names=["label"]` with rows that have `labels`.

    Good: `label_names=["labels"]`, and `LoraConfig(task_type="CAUSAL_LM")`.
    """
    training = seen.need("training")
    if training.eval_metrics is None:
        raise NotApplicable("nothing is evaluated")
    if not any(name.endswith("_loss") for name in training.eval_metrics):
        yield self.finding(
            "evaluating reports no eval_loss",
            evidence=[
                f"reported: {', '.join(training.eval_metrics)}",
                f"label_names: {list(seen.need('setup').label_names)}",
            ],
            key="training.label_names",
            fix='Set label_names=["labels"].',
            change={"training.label_names": ["labels"]},
        )
    elif training.eval_loss is not None and training.eval_loss != training.eval_loss:
        yield self.finding(
            "eval_loss is NaN",
            key=seen.held_out_key,
            fix="Look for evaluation rows without any label.",
        )


@check("FT422", "best-checkpoint-unprotected", Level.STATIC, Severity.NOTE)
def best_deleted(self: Check, seen: Seen) -> Iterator[Finding]:
    """`save_total_limit` deletes checkpoints, and nothing says which is the best.

    A warning where early stopping is on, which ends after the best is gone.

    Bad: `save_total_limit=1, eval_strategy="steps"`

    Good: the same with `load_best_model_at_end=True`.
    """
    setup = seen.need("setup")
    arguments: Any = setup.arguments
    limit = arguments.get("save_total_limit")
    evaluates = arguments.get("eval_strategy", arguments.get("evaluation_strategy", "no")) != "no"
    if limit and evaluates and not arguments.get("load_best_model_at_end"):
        yield self.finding(
            f"save_total_limit is {limit}, and the best checkpoint is deleted with the others",
            key="training.save_total_limit",
            fix="Set load_best_model_at_end=True.",
            change={"training.load_best_model_at_end": True},
            severity=Severity.WARNING if setup.early_stopping else None,
        )


@check("FT427", "warmup-of-one-step", Level.STATIC, Severity.WARNING)
def warmup_of_one(self: Check, seen: Seen) -> Iterator[Finding]:
    """A warm-up of 1.0 is one step, not the whole run.

    `warmup_steps` takes a share below 1 and steps from 1 on (transformers 5): 1.0 is on the side of
    steps.

    Bad: `warmup_ratio=1.0`, `warmup_steps=1.0`

    Good: `warmup_steps=0.03` for a share, an integer for steps.
    """
    setup = seen.need("setup")
    for name in ("warmup_steps", "warmup_ratio"):
        value = setup.arguments.get(name)
        if isinstance(value, float) and value == 1.0:
            yield self.finding(
                f"{name} is 1.0, which is one step, not the whole run",
                key=f"training.{name}",
                fix="Write 1 for one step, or a share below 1.",
            )
