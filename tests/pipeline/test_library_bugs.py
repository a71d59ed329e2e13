"""The table of library bugs: ranges, what applies, and that the ways around work here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftcheck.pipeline import library_bugs, load_base, load_tokenizer
from ftcheck.pipeline.library_bugs import LIBRARY_BUGS, Situation, active_bugs, in_range
from ftcheck.recipe import Recipe
from tests.helpers.recipes import small_recipe
from tests.helpers.versions import at_least, skip_unless_runnable

pytestmark = pytest.mark.filterwarnings("ignore")


def situation(*overrides: str, device: str = "cpu") -> Situation:
    skip_unless_runnable(overrides)
    recipe: Recipe = small_recipe(*overrides)
    return Situation(recipe=recipe, base=load_base(recipe, load_tokenizer(recipe)), device=device)


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    monkeypatch.setattr(library_bugs, "installed_version", versions.get)


@pytest.mark.parametrize(
    ("slug", "versions", "bad"),
    [
        ("accumulated-gradient", {"transformers": "4.45.2"}, False),
        ("accumulated-gradient", {"transformers": "4.46.0"}, True),
        ("accumulated-gradient", {"transformers": "4.48.3"}, True),
        ("accumulated-gradient", {"transformers": "4.49.0"}, False),
        ("resume-repeats-data", {"transformers": "4.57.6", "accelerate": "1.12.0"}, True),
        ("resume-repeats-data", {"transformers": "5.0.0", "accelerate": "1.12.0"}, False),
        ("resume-repeats-data", {"transformers": "4.57.6"}, False),
        ("base-model-on-reload", {"transformers": "5.5.4"}, True),
        ("base-model-on-reload", {"transformers": "5.6.0"}, False),
        ("base-model-on-reload-by-old-peft", {"transformers": "5.23.0", "peft": "0.19.1"}, True),
        ("base-model-on-reload-by-old-peft", {"transformers": "5.23.0", "peft": "0.20.0"}, False),
        ("base-model-on-reload-by-old-peft", {"transformers": "5.12.1", "peft": "0.19.1"}, False),
        ("rng-state-refused", {"transformers": "4.46.3", "torch": "2.13.0+cpu"}, True),
        ("rng-state-refused", {"transformers": "4.46.3", "torch": "2.5.1"}, False),
        ("gpt2-loss-type", {"transformers": "5.24.0"}, True),
        ("gpt2-loss-type", {"transformers": "4.48.0"}, False),
    ],
)
def test_ranges(
    monkeypatch: pytest.MonkeyPatch, slug: str, versions: dict[str, str], bad: bool
) -> None:
    installed(monkeypatch, **versions)
    bug = next(bug for bug in LIBRARY_BUGS if bug.slug == slug)
    assert bug.installed() is bad


def test_an_absent_library_has_no_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    assert not in_range({"transformers": ">=1"})
    assert active_bugs(situation()) == ()


def test_slugs_are_unique_and_rows_complete() -> None:
    slugs = [bug.slug for bug in LIBRARY_BUGS]
    assert len(slugs) == len(set(slugs))
    for bug in LIBRARY_BUGS:
        assert bug.versions
        assert len(bug.effect) > 30
        assert bug.handled
        assert bug.source


@pytest.mark.parametrize(
    ("slug", "overrides", "applies"),
    [
        (
            "gpt2-loss-type",
            ["model.loss_type=ForCausalLM"],
            not at_least("transformers", "5.10"),
        ),
        ("packed-4bit-weights", ["quantization.load_in_4bit=true"], True),
        (
            "packed-4bit-weights",
            ["quantization.load_in_4bit=true", "quantization.bnb_4bit_use_double_quant=true"],
            False,
        ),
        ("packed-4bit-weights", ["quantization.load_in_8bit=true"], False),
        ("accumulated-gradient", ["training.gradient_accumulation_steps=2"], True),
        ("accumulated-gradient", ["training.gradient_accumulation_steps=1"], False),
        ("checkpointing-without-input-gradients", ["training.gradient_checkpointing=true"], True),
        ("base-model-on-reload", ["model.reload_with=auto"], True),
        ("base-model-on-reload", ["model.reload_with=peft"], False),
        ("base-model-on-reload-by-old-peft", ["model.reload_with=auto"], True),
        ("base-model-on-reload-by-old-peft", ["model.reload_with=peft"], False),
        ("all-pad-rows", ["tokenization.append_eos=false", "data.drop_empty=true"], False),
    ],
)
def test_what_applies(slug: str, overrides: list[str], applies: bool) -> None:
    bug = next(bug for bug in LIBRARY_BUGS if bug.slug == slug)
    assert bug.applies(situation(*overrides)) is applies


def test_evaluation_does_not_repack_4bit_weights() -> None:
    """The bytes of the quantized weights are the same before and after an evaluation."""
    import torch

    found = situation("quantization.load_in_4bit=true", "quantization.bnb_4bit_quant_type=nf4")
    weights = {
        name: p.detach().clone()
        for name, p in found.base.named_parameters()
        if type(p).__name__ == "Params4bit"
    }
    assert weights
    found.base.eval()
    with torch.no_grad():
        found.base(input_ids=torch.arange(8)[None])
    now = dict(found.base.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in weights.items())


def test_accumulation_gives_the_gradient_of_one_batch(tmp_path: Path) -> None:
    norms = [
        first_gradient_norm(tmp_path / str(batch), batch, steps)
        for batch, steps in ((8, 1), (1, 8))
    ]
    # The same rows; float32 sums in another order.
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def first_gradient_norm(folder: Path, batch: int, accumulation: int) -> float:
    from ftcheck.pipeline import build_trainer, load_data, tokenize, wrap

    recipe = small_recipe(
        f"training.per_device_train_batch_size={batch}",
        f"training.gradient_accumulation_steps={accumulation}",
        "tokenization.padding=max_length",
        "tokenization.labels=input_ids",
        "training.max_steps=1",
        "lora.lora_dropout=0.0",
    )
    tokenizer = load_tokenizer(recipe)
    tokens = tokenize(load_data(recipe), tokenizer, recipe)
    model = wrap(load_base(recipe, tokenizer), recipe)
    trainer: Any = build_trainer(model, tokens, tokenizer, recipe, folder)
    trainer.train()
    return next(float(e["grad_norm"]) for e in trainer.state.log_history if "grad_norm" in e)
