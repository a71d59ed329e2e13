"""Checkpoints without contents: right headers, no room on the disk, loadable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftcheck.vgpu.hollow import hollow_checkpoint, save_hollow


def test_safetensors_reads_names_shapes_and_dtypes(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    file = tmp_path / "model.safetensors"
    shape = (1000, 1024, 1024)
    save_hollow({"large": torch.empty(shape, dtype=torch.bfloat16, device="meta")}, file)
    assert file.stat().st_size > 2 * 10**9
    assert file.stat().st_blocks * 512 < 10**6
    with safe_open(file, framework="pt") as opened:
        part = opened.get_slice("large")
        assert part.get_shape() == list(shape)
        assert part.get_dtype() == "BF16"


def test_a_checkpoint_is_loaded_by_the_library(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50, n_positions=16)
    hollow_checkpoint(lambda: GPT2LMHeadModel(config), tmp_path, torch.float32)
    model, loading = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not set(loading["missing_keys"]) - {"lm_head.weight"}
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not any(parameter.any() for parameter in model.parameters())


def test_large_ones_come_in_shards(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    def build() -> Any:
        return GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8192, n_head=2, vocab_size=50))

    hollow_checkpoint(build, tmp_path, torch.float32)
    shards = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert (tmp_path / "model.safetensors.index.json").is_file()
