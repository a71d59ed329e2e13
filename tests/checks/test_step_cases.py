"""Checks of what a few steps do, each from both sides, on live trainers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainerCallback

from tests.checks.cases import Build, Cases, both_sides
from tests.checks.toys import base, lora, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about what is built wrong


def of(kind: Any = None, **arguments: Any) -> Build:
    return lambda folder: trainer(folder, kind=kind, arguments=arguments, evaluation=rows()[:8])


def optimized(choose: Callable[[Any], Any]) -> Build:
    """A trainer with an optimizer that was made by hand."""

    def build(folder: Path) -> Any:
        import torch

        model = lora()
        return trainer(
            folder, model=model, optimizers=(torch.optim.AdamW(choose(model), lr=1e-3), None)
        )

    return build


def trained_ones(model: Any) -> list[Any]:
    return [one for one in model.parameters() if one.requires_grad]


class OwnLoss(Trainer):  # type: ignore[misc] # transformers has no types for it
    """`outputs.loss`, as the library would have it with `num_items_in_batch`."""

    factor = 1.0

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        loss = super().compute_loss(model, inputs, *arguments, **named)
        return loss * self.factor if not isinstance(loss, tuple) else loss


class Uphill(OwnLoss):
    factor = -1.0


class Tripled(OwnLoss):
    factor = 3.0


class PlainMean(Trainer):  # type: ignore[misc] # the same
    """The mean of each micro-batch, not divided."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class Quiet(Trainer):  # type: ignore[misc] # the same
    """Dropout off while training."""

    def compute_loss(self, model: Any, *arguments: Any, **named: Any) -> Any:
        model.eval()
        return super().compute_loss(model, *arguments, **named)


class Loud(Trainer):  # type: ignore[misc] # the same
    """Dropout on while evaluating."""

    def compute_loss(self, model: Any, *arguments: Any, **named: Any) -> Any:
        model.train()
        return super().compute_loss(model, *arguments, **named)


class Undefined(OwnLoss):
    factor = float("nan")


class Restless(Trainer):  # type: ignore[misc] # the same
    """A loss that hangs on the clock."""

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        import time

        return super().training_step(*arguments, **named) * (1 + time.monotonic_ns() % 997 / 100)


class Failing(Trainer):  # type: ignore[misc] # the same
    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        raise RuntimeError("as it would")


class WritesToBase(TrainerCallback):  # type: ignore[misc] # the same
    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        named["model"].get_base_model().transformer.ln_f.weight.data += 1.0


class Watches(TrainerCallback):  # type: ignore[misc] # the same
    """A callback that does no harm."""


def called(callback: Any) -> Build:
    return lambda folder: trainer(folder, callbacks=[callback])


def detached(layer: int | None) -> Build:
    """A block whose result is cut off from the graph."""

    def build(folder: Path) -> Any:
        model = lora()
        block = model.get_base_model().transformer.h[0 if layer is None else layer]

        def cut(module: Any, inputs: Any, output: Any) -> Any:
            if layer is None:
                return output
            return output.detach() if not isinstance(output, tuple) else (output[0].detach(),)

        block.register_forward_hook(cut)
        return trainer(folder, model=model)

    return build


def leaking(*, leaks: bool) -> Build:
    """A model whose rows see the first one."""

    def build(folder: Path) -> Any:
        model = lora()

        def mix(module: Any, inputs: Any, output: Any) -> Any:
            return output + output[:1] if leaks else output

        model.get_base_model().transformer.wte.register_forward_hook(mix)
        return trainer(folder, model=model)

    return build


def in_bfloat16(rate: float) -> Build:
    def build(folder: Path) -> Any:
        import torch

        arguments = {"learning_rate": rate, "max_grad_norm": 1.0}
        return trainer(folder, model=base().to(torch.bfloat16), arguments=arguments)

    return build


def full(rate: float) -> Build:
    return lambda folder: trainer(folder, model=base(), arguments={"learning_rate": rate})


def pretrained(*, permuted: bool) -> Build:
    """The embedded model, with its own tokens or with others."""

    def build(folder: Path) -> Any:
        from transformers import AutoModelForCausalLM

        from ftcheck.assets import model_dir

        model = AutoModelForCausalLM.from_pretrained(str(model_dir()))
        made = rows()
        for row in made if permuted else ():
            ids = [
                token if token == 2047 else (token * 811 + 13) % 2047 for token in row["input_ids"]
            ]
            row["input_ids"] = ids
            row["labels"] = [
                -100 if label == -100 else token
                for token, label in zip(ids, row["labels"], strict=True)
            ]
        return trainer(folder, model=lora(model), train=made)

    return build


BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}


def logits_kept(count: int, *, preprocessed: bool = False) -> Build:
    """As many evaluation rows as are said, of 48 tokens and 2,048 logits."""

    def build(folder: Path) -> Any:
        few = rows()
        made = list(itertools.islice(itertools.cycle(few), count))
        more: dict[str, Any] = {
            "preprocess_logits_for_metrics": lambda logits, _: logits.argmax(-1)
        }
        return trainer(
            folder, evaluation=made, compute_metrics=lambda _: {}, **(more if preprocessed else {})
        )

    return build


FOUR_GIB_ROWS = 2**32 // (48 * 2048 * 4) + 1
CASES: Cases = {
    "FT219": (pretrained(permuted=True), "error", (pretrained(permuted=False), of())),
    "FT401": (
        optimized(lambda model: model.get_base_model().transformer.wte.parameters()),
        "error",
        (optimized(trained_ones), of()),
    ),
    "FT402": (optimized(lambda model: model.parameters()), "note", (optimized(trained_ones),)),
    "FT405": (of(warmup_steps=12), "warning", (of(warmup_steps=5), of(warmup_steps=0))),
    "FT406": (of(gradient_accumulation_steps=7), "warning", (of(gradient_accumulation_steps=6),)),
    "FT407": (of(PlainMean), "error", (of(OwnLoss), of(PlainMean, gradient_accumulation_steps=1))),
    "FT408": (of(Tripled), "note", (of(OwnLoss), of())),
    "FT409": (of(Uphill), "error", (of(OwnLoss), of(learning_rate=1e-5), of(Tripled))),
    "FT410": (detached(0), "error", (detached(None), of())),
    "FT411": (leaking(leaks=True), "error", (leaking(leaks=False),)),
    "FT412": (of(), "note", (of(OwnLoss),)),
    "FT413": (of(Quiet), "warning", (of(OwnLoss),)),
    "FT414": (of(Loud), "warning", (of(OwnLoss),)),
    "FT416": (of(Restless), "warning", (of(),)),
    "FT418": (
        logits_kept(FOUR_GIB_ROWS),
        "warning",
        (logits_kept(FOUR_GIB_ROWS - 2), logits_kept(FOUR_GIB_ROWS, preprocessed=True)),
    ),
    "FT419": (
        of(**BEST, metric_for_best_model="accuracy"),
        "error",
        (of(**BEST, metric_for_best_model="loss"), of(metric_for_best_model="accuracy")),
    ),
    "FT420": (full(3.0), "error", (of(learning_rate=1e-2), of(learning_rate=1e-5))),
    "FT421": (of(label_names=["targets"]), "error", (of(),)),
    "FT423": (in_bfloat16(1e-6), "warning", (in_bfloat16(1e-2), of(learning_rate=1e-6))),
    "FT424": (of(Undefined), "error", (of(OwnLoss),)),
    "FT425": (called(WritesToBase()), "error", (called(Watches()),)),
    "FT426": (of(Failing), "error", (of(),)),
}
test_it_catches_what_is_wrong, test_it_leaves_near_misses_alone = both_sides(CASES, __name__)
