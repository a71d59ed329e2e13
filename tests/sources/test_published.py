"""The table of published sizes: every entry is built, and has the parameters that it says."""

from __future__ import annotations

import pytest

from ftcheck.sources.published import PublishedModel, published_model, published_models

_FAMILIES = ("gpt2", "opt-125m", "llama-3_2-1b")


def parameters(entry: PublishedModel) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(entry.model_type, **entry.config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("slug", _FAMILIES)
def test_one_of_some_families_has_its_parameters(slug: str) -> None:
    entry = next(entry for entry in published_models() if entry.slug == slug)
    assert parameters(entry) == entry.parameters


@pytest.mark.slow
@pytest.mark.parametrize("entry", published_models(), ids=lambda entry: entry.slug)
def test_each_has_its_parameters(entry: PublishedModel) -> None:
    assert parameters(entry) == entry.parameters


def test_names_are_found_in_any_case_and_are_unique() -> None:
    found = published_model("openai-community/GPT2")
    assert found is not None
    assert found.slug == "gpt2"
    assert published_model("gpt2-of-mine") is None
    names = [name.lower() for entry in published_models() for name in entry.names]
    assert len(names) == len(set(names)) >= 43
