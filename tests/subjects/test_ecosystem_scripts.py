"""Published scripts of trl, Lightning and Hydra, and live trainers of trl: `tox -e ecosystem`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import ftcheck
from tests.checks.toys import TEXTS, tokenizer
from tests.subjects.published import DATA, Published, broken, checked, codes, wrong

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what the libraries say is not what is tested here
]

CLI = (
    "--model_name_or_path",
    "Qwen/Qwen2.5-0.5B",
    "--dataset_name",
    "trl-lib/Capybara",
    "--learning_rate",
    "2.0e-4",
    "--use_peft",
    "--lora_r",
    "32",
    "--lora_alpha",
    "16",
    "--per_device_train_batch_size",
    "2",
    "--gradient_accumulation_steps",
    "8",
    "--eos_token",
    "<|im_end|>",
    "--eval_strategy",
    "steps",
    "--eval_steps",
    "100",
    "--output_dir",
    "out",
    "--push_to_hub",
)
SOUND = (
    Published(name="sft_alpaca.py", through=True),
    Published(name="sft_chat.py", through=True),
    Published(name="sft_completion.py", through=True),
    Published(name="sft_packing.py", through=True),
    Published(name="sft_cli.py", arguments=CLI, through=True),
    Published(name="dpo.py", through=True),
    Published(name="reward.py", through=True),
    Published(name="grpo.py", through=True),
    Published(name="lightning_lm.py"),
    Published(name="hydra_train.py", through=True),
)
BROKEN = (
    broken(
        "sft_alpaca.py",
        'target_modules="all-linear"',
        'target_modules=["c_attn"]',
        "FT301",
        levels=DATA,
    ),
    broken("sft_alpaca.py", "learning_rate=2e-4", "learning_rate=2e-1", "FT404", levels=DATA),
    broken(
        "sft_chat.py",
        "train_test_split(test_size=0.1, seed=0)",
        "train_test_split(test_size=0.1)",
        "FT104",
        levels=DATA,
    ),
    broken("sft_completion.py", "    model.eval()\n", "", "FT901", through=True),
    broken(
        "sft_completion.py",
        'prompt = "Question: Write',
        'prompt = "### Instruction: Write',
        "FT906",
        through=True,
    ),
    broken("dpo.py", "learning_rate=5e-6", "learning_rate=5e-1", "FT404", levels=DATA),
    broken(
        "lightning_lm.py", "        self.model.train()", "        # self.model.train()", "FT413"
    ),
    broken("lightning_lm.py", "[list(ids) for", "[[*ids[1:], -100] for", "FT204"),
    broken("hydra_train.py", "  _convert_: all\n", "", "FT802"),
)


def needs(name: str) -> None:
    """Skip where the libraries of a script are not installed."""
    module = {"lightning_lm.py": "lightning", "hydra_train.py": "hydra"}.get(name, "trl")
    pytest.importorskip(module, reason="one of the environment `ecosystem` of tox")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("one", SOUND, ids=lambda one: one.name)
def test_a_sound_script_passes(one: Published, tmp_path: Path) -> None:
    needs(one.name)
    assert wrong(checked(one, tmp_path, {})) == []


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: f"{one.name}: {min(one.codes)}")
def test_a_mistake_is_found(one: Published, tmp_path: Path) -> None:
    needs(one.name)
    assert codes(checked(one, tmp_path, {})) == one.codes


# ------------------------------------------------------------------------ live trainers

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}


def toy(kind: str) -> Any:
    """A model of two narrow layers with the embedded vocabulary and the marks of ChatML."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    more: Mapping[str, Any] = {"intermediate_size": 64, "num_key_value_heads": 1}
    if kind == "opt":
        more = {"ffn_dim": 64, "word_embed_proj_dim": 32}
    ends = {"bos_token_id": 2047, "eos_token_id": 2047, "pad_token_id": 2047}
    config = AutoConfig.for_model(kind, vocab_size=2050, **_SIZES, **more, **ends)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def chats() -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"Write function {number}."},
                {"role": "assistant", "content": text},
            ]
        }
        for number, text in enumerate(TEXTS)
    ]


def sft(
    folder: Path, kind: str, rows: list[dict[str, Any]], peft: Any = None, **changes: Any
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from ftcheck.sources.stand_ins import CHAT_TEMPLATE

    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = CHAT_TEMPLATE
    given = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-3,
        "num_train_epochs": 4,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "max_length": 128,
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
    }
    return SFTTrainer(
        model=toy(kind),
        args=SFTConfig(**{**given, **changes}),
        train_dataset=Dataset.from_list(rows),
        processing_class=words,
        peft_config=peft,
    )


TEXT = [{"text": text} for text in TEXTS]
PAIRS = [
    {"prompt": f"Question {number}: write it.\nAnswer:", "completion": f" {text}"}
    for number, text in enumerate(TEXTS)
]
LIVE: Mapping[str, tuple[str, list[dict[str, Any]], Mapping[str, Any]]] = {
    "plain text, a Llama": ("llama", TEXT, {}),
    "completions alone, an OPT": ("opt", PAIRS, {"completion_only_loss": True}),
    "prompts and completions, a Qwen": ("qwen2", PAIRS, {"completion_only_loss": False}),
    "a chat template, a Qwen": ("qwen2", chats(), {}),
    "the assistant alone, a Llama": ("llama", chats(), {"assistant_only_loss": True}),
    "packed, rows end to end": ("llama", TEXT, {"packing": True, "packing_strategy": "wrapped"}),
    "packed, block-diagonal": ("llama", TEXT, {"packing": True, "packing_strategy": "bfd"}),
    "without padding": ("qwen2", TEXT, {"padding_free": True, "max_length": None}),
    "accumulated": ("llama", TEXT, {"gradient_accumulation_steps": 2}),
}


@pytest.mark.parametrize("name", LIVE)
def test_a_sound_sft_trainer_learns_and_passes(name: str, tmp_path: Path) -> None:
    needs("trl")
    kind, rows, changes = LIVE[name]
    trainer = sft(tmp_path, kind, rows, **changes)
    assert wrong(ftcheck.check(trainer)) == []
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1


def test_several_adapters_pass(tmp_path: Path) -> None:
    needs("trl")
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = sft(tmp_path, "llama", TEXT, config)
    trainer.model.add_adapter("second", config)
    trainer.model.set_adapter("default")
    assert wrong(ftcheck.check(trainer)) == []
