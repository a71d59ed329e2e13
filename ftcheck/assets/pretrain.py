"""Pretrains the tiny model: a plain loop on one thread, the same numbers each time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.assets import END_OF_TEXT, eval_file, pretraining_text, train_file
from ftcheck.assets.tokenizer import MAX_LENGTH, save_tokenizer, train_tokenizer, write_json

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel

SEED = 20
STEPS = 1800
BATCH = 16
WINDOW = 128
PEAK_RATE = 3e-3
WARM_UP = 60
WEIGHT_DECAY = 0.1
# One prose document in this many is held out to measure the loss on.
HELD_OUT_EVERY = 20

Report = Callable[[str], None]


def read_rows(path: Path) -> list[str]:
    """The `text` of each JSON line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def split_documents() -> tuple[list[str], list[str]]:
    """The pretraining documents to train on, and the prose documents that are held out."""
    documents = pretraining_text().split(END_OF_TEXT)
    prose = [text for text in documents if not text.startswith(("def ", "async def ", "@"))]
    held_out = prose[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    left_out = set(held_out)
    return [text for text in documents if text not in left_out], held_out


def model_config(vocab_size: int) -> dict[str, Any]:
    """The content of config.json.

    Written out by hand, because `save_pretrained` adds the writing version and keys that other
    versions of transformers name otherwise.
    """
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.0,
        "bos_token_id": vocab_size - 1,
        "embd_pdrop": 0.0,
        "eos_token_id": vocab_size - 1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_embd": 128,
        "n_head": 4,
        "n_layer": 4,
        "n_positions": MAX_LENGTH,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "vocab_size": vocab_size,
    }


def prepare() -> None:
    """Fixes seed, threads and kernels, so that a second run gives the same bits."""
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def stream(tokenizer: Tokenizer, documents: list[str]) -> torch.Tensor:
    """All documents in one row of ids, an end token after each."""
    import torch

    end: int = tokenizer.encode(END_OF_TEXT).ids[0]
    ids: list[int] = []
    for document in documents:
        ids.extend(tokenizer.encode(document).ids)
        ids.append(end)
    return torch.tensor(ids)


def batch(ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Windows from random places of the stream."""
    import torch

    starts = torch.randint(len(ids) - WINDOW, (BATCH,), generator=generator)
    return torch.stack([ids[start : start + WINDOW] for start in starts.tolist()])


def rate(step: int, steps: int) -> float:
    """The learning rate: a linear warm-up, then a cosine down to a twentieth."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return PEAK_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_for(model: GPT2LMHeadModel) -> torch.optim.Optimizer:
    """AdamW; only matrices decay, biases and norms do not."""
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def train(model: GPT2LMHeadModel, ids: torch.Tensor, steps: int, report: Report) -> None:
    """Trains the model in place.

    Args:
        model: The model with fresh weights.
        ids: The training stream.
        steps: Number of optimizer steps.
        report: Takes a line of progress every hundred steps.
    """
    import torch

    generator = torch.Generator().manual_seed(SEED)
    optimizer = optimizer_for(model)
    model.train()
    start, total = time.monotonic(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        windows = batch(ids, generator)
        loss = model(input_ids=windows, labels=windows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        if (step + 1) % 100 == 0:
            elapsed = time.monotonic() - start
            report(f"step {step + 1}/{steps}  loss {total / 100:.3f}  {elapsed:.0f} s")
            total = 0.0


def stream_loss(model: GPT2LMHeadModel, ids: torch.Tensor) -> float:
    """Mean loss per token over a stream, in windows of the model's full length."""
    import torch

    model.train(mode=False)
    total, count = 0.0, 0
    with torch.no_grad():
        for window in torch.split(ids, MAX_LENGTH):
            if len(window) > 1:
                loss = model(input_ids=window[None], labels=window[None]).loss
                total += loss.item() * (len(window) - 1)
                count += len(window) - 1
    return total / count


def rows_loss(model: GPT2LMHeadModel, tokenizer: Tokenizer, rows: list[str]) -> float:
    """Mean loss per token over separate rows, an end token after each."""
    import torch

    model.train(mode=False)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = stream(tokenizer, [row])[None]
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    return total / count


def held_out_losses(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> dict[str, float]:
    """The losses on text that the model was not trained on, by kind of text."""
    prose = stream_loss(model, stream(tokenizer, split_documents()[1]))
    code = rows_loss(model, tokenizer, read_rows(eval_file()))
    return {"prose": round(prose, 4), "code": round(code, 4)}


def save_model(model: GPT2LMHeadModel, config: dict[str, Any], folder: Path) -> None:
    """Writes config.json, generation_config.json and model.safetensors."""
    from safetensors.torch import save

    # The tied head and the causal masks follow from the rest; not every version stores them.
    weights = {
        name: tensor.contiguous()
        for name, tensor in sorted(model.state_dict().items())
        if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", ends)


def make_model(folder: Path, steps: int, report: Report) -> dict[str, float]:
    """Makes tokenizer and model from the stored texts.

    Args:
        folder: An existing folder to write into.
        steps: Number of optimizer steps.
        report: Takes lines of progress.

    Returns:
        The held-out losses by kind of text.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    prepare()
    documents, _ = split_documents()
    tokenizer = train_tokenizer([*documents, *read_rows(train_file())])
    save_tokenizer(tokenizer, folder)
    config = model_config(tokenizer.get_vocab_size())
    model = GPT2LMHeadModel(GPT2Config(**config))
    # Newer versions cannot tell it from GPT-2's class name and warn; it is the default anyway.
    model.loss_type = "ForCausalLM"
    ids = stream(tokenizer, documents)
    report(f"{model.num_parameters():,} weights, {len(ids):,} training tokens, {steps} steps")
    train(model, ids, steps, report)
    save_model(model, config, folder)
    return held_out_losses(model, tokenizer)
