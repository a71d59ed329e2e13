"""What the tests run on the virtual GPU: functions of a module, so that a child can import them."""

from __future__ import annotations

import tempfile
from typing import Any

__all__ = ["gpt2", "train"]


def gpt2(gpu: Any, *, lora: bool = True, **changes: Any) -> Any:
    """GPT-2 124M without weights, on the card; optionally with LoRA on `c_attn` and `c_proj`."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    gpu.phase("load")
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(use_cache=False, **changes))
        model.loss_type = "ForCausalLM"
        if lora:
            from peft import LoraConfig, get_peft_model

            settings = LoraConfig(
                r=8,
                lora_alpha=16,
                lora_dropout=0.05,
                target_modules=["c_attn", "c_proj"],
                fan_in_fan_out=True,
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(model, settings, low_cpu_mem_usage=True)
    return gpu.materialize(model)


def rows(count: int, length: int) -> list[dict[str, Any]]:
    """Tokenized rows without padding."""
    ids = [number % 1000 for number in range(length)]
    return [{"input_ids": ids, "attention_mask": [1] * length, "labels": ids} for _ in range(count)]


def train(
    gpu: Any,
    *,
    batch: int = 1,
    length: int = 128,
    lora: bool = True,
    steps: int = 2,
    accumulation: int = 4,
    config: dict[str, Any] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Train with the unmodified `transformers.Trainer`."""
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

    model = gpt2(gpu, lora=lora, **(config or {}))

    class Phases(TrainerCallback):  # type: ignore[misc] # its base has no types
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            gpu.phase(f"step {state.global_step + 1}")

    settings: dict[str, Any] = {"fp16": True, **arguments}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                max_steps=steps,
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=rows(batch * accumulation * steps, length),
            data_collator=default_data_collator,
            callbacks=[Phases()],
        )
        output = trainer.train()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"loss": output.training_loss, "trainable": trainable, "steps": output.global_step}


def left_behind(gpu: Any) -> None:
    """Ids on the host, weights on the card."""
    import torch

    gpt2(gpu, lora=False)(input_ids=torch.zeros(1, 4, dtype=torch.long))


def killed(gpu: Any) -> None:
    """The child is killed, as by the host when memory runs out."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def endless(gpu: Any) -> None:
    """Never comes back."""
    import time

    while True:
        time.sleep(0.1)


def plain_loop(gpu: Any, *, hold: bool) -> None:
    """A loop of people's own; with `hold` it sums losses that hold their graphs."""
    import torch

    model = gpt2(gpu, lora=False)
    ids = torch.zeros(2, 128, dtype=torch.long).to(gpu.device)
    total: Any = 0.0
    for step in (1, 2):
        gpu.phase(f"step {step}")
        loss = model(input_ids=ids, labels=ids).loss
        if hold:
            total = total + loss
        del loss
