"""Other causal language models than GPT-2, of toy size, with the embedded tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ftcheck.assets import model_dir
from ftcheck.pipeline import RunFolder, run
from tests.helpers.recipes import small_recipe
from tests.helpers.versions import skip_unless_runnable

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"vocab_size": 2048, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ENDS = {"bos_token_id": 2047, "eos_token_id": 2047, "pad_token_id": None}


def llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        **SMALL, **ENDS, intermediate_size=128, num_key_value_heads=2, max_position_embeddings=256
    )


def qwen2() -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        **SMALL,
        **ENDS,
        intermediate_size=128,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )


def opt() -> Any:
    from transformers import OPTConfig

    sizes = {**SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 256}
    return OPTConfig(**sizes, **{**ENDS, "pad_token_id": 1})


def pythia() -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(**SMALL, **ENDS, intermediate_size=128, max_position_embeddings=256)


TARGETS = {
    llama: ["q_proj", "v_proj", "down_proj"],
    qwen2: ["q_proj", "v_proj"],
    opt: ["q_proj", "v_proj", "fc1"],
    pythia: ["query_key_value"],
}


@pytest.mark.parametrize("bits", [[], ["quantization.load_in_8bit=true"]], ids=["fp32", "int8"])
@pytest.mark.parametrize("kind", TARGETS, ids=lambda kind: kind.__name__)
def test_trains_saves_and_reloads(tmp_path: Path, kind: Any, bits: list[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    skip_unless_runnable(bits)
    folder = tmp_path / "model"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(kind()).save_pretrained(folder)
    for file in model_dir().glob("*okeni*"):
        shutil.copy(file, folder)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copy(model_dir() / name, folder)
    recipe = small_recipe(
        f'model.name_or_path="{folder}"',
        f"lora.target_modules={TARGETS[kind]!r}",
        "training.learning_rate=1e-2",
        "training.max_steps=6",
        *bits,
    )
    result = run(recipe, RunFolder.at(tmp_path / "run"))
    assert result.reload is not None
    assert result.reload.difference <= result.reload.tolerance
    assert result.reload.adapter_effect > 10 * result.reload.tolerance
    assert result.before is not None
    assert result.after is not None
    assert result.after.loss < result.before.loss
    assert sum(result.parameters.adapted.values()) == 2 * len(TARGETS[kind])
