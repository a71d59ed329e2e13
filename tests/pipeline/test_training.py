from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ftcheck.errors import InputError
from ftcheck.pipeline import (
    build_trainer,
    evaluate,
    load_base,
    load_data,
    load_tokenizer,
    tokenize,
    wrap,
)
from ftcheck.pipeline.training import build_arguments
from tests.helpers.recipes import small_recipe

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def built(tmp_path: Path, *overrides: str) -> Any:
    recipe = small_recipe(*overrides)
    tokenizer = load_tokenizer(recipe)
    tokens = tokenize(load_data(recipe), tokenizer, recipe)
    model = wrap(load_base(recipe, tokenizer), recipe)
    return build_trainer(model, tokens, tokenizer, recipe, tmp_path / "checkpoints"), tokens


def true_loss(model: Any, rows: Any) -> float:
    """Mean over label tokens, row by row, from the logits alone."""
    import torch

    total, count = 0.0, 0
    model.eval()
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        labels = torch.tensor([row["labels"]])[:, 1:]
        with torch.no_grad():
            logits = model(
                input_ids=ids, attention_mask=torch.tensor([row["attention_mask"]])
            ).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100
        )
        total += float(losses.double().sum())
        count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("loss_type", ["model.loss_type=ForCausalLM", "model.revision=main"])
def test_eval_loss_is_the_mean_over_tokens_at_any_batch_size(
    tmp_path: Path, batch: int, loss_type: str
) -> None:
    trainer, tokens = built(tmp_path, loss_type, f"training.per_device_eval_batch_size={batch}")
    if loss_type.endswith("main"):
        trainer.model.get_base_model().loss_type = None  # as GPT-2 comes
    found = evaluate(trainer)
    assert found is not None
    # Sums of float32 losses in another order: a few units in the last place.
    assert found.loss == pytest.approx(true_loss(trainer.model, tokens.evaluation), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.tokens == sum(
        sum(label != -100 for label in labels[1:]) for labels in tokens.evaluation["labels"]
    )


def test_evaluating_leaves_no_trace(tmp_path: Path) -> None:
    import random

    import numpy as np
    import torch

    trainer, _ = built(tmp_path)

    def states() -> list[str]:
        return [str(random.getstate()), str(np.random.get_state()), str(torch.get_rng_state())]

    with np.printoptions(threshold=10**6):
        before = states()
        evaluate(trainer)
        assert states() == before
    assert trainer.state.log_history == []


def test_pads_do_not_move_the_loss_where_they_are_masked(tmp_path: Path) -> None:
    losses = []
    for padding in ("longest", "max_length"):
        trainer, _ = built(
            tmp_path, f"tokenization.padding={padding}", "tokenization.max_length=96"
        )
        found = evaluate(trainer)
        assert found is not None
        losses.append(found.loss)
    # The same numbers through kernels for other shapes.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_longest_padding_without_masking_counts_the_pads(tmp_path: Path) -> None:
    trainer, _ = built(tmp_path, "tokenization.labels=input_ids", "tokenization.max_length=96")
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] == batch["input_ids"]).all()
    assert (batch["attention_mask"] == 0).any()


def test_what_the_class_refuses_is_an_error_at_its_line() -> None:
    recipe = small_recipe(
        "training.eval_strategy=steps",
        "training.load_best_model_at_end=true",
        "training.save_strategy=epoch",
    )
    with pytest.raises(InputError, match=r"training\.\w+: .*(strategy|steps)"):
        build_arguments(recipe, Path("out"))


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor"])
def test_any_optimizer_trains(tmp_path: Path, optim: str) -> None:
    trainer, _ = built(tmp_path, f"training.optim={optim}")
    weights = {
        name: parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }
    base = {
        name: parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if not parameter.requires_grad
    }
    trainer.train()
    now = dict(trainer.model.named_parameters())
    assert weights
    assert all("lora_" in name for name in weights)
    assert all(not now[name].equal(value) for name, value in weights.items())
    assert all(now[name].equal(value) for name, value in base.items())
