"""What people write, sound and broken: functions that a child process can import."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["step_that_drops_its_graph", "step_that_holds_its_graph", "trainer"]

_LENGTH = 64


def _model(*, lora: bool = True) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=256, n_head=4, vocab_size=5000))
    model.loss_type = "ForCausalLM"
    if not lora:
        return model
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=8, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, settings)


def _rows(count: int) -> list[dict[str, list[int]]]:
    ids = list(range(_LENGTH))
    return [{"input_ids": ids, "attention_mask": [1] * _LENGTH, "labels": ids}] * count


def trainer(model: Any = None, compute_metrics: Any = None) -> Any:
    """A sound one: LoRA, evaluation without logits."""
    from transformers import Trainer, TrainingArguments

    return Trainer(
        model=_model() if model is None else model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            report_to="none",
            disable_tqdm=True,
        ),
        compute_metrics=compute_metrics,
        train_dataset=_rows(64),
        eval_dataset=_rows(32),
    )


def _no_metrics(prediction: object) -> dict[str, float]:
    """Metrics of people's own, for which the Trainer gathers all logits."""
    del prediction
    return {}


def trainer_that_keeps_eval_logits() -> Any:
    """All logits of the evaluation stay on the card until its end."""
    return trainer(compute_metrics=_no_metrics)


def trainer_with_the_base_in_its_optimizer() -> Any:
    """Somebody has let the base train, too."""
    model = _model()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return trainer(model)


def step_that_drops_its_graph() -> Callable[[], None]:
    """Written for a card, and sound."""
    return _step(hold=False)


def step_that_holds_its_graph() -> Callable[[], None]:
    """`total_loss += loss`."""
    return _step(hold=True)


def _step(*, hold: bool) -> Callable[[], None]:
    model = _model(lora=False)
    optimizer = torch.optim.AdamW(model.parameters())  # before the model is on the card
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    total = [torch.zeros((), device=device)]

    def step() -> None:
        ids = torch.randint(0, 5000, (4, _LENGTH), device="cuda")
        with torch.autocast("cuda", dtype=torch.float16):
            loss = model(input_ids=ids, labels=ids).loss
        assert loss.is_cuda
        if hold:
            total[0] = total[0] + loss
        loss.backward(retain_graph=hold)
        optimizer.step()
        optimizer.zero_grad()

    return step


def on_the_cpu() -> None:
    """Nothing of it is on a card."""
    _model(lora=False)(input_ids=torch.zeros(1, 4, dtype=torch.long))


def inputs_left_behind() -> Callable[[], None]:
    """Weights on the card, ids on the host."""
    model = _model(lora=False).cuda()

    def step() -> None:
        model(input_ids=torch.zeros(1, 4, dtype=torch.long))

    return step
