"""FT407 to FT416, FT420 and FT423 to FT426: what losses, gradients and a few steps show, on live
trainers, from both sides of each limit."""

from __future__ import annotations

import dataclasses
import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcheck.checks.facts import Learning, Training
from ftcheck.checks.finding import Level, Severity, Status
from ftcheck.checks.observe.looking import look_at
from ftcheck.subjects.trainer import trainer_subject
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, judged, lora, rows, trainer

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
"""What the libraries say of such trainers is not what is tested here."""

Loss = Callable[..., Any]
"""Of a trainer, a model, inputs, and the further arguments of `compute_loss`."""

How = Callable[[], dict[str, Any]]
"""Gives arguments of a trainer."""

# ------------------------------------------------------------------------ subclasses and losses


def kind(**methods: Any) -> Any:
    """A subclass of `Trainer`."""
    from transformers import Trainer

    return type("Own", (Trainer,), methods)


def with_loss(loss: Loss) -> Any:
    """A subclass of `Trainer` with a loss of its own."""

    def compute_loss(
        self: Any, model: Any, inputs: Any, return_outputs: bool = False, **more: Any
    ) -> Any:
        return loss(self, model, inputs, return_outputs=return_outputs, **more)

    return kind(compute_loss=compute_loss)


def inherited(trainer: Any, *given: Any, **more: Any) -> Any:
    from transformers import Trainer

    return Trainer.compute_loss(trainer, *given, **more)


def times(factor: float) -> Any:
    return with_loss(lambda *given, **more: inherited(*given, **more) * factor)


def unshifted(smoothing: float, by: int = 0) -> Any:
    """A loss that compares logits with the tokens so many places further on."""
    from torch.nn.functional import cross_entropy

    def loss(_: Any, model: Any, inputs: Any, **__: Any) -> Any:
        logits = model(input_ids=inputs["input_ids"]).logits
        logits, labels = logits[:, : logits.shape[1] - by], inputs["labels"][:, by:]
        return cross_entropy(logits.transpose(1, 2), labels, label_smoothing=smoothing)

    return with_loss(loss)


UNDIVIDED = with_loss(lambda _, model, inputs, **__: model(**inputs).loss)
FLAT = with_loss(lambda _, model, inputs, **__: 0.0 * model(**inputs).logits.sum())
DETACHED = with_loss(lambda *given, **more: inherited(*given, **more).detach())


def switching(mode: bool, *, back: bool = False) -> Any:
    """A loss that puts the model into a mode, and perhaps back again."""

    def loss(trainer: Any, model: Any, *given: Any, **more: Any) -> Any:
        was = model.training
        model.train(mode)
        model.train(was if back else mode)
        return inherited(trainer, model, *given, **more)

    return with_loss(loss)


def predicting_in_training_mode(trainer: Any, model: Any, *given: Any, **more: Any) -> Any:
    from transformers import Trainer

    model.train()
    return Trainer.prediction_step(trainer, model, *given, **more)


def gone(*_: Any) -> Any:
    raise KeyError("gone")


# ------------------------------------------------------------------------ models


def exact() -> Any:
    """A model whose loss the library divides by the labels that count."""
    model = base()
    model.loss_type = "ForCausalLM"
    return lora(model)


def cut(model: Any) -> Any:
    """The model, with what comes out of its first layer cut off from the graph."""

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return output.detach() if isinstance(output, torch.Tensor) else (output[0].detach(),)

    (layer,) = (one for name, one in model.named_modules() if name.endswith("transformer.h.0"))
    layer.register_forward_hook(hook)
    return model


def mixing(share: float) -> Any:
    """A model that adds some of each row's logits to those of the next row."""
    model = base()
    model.lm_head.register_forward_hook(lambda _, __, out: out + share * out.roll(1, 0))
    return lora(model)


def filled(value: float) -> Any:
    """A model with one element of one parameter set."""
    model = lora()
    model.get_base_model().transformer.wte.weight.data[7, 3] = value
    return model


def llama() -> Any:
    """A Llama of two layers, 32 wide, whose norms have a weight of ones and nothing else."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 2048}
    heads = {"num_attention_heads": 4, "max_position_embeddings": 128}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def still() -> Any:
    """A model without dropout."""
    return lora(base(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def adding(value: float, part: str, *, full: bool = False) -> dict[str, Any]:
    """A model, and a callback that adds a value to some of its parameters."""
    from transformers import TrainerCallback

    def add(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        for name, parameter in more["model"].named_parameters():
            if part in name:
                parameter.data.add_(value)

    callback = type("Own", (TrainerCallback,), {"on_step_end": add})()
    return {"model": base() if full else lora(), "callbacks": [callback]}


# ------------------------------------------------------------------------ rows


def short(length: int) -> list[dict[str, Any]]:
    """Rows of so many tokens, all of them labels."""
    ids = [list(range(10 + number, 10 + number + length)) for number in range(24)]
    return [{"input_ids": one, "attention_mask": [1] * length, "labels": one} for one in ids]


def behind_a_prompt() -> list[dict[str, Any]]:
    """Rows whose first token is no label: the shift takes none away."""
    return [{**row, "labels": [-100, *row["labels"][1:]]} for row in rows()]


def without_labels(count: int) -> list[dict[str, Any]]:
    """Rows of which so many have no label."""
    return [
        {**row, "labels": [-100] * 48} if number < count else row
        for number, row in enumerate(rows())
    ]


def hidden(count: Callable[[], int]) -> Callable[[list[Any]], Any]:
    """A collator that takes some labels away."""
    from transformers import default_data_collator

    def collate(given: list[Any]) -> Any:
        batch = default_data_collator(given)
        batch["labels"][:, : count()] = -100
        return batch

    return collate


def at(rate: float, **more: Any) -> dict[str, Any]:
    return {"arguments": {"learning_rate": rate, **more}}


def reentrant(value: bool) -> dict[str, Any]:
    kwargs = {"use_reentrant": value}
    return at(1e-3, gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs)


EVALUATED = {"evaluation": rows()[:8]}
ERROR, WARNING, NOTE = Severity
SYSTEM = random.SystemRandom()
PLAIN_SGD = {"optim": "sgd", "max_grad_norm": 0.0}


def packed(*, masked: bool, anew: bool = True) -> dict[str, Any]:
    """Rows of two texts, with positions that begin anew or go on, and perhaps a mask of ones."""
    made = rows(length=24)
    both = [[*one["input_ids"], *other["input_ids"]] for one, other in pairwise(made)]
    row = {"position_ids": [*range(24)] * 2 if anew else [*range(48)]}
    row |= {"attention_mask": [1] * 48} if masked else {}
    return {"train": [{**row, "input_ids": ids, "labels": ids} for ids in both]}


CAUGHT: tuple[tuple[str, How, Severity, str], ...] = (
    ("FT407", lambda: {"model": exact(), "kind": UNDIVIDED}, ERROR, "gradient is 2.00 times"),
    ("FT407", lambda: {"model": exact(), "kind": times(1.41)}, ERROR, "gradient is 1.41 times"),
    ("FT407", lambda: {"model": exact(), "kind": times(0.71)}, ERROR, "gradient is 0.71 times"),
    ("FT408", lambda: {"kind": times(0.74)}, NOTE, r"loss is 5\.66\d where .* is 7\.652$"),
    ("FT408", lambda: {"kind": times(1.26)}, NOTE, r"loss is 9\.64\d where .* is 7\.652$"),
    ("FT408", lambda: {"kind": unshifted(0.0)}, ERROR, "own loss does not shift"),
    ("FT408", lambda: {"kind": unshifted(0.1)}, ERROR, "own loss does not shift"),
    ("FT408", lambda: {"kind": unshifted(0.1), "train": behind_a_prompt()}, ERROR, "not shift"),
    ("FT409", lambda: {"kind": times(-1.0)}, ERROR, r"from 7\.652. to 7\.65.. in 8 steps on it$"),
    ("FT409", lambda: {"kind": FLAT}, ERROR, r"goes from 7\.652(.) to 7\.652\1 in 8 steps"),
    ("FT410", lambda: {"model": cut(lora())}, ERROR, "no gradient reaches 1 of 2 modules"),
    ("FT410", lambda: {"model": cut(base())}, ERROR, "no gradient reaches 7 of 15 modules"),
    ("FT411", lambda: {"model": mixing(1.0)}, ERROR, "change by 58 % of the largest"),
    ("FT411", lambda: {"model": mixing(0.1)}, ERROR, "change by 7 % of the largest"),
    ("FT411", lambda: packed(masked=True), NOTE, "^texts of one row see each other"),
    ("FT412", lambda: {"train": short(10)}, NOTE, "are 10 % too small"),
    ("FT412", lambda: {"train": short(50)}, NOTE, "are 2 % too small"),
    ("FT413", lambda: {"kind": switching(False)}, WARNING, "7 dropouts are off in a training step"),
    (
        "FT414",
        lambda: {"kind": kind(prediction_step=predicting_in_training_mode), **EVALUATED},
        WARNING,
        "7 dropouts are on while evaluating",
    ),
    ("FT414", lambda: {"kind": switching(True), **EVALUATED}, WARNING, "7 dropouts are on while"),
    ("FT415", lambda: {"model": filled(float("nan"))}, ERROR, "^1 parameters hold NaN"),
    ("FT415", lambda: {"model": filled(float("-inf"))}, ERROR, "^1 parameters hold NaN"),
    (
        "FT416",
        lambda: {"data_collator": hidden(lambda: SYSTEM.randrange(1, 20))},
        WARNING,
        r"losses that differ by \d",
    ),
    ("FT420", lambda: {"model": base(), **at(1.0)}, ERROR, r"from 7\.65 to .* in 8 steps .* of 1"),
    ("FT420", lambda: {"model": base(), **at(1e3, **PLAIN_SGD)}, ERROR, "to nan in 3 steps"),
    ("FT423", lambda: {"model": base().bfloat16(), **at(1e-6)}, WARNING, "^15 of 15 modules"),
    ("FT423", lambda: {"model": llama().bfloat16(), **at(1e-3)}, WARNING, "^5 of 21 modules"),
    ("FT424", lambda: {"train": without_labels(24)}, ERROR, "^6 of 6 losses are no numbers$"),
    ("FT424", lambda: {"kind": times(float("inf"))}, ERROR, "no numbers, and neither are weights"),
    ("FT425", lambda: adding(1e-3, "ln_f"), ERROR, "^2 parameters that are not trained"),
    ("FT426", lambda: {"kind": DETACHED}, ERROR, "^training: RuntimeError: element 0 of tensors"),
    ("FT426", lambda: {"data_collator": gone}, ERROR, "^training: KeyError: 'gone'"),
    ("FT426", lambda: {"compute_metrics": gone, **EVALUATED}, ERROR, "^evaluating: KeyError"),
)

LEFT_ALONE: tuple[tuple[str, How], ...] = (
    *((code, lambda: dict(EVALUATED)) for code in sorted({case[0] for case in CAUGHT} - {"FT412"})),
    ("FT407", lambda: {"model": exact(), "kind": times(1.39)}),
    ("FT407", lambda: {"model": exact(), "kind": times(0.72)}),
    ("FT407", lambda: {"kind": UNDIVIDED, **at(1e-3, gradient_accumulation_steps=1)}),
    ("FT408", lambda: {"kind": times(0.76)}),
    ("FT408", lambda: {"kind": times(1.24)}),
    ("FT408", lambda: {"kind": UNDIVIDED}),
    ("FT408", lambda: {"kind": times(2.0), **at(1e-3, label_smoothing_factor=0.1)}),
    ("FT408", lambda: {"kind": unshifted(0.1, by=1)}),
    ("FT409", lambda: at(1e-5)),
    ("FT409", lambda: at(2e-6)),
    ("FT409", lambda: {"kind": times(-1.0), **at(9e-7)}),
    ("FT410", lambda: {"model": base()}),
    ("FT410", lambda: reentrant(True)),
    ("FT410", lambda: reentrant(False)),
    ("FT411", lambda: {"model": mixing(0.01)}),
    ("FT411", lambda: packed(masked=False)),
    ("FT411", lambda: packed(masked=True, anew=False)),
    ("FT412", lambda: {"train": short(51)}),
    ("FT412", lambda: {"train": behind_a_prompt()}),
    ("FT412", lambda: {"model": exact()}),
    ("FT412", lambda: {"kind": UNDIVIDED}),
    ("FT413", lambda: {"kind": switching(False, back=True)}),
    ("FT413", lambda: {"kind": switching(False), "model": still()}),
    ("FT414", lambda: {"kind": switching(True, back=True), **EVALUATED}),
    ("FT414", lambda: {"kind": kind(prediction_step=predicting_in_training_mode)}),
    ("FT415", lambda: {"model": filled(1e38)}),
    ("FT416", lambda: {"data_collator": hidden(lambda: int(torch.randint(1, 20, (1,))))}),
    ("FT423", lambda: {"model": llama().bfloat16(), **at(1e-2)}),
    ("FT423", lambda: {"model": base(), **at(1e-6)}),
    ("FT424", lambda: {"train": without_labels(1)}),
    ("FT424", lambda: {"kind": times(1e30)}),
    ("FT425", lambda: adding(1e-3, "lora_")),
    ("FT425", lambda: adding(0.0, "ln_f")),
    ("FT425", lambda: adding(1e-3, "ln_f", full=True)),
)


def silent(made: Any, code: str) -> bool:
    """Whether a check finds nothing, and not because it could not look."""
    outcome = check_one(made, code)
    return outcome.status in (Status.PASSED, Status.SKIPPED) and not outcome.findings


@catches(*(case[0] for case in CAUGHT))
@pytest.mark.parametrize(("code", "how", "severity", "sentence"), CAUGHT)
def test_what_is_wrong_is_said(
    tmp_path: Path, code: str, how: How, severity: Severity, sentence: str
) -> None:
    (finding,) = found(trainer(tmp_path, **how()), code)
    assert finding.severity is severity
    assert re.search(sentence, finding.sentence), finding.sentence


@leaves_alone(*(case[0] for case in LEFT_ALONE))
@pytest.mark.parametrize(("code", "how"), LEFT_ALONE)
def test_what_is_nearly_wrong_is_left_alone(tmp_path: Path, code: str, how: How) -> None:
    assert silent(trainer(tmp_path, **how()), code)


@leaves_alone("FT407")
def test_a_mean_that_the_trainer_divides_itself_is_left_alone(tmp_path: Path) -> None:
    made = trainer(tmp_path, kind=UNDIVIDED)
    made.model_accepts_loss_kwargs = False
    assert silent(made, "FT407")


# ------------------------------------------------------------------------ limits


def stepped(**seen: Any) -> Training:
    return Training(moved={"a.weight": 1.0}, in_optimizer=frozenset({"a.weight"}), **seen)


@catches("FT411", "FT416", "FT420", "FT423", "FT424")
@leaves_alone("FT411", "FT416", "FT420", "FT423", "FT424")
@pytest.mark.parametrize(
    ("code", "below", "above"),
    [
        ("FT411", Learning(leak=0.0099), Learning(leak=0.01)),
        (
            "FT416",
            stepped(losses=(2.0, 3.0), repeat=(2.0, 3.0019)),
            stepped(losses=(2.0, 3.0), repeat=(2.0, 3.0021)),
        ),
        (
            "FT420",
            Learning(start_loss=2.0, losses=(3.5, 2.89)),
            Learning(start_loss=2.0, losses=(1.5, 2.91)),
        ),
        ("FT423", stepped(rounded={"a.weight": 0.89}), stepped(rounded={"a.weight": 0.91})),
        ("FT424", stepped(losses=(1e30,)), stepped(losses=(1.0,), finite=False)),
    ],
)
def test_what_no_trainer_meets_exactly_is_judged_on_both_sides(
    tmp_path: Path, code: str, below: Learning | Training, above: Learning | Training
) -> None:
    plain = look_at(trainer_subject(trainer(tmp_path)), {Level.DATA})
    for facts, status in ((below, Status.PASSED), (above, Status.FAILED)):
        seen: dict[str, Any] = {type(facts).__name__.lower(): facts}
        outcome = judged(dataclasses.replace(plain, **seen), code)
        assert outcome.status is status, outcome.reason


@leaves_alone("FT409")
def test_a_loss_that_falls_at_the_lowest_rate_is_left_alone(tmp_path: Path) -> None:
    assert silent(trainer(tmp_path, **at(1e-6)), "FT409")


@leaves_alone("FT410")
def test_a_trained_token_that_no_row_has_is_left_alone(tmp_path: Path) -> None:
    model = lora(base(tie_word_embeddings=False), trainable_token_indices=[2000])
    assert silent(trainer(tmp_path, model=model), "FT410")


@leaves_alone("FT412")
def test_a_loss_type_that_was_set_counts_without_accumulation(tmp_path: Path) -> None:
    made = trainer(tmp_path, model=exact(), **at(1e-3, gradient_accumulation_steps=1))
    assert silent(made, "FT412")


@leaves_alone("FT416")
def test_random_of_python_is_a_generator_that_a_seed_reaches(tmp_path: Path) -> None:
    made = trainer(tmp_path, data_collator=hidden(lambda: random.randrange(1, 20)))
    assert silent(made, "FT416")


def leave(*_: Any, **__: Any) -> Any:
    raise SystemExit(3)


@leaves_alone("FT426")
@pytest.mark.parametrize("end", [leave, lambda *_, **__: os._exit(3)])
def test_training_that_ends_the_process_was_not_measured(tmp_path: Path, end: Loss) -> None:
    made = trainer(tmp_path, kind=with_loss(end))
    assert check_one(made, "FT426").status is Status.UNMEASURED
