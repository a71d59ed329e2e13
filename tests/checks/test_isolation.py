"""Looking leaves no trace: training afterwards is the same, bit for bit."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftcheck.checks.facts import Failure
from ftcheck.checks.observe.isolation import apart
from ftcheck.subjects.trainer import check_trainer
from tests.checks.toys import base, lora, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
"""What the libraries say while they train is not what is tested here."""


def full(folder: Path) -> Any:
    return trainer(folder, model=base(), evaluation=rows()[:8])


def adapter(folder: Path) -> Any:
    return trainer(folder, model=lora(lora_dropout=0.1), evaluation=rows()[:8])


def with_its_own_optimizer(folder: Path) -> Any:
    model = lora()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return trainer(folder, model=model, optimizers=(optimizer, schedule))


def checkpointing(folder: Path) -> Any:
    model = lora()
    model.enable_input_require_grads()
    return trainer(folder, model=model, arguments={"gradient_checkpointing": True})


def trained(made: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses: list[float] = []
    inner = made.training_step

    def step(*arguments: Any, **named: Any) -> Any:
        loss = inner(*arguments, **named)
        losses.append(float(loss))
        return loss

    made.training_step = step
    made.train()
    return losses, {name: value.clone() for name, value in made.model.state_dict().items()}


def slow_where(make: Any, level: str) -> Any:
    """Three seconds each, and of a kind with the others."""
    more = make in (with_its_own_optimizer, checkpointing) and level in ("step", "roundtrip")
    return pytest.mark.slow if more else ()


@pytest.mark.parametrize(
    ("make", "level"),
    [
        pytest.param(make, level, marks=slow_where(make, level))
        for make in (full, adapter, with_its_own_optimizer, checkpointing)
        for level in ("static", "data", "step", "roundtrip")
    ],
)
def test_training_is_the_same_with_and_without_a_check(
    tmp_path: Path, make: Callable[[Path], Any], level: str
) -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    plain = trained(make(tmp_path / "plain"))
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    looked_at = make(tmp_path / "looked at")
    check_trainer(looked_at, level=level)
    losses, weights = trained(looked_at)
    assert losses == plain[0]
    assert weights.keys() == plain[1].keys()
    assert all(torch.equal(weights[name], plain[1][name]) for name in weights)


def test_nothing_of_the_trainer_or_the_process_changes(tmp_path: Path) -> None:
    made = adapter(tmp_path)

    def state() -> dict[str, Any]:
        return {
            "arguments": made.args.to_dict(),
            "fingerprint": made.train_dataset._fingerprint,
            "callbacks": list(made.callback_handler.callbacks),
            "hooks": [len(one._forward_hooks) for one in made.model.modules()],
            "modes": [one.training for one in made.model.modules()],
            "cache": made.model.config.use_cache,
            "optimizer": (made.optimizer, made.lr_scheduler),
            "python": random.getstate(),
            "torch": torch.get_rng_state().tolist(),
            "numpy": np.random.get_state(legacy=True)[1].tolist(),  # type: ignore[index] # a tuple, so asked
            "environment": dict(os.environ),
            "filters": list(warnings.filters),
            "threads": torch.get_num_threads(),
            "files": sorted(path.name for path in tmp_path.rglob("*")),
            "gradients": [one.grad is None for one in made.model.parameters()],
        }

    before = state()
    check_trainer(made)
    assert state() == before


def test_a_look_that_breaks_dies_or_hangs_is_said() -> None:
    def breaks(folder: Path) -> None:
        raise ValueError("as it would")

    def dies(folder: Path) -> None:
        os._exit(7)

    def hangs(folder: Path) -> None:
        import time

        time.sleep(60)

    def answers(folder: Path) -> int:
        return len(list(folder.iterdir()))

    broke, died, hung, fine = apart([breaks, dies, hangs, answers], timeout_s=3)
    assert isinstance(broke, Failure)
    assert (broke.kind, broke.text) == ("ValueError", "as it would")
    assert isinstance(died, Failure)
    assert "status 7" in died.text
    assert isinstance(hung, Failure)
    assert hung.kind == "Timeout"
    assert fine == 0
