"""A few steps of the subject's own `Trainer.train()`, watched; then saving and loading again."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ftcheck.checks.facts import Reload, Training
from ftcheck.checks.observe.batch import at_highest_rate, dropouts, without_packing
from ftcheck.checks.observe.isolation import failure_of
from ftcheck.checks.observe.reload import base_of, see_reload
from ftcheck.checks.observe.subject import Subject, held_out, length_of
from ftcheck.pipeline.training import cut_short

__all__ = ["see_losses", "see_training"]

_STEPS: Final = 3
"""With B = 0 the first step moves B alone: two are needed to move A, and one more to see it."""
_ACCUMULATION: Final = 2
_SAMPLED: Final = 4096
_SCHEDULE_POINTS: Final = 2000
_EVAL_ROWS: Final = 16
_FEWEST: Final = 16
"""Elements with a gradient from which it can be told whether they move."""


def see_training(
    subject: Subject, folder: Path, *, reload: bool = True
) -> tuple[Training, Reload | None]:
    """Train a few steps, evaluate, save and load; only in a fork."""
    seen: dict[str, Any] = {}
    trainer = subject.trainer
    try:
        _see_schedule(subject, seen)
        _in_small(trainer, folder)
        start = base_of(trainer.model)
        _train(trainer, seen)
        seen |= _changes(trainer)
    except Exception as error:  # noqa: BLE001 - what the user's training raises is a result
        seen["failure"] = failure_of(error, "training")
        return Training(**seen), None
    if trainer.eval_dataset is not None:
        try:
            _evaluate(trainer, seen)
        except Exception as error:  # noqa: BLE001 - the same
            seen["failure"] = failure_of(error, "evaluating")
    return Training(**seen), see_reload(subject, folder, start) if reload else None


def see_losses(subject: Subject, folder: Path) -> tuple[float, ...]:
    """Losses of the same steps, from the same start; only in a fork."""
    seen: dict[str, Any] = {}
    _see_schedule(subject, seen)
    _in_small(subject.trainer, folder)
    _train(subject.trainer, seen)
    return tuple(seen["losses"])


# ------------------------------------------------------------------------ the schedule


def _see_schedule(subject: Subject, seen: dict[str, Any]) -> None:
    """Learning rate over the whole run, from the schedule itself."""
    trainer = subject.trainer
    steps = _steps(trainer, subject.row_scale)
    seen["steps"] = steps
    if steps is None or steps < 1:
        return
    if trainer.optimizer is None:
        trainer.create_optimizer()
    if trainer.lr_scheduler is None:
        trainer.create_scheduler(num_training_steps=steps, optimizer=trainer.optimizer)
    seen["schedule"] = tuple(_rates(trainer.lr_scheduler, steps))


def _steps(trainer: Any, scale: float) -> int | None:
    """Optimizer steps of the whole run, as `Trainer` counts them."""
    arguments = trainer.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = length_of(trainer.get_train_dataloader())
    if batches is None:
        return None
    an_epoch = math.ceil(batches * scale / max(1, arguments.gradient_accumulation_steps))
    steps: int = math.ceil(arguments.num_train_epochs * an_epoch)
    return steps


def _rates(scheduler: Any, steps: int) -> Iterator[float]:
    lambdas, base = getattr(scheduler, "lr_lambdas", None), getattr(scheduler, "base_lrs", None)
    points = min(steps, _SCHEDULE_POINTS)
    if lambdas and base:
        for point in range(points):
            yield float(base[0] * lambdas[0](point * steps // points))
        return
    if not hasattr(scheduler, "get_last_lr"):
        return
    for _ in range(points):  # another kind has to be stepped through
        yield float(scheduler.get_last_lr()[0])
        try:
            scheduler.step()
        except TypeError:  # one that wants metrics
            return


# ------------------------------------------------------------------------ training


def _in_small(trainer: Any, folder: Path) -> None:
    """A few steps at the highest rate, with nothing written anywhere but to `folder`."""
    import torch

    cut_short(trainer, _STEPS)
    without_packing(trainer.model)
    arguments = trainer.args
    for name, value in _CHANGES.items():
        if hasattr(arguments, name):
            old = getattr(arguments, name)
            kind = type(old) if hasattr(old, "value") else (lambda plain: plain)
            setattr(arguments, name, kind(value))
    arguments.output_dir = str(folder / "out")
    accumulated = min(arguments.gradient_accumulation_steps, _ACCUMULATION)
    arguments.gradient_accumulation_steps = accumulated
    if getattr(trainer, "model_init", None) is not None:
        trainer.model_init = None  # `train` would make another model than the one watched
    _forget_reports(trainer)
    optimizer = at_highest_rate(trainer)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


_CHANGES: Final[dict[str, Any]] = {
    "logging_strategy": "no",
    "push_to_hub": False,
    "dataloader_num_workers": 0,
    "disable_tqdm": True,
    "torch_compile": False,
    "auto_find_batch_size": False,
    "do_eval": False,
    "dataloader_persistent_workers": False,
    "dataloader_prefetch_factor": None,
    "dataloader_pin_memory": False,
    "jit_mode_eval": False,
}


def _forget_reports(trainer: Any) -> None:
    """Take out callbacks that report to services and that print."""
    for callback in list(trainer.callback_handler.callbacks):
        kind = type(callback)
        printing = kind.__name__ in ("PrinterCallback", "ProgressCallback")
        if printing or kind.__module__.startswith("transformers.integrations"):
            trainer.remove_callback(callback)


def _train(trainer: Any, seen: dict[str, Any]) -> None:
    model, optimizer = trainer.model, trainer.optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    seen["in_optimizer"] = frozenset(names.get(id(one), "?") for one in held)
    gradients: dict[str, float] = {}
    reached: dict[str, Any] = {}
    trainer._ftcheck_reached = reached
    losses: list[float] = []

    def before_step(*_: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                norm = 0.0 if parameter.grad is None else float(parameter.grad.float().norm())
                if parameter.grad is not None:
                    there = _sample(parameter.grad) != 0
                    reached[name] = there | reached.get(name, there)
                if name not in gradients or not gradients[name] >= norm:  # NaN stays
                    gradients[name] = norm

    optimizer.register_step_pre_hook(before_step)
    inner = trainer.training_step

    def watched(*arguments: Any, **named: Any) -> Any:
        loss = inner(*arguments, **named)
        losses.append(float(loss))
        if len(losses) == 1:
            seen["dropout_off"] = tuple(_dropouts(model, training=False))
        return loss

    trainer.training_step = watched
    trainer._ftcheck_before = {name: _sample(one) for name, one in model.named_parameters()}
    trainer.train()
    trainer.training_step = inner
    seen["losses"], seen["gradients"] = tuple(losses), gradients


def _dropouts(model: Any, *, training: bool) -> Iterator[str]:
    return (name for name, module in dropouts(model) if module.training is training)


def _sample(parameter: Any) -> Any:
    """Some elements of a parameter, evenly."""
    flat = parameter.detach().reshape(-1)
    step = max(1, flat.numel() // _SAMPLED)
    taken = flat[::step].clone()
    return taken.float() if taken.is_floating_point() else taken


def _changes(trainer: Any) -> dict[str, Any]:
    """How far parameters went, and whether they are finite."""
    import torch

    before, reached = trainer._ftcheck_before, trainer._ftcheck_reached
    rounded: dict[str, float] = {}
    moved: dict[str, float] = {}
    changed: list[str] = []
    finite = True
    for name, parameter in trainer.model.named_parameters():
        old, new = before.get(name), _sample(parameter)
        if old is None or old.shape != new.shape or not new.is_floating_point():
            continue
        if parameter.requires_grad:
            finite = finite and bool(torch.isfinite(new).all())
            size = float(old.norm())
            moved[name] = float((new - old).norm()) / (size if size > 0 else 1.0)
            there = reached.get(name)
            if there is not None and int(there.sum()) >= _FEWEST:
                rounded[name] = float((new == old)[there].float().mean())
        elif not torch.equal(old, new):
            changed.append(name)
    return {
        "rounded": rounded,
        "moved": moved,
        "changed_frozen": tuple(changed),
        "finite": finite,
    }


# ------------------------------------------------------------------------ evaluating


def _evaluate(trainer: Any, seen: dict[str, Any]) -> None:
    several = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {}
    model, inner = trainer.model, trainer.prediction_step

    def watched(*arguments: Any, **named: Any) -> Any:
        step = inner(*arguments, **named)
        if "dropout_on_in_eval" not in seen:
            seen["dropout_on_in_eval"] = tuple(_dropouts(model, training=True))
        return step

    trainer.prediction_step = watched
    metrics = trainer.evaluate(eval_dataset=_few(held_out(trainer)))
    trainer.prediction_step = inner
    named = [metric.replace("eval_", f"eval_{one}_", 1) for one in several for metric in metrics]
    seen["eval_metrics"] = tuple(named) if several else tuple(metrics)
    loss = metrics.get("eval_loss")
    seen["eval_loss"] = None if loss is None else float(loss)
    gc.collect()


def _few(rows: Any) -> Any:
    import torch

    count = length_of(rows)
    if count is None:
        return rows.take(_EVAL_ROWS) if hasattr(rows, "take") else rows
    few = range(min(count, _EVAL_ROWS))
    return rows.select(few) if hasattr(rows, "select") else torch.utils.data.Subset(rows, few)
