"""Scripts and notebooks of the shapes that people publish, unmodified: nothing is held against the
sound ones, and what is wrong in the broken ones is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.subjects.published import DATA, Published, broken, checked, codes, toy_models, wrong

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what the libraries say is not what is tested here
]

CLM = (
    "--do_train",
    "--do_eval",
    "--output_dir",
    "out",
    "--block_size",
    "64",
    "--per_device_train_batch_size",
    "4",
    "--report_to",
    "none",
)
ALPACA = (
    "--output_dir",
    "out",
    "--per_device_train_batch_size",
    "4",
    "--learning_rate",
    "2e-5",
    "--warmup_steps",
    "3",
    "--lr_scheduler_type",
    "cosine",
)
SOUND = (
    Published(name="run_clm.py", arguments=CLM, through=True),
    Published(name="alpaca_train.py", arguments=ALPACA, through=True),
    Published(name="streaming.py", through=True),
    Published(name="model_init.py", through=True),
    Published(name="accelerate_loop.py", through=True),
    Published(name="compiled_loop.py"),
    Published(name="classify.py", through=True),
    Published(name="summarize.py", through=True),
    Published(name="qlora.ipynb", through=True),
)
BROKEN = (
    broken(
        "run_clm.py",
        'result["input_ids"].copy()',
        '[r[1:] + r[:1] for r in result["input_ids"]]',
        "FT204",
        arguments=CLM,
        levels=DATA,
    ),
    broken(
        "alpaca_train.py",
        "label[:source_len]",
        "label[source_len:]",
        "FT207",
        "FT209",
        arguments=ALPACA,
        levels=DATA,
    ),
    broken(
        "alpaca_train.py",
        "    model.resize_token_embeddings(len(tokenizer))\n",
        "",
        "FT214",
        "FT426",
        arguments=("--model_name_or_path", "gpt2", *ALPACA),
    ),
    broken("streaming.py", "seed=42, buffer_size", "buffer_size", "FT104", levels=DATA),
    broken("model_init.py", "loss / num_items_in_batch", "loss / (targets != -100).sum()", "FT407"),
    broken(
        "accelerate_loop.py",
        'result["input_ids"].copy()',
        '[r[1:] + r[:1] for r in result["input_ids"]]',
        "FT204",
    ),
    broken("compiled_loop.py", "lr=3e-5", "lr=3e-1", "FT420"),
    broken("classify.py", "learning_rate=2e-5", "learning_rate=2.0", "FT404", levels=DATA),
    broken(
        "qlora.ipynb",
        "model = get_peft_model(model, config)",
        "model = prepare_model_for_kbit_training(get_peft_model(model, config))",
        "FT306",
        levels=DATA,
    ),
    broken("qlora.ipynb", "model.eval()", "model.train()", "FT901", through=True),
)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return toy_models(tmp_path_factory.mktemp("toys"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("one", SOUND, ids=lambda one: one.name)
def test_a_sound_script_passes(one: Published, tmp_path: Path, stand_ins: dict[str, str]) -> None:
    before = set(tmp_path.iterdir())
    assert wrong(checked(one, tmp_path, stand_ins)) == []
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {one.name, "hydra_conf"}


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: f"{one.name}: {min(one.codes)}")
def test_a_mistake_is_found(one: Published, tmp_path: Path, stand_ins: dict[str, str]) -> None:
    assert codes(checked(one, tmp_path, stand_ins)) == one.codes
