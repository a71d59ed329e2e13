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
    dtype: str = "float32",
    unfreeze: bool = False,
    **arguments: Any,
) -> dict[str, Any]:
    """Train with the unmodified `transformers.Trainer`.

    Args:
        dtype: Of the base.
        unfreeze: Let everything train, the base too.
    """
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

    model = gpt2(gpu, lora=lora, **(config or {}))
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(getattr(torch, dtype))
            parameter.requires_grad_(parameter.requires_grad or unfreeze)

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


def evaluate(gpu: Any, *, keep_logits: bool = False) -> float:
    """Evaluate GPT-2 124M; with `keep_logits` a loop of people's own holds them on the card."""
    import torch

    model = gpt2(gpu, lora=False, n_layer=2).eval()
    ids = torch.zeros(2, 128, dtype=torch.long).to(gpu.device)
    kept = []
    gpu.phase("eval")
    with torch.no_grad():
        for _ in range(4):
            output = model(input_ids=ids, labels=ids)
            if keep_logits:
                kept.append(output.logits)
    return float(output.loss)


def trainer_evaluates(gpu: Any, **arguments: Any) -> dict[str, float]:
    """`Trainer.evaluate`, with the logits gathered or not."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    model = gpt2(gpu, n_layer=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_eval_batch_size=2,
                report_to="none",
                disable_tqdm=True,
                fp16=True,
                **arguments,
            ),
            eval_dataset=rows(4, 64),
            data_collator=default_data_collator,
        )
        gpu.phase("eval")
        metrics: dict[str, float] = trainer.evaluate()
    return metrics


def generates(gpu: Any) -> tuple[int, ...]:
    """Eight new tokens, sampled; no end-of-text token comes."""
    import torch

    model = gpt2(gpu, lora=False, n_layer=2).eval()
    model.generation_config.pad_token_id = 50256
    gpu.phase("generate")
    ids = torch.tensor([[5, 6, 7, 8]]).to(gpu.device)
    return tuple(
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=8,
            do_sample=True,
            top_k=50,
            top_p=0.9,
            use_cache=True,
        ).shape
    )


def kbit(gpu: Any, *, kind: str) -> dict[str, Any]:
    """GPT-2 124M in 8 or 4 bits with LoRA: load, prepare, two steps by the Trainer."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        BitsAndBytesConfig,
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainingArguments,
        default_data_collator,
    )
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    gpu.phase("load")
    int8 = kind == "int8"
    settings = BitsAndBytesConfig(
        load_in_8bit=int8,
        load_in_4bit=not int8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16,
    )
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(use_cache=False)).half()
    model = replace_with_bnb_linear(
        model, modules_to_not_convert=["lm_head"], quantization_config=settings
    )
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = int8, not int8
    model.is_quantized, model.quantization_method = True, "bitsandbytes"
    gpu.materialize(model)
    gpu.phase("wrap")
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=8, lora_alpha=16, target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    model._hf_peft_config_loaded = True  # what from_pretrained says of a quantized model
    gpu.phase("step")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=2,
                max_steps=2,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                fp16=True,
            ),
            train_dataset=rows(4, 128),
            data_collator=default_data_collator,
        )
        steps = trainer.train().global_step
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {"steps": steps, "trainable": sum(parameter.numel() for parameter in trains)}
