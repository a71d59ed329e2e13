"""Quantized bases on a CPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ftcheck.assets import model_dir
from tests.helpers.versions import at_least, skip_unless_runnable
from tests.regression.outcomes import ELSEWHERE, by_version, said_by, versions_of
from tests.regression.plain import base, lora, row, tensors, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


def quantized(*, dtype: Any = None, **settings: Any) -> Any:
    """The embedded model in 4 or 8 bits on the CPU; the test is skipped where that cannot be."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    skip_unless_runnable(["quantization."])
    name = "dtype" if at_least("transformers", "4.56") else "torch_dtype"
    options = {} if dtype is None else {name: dtype}
    return AutoModelForCausalLM.from_pretrained(
        str(model_dir()),
        quantization_config=BitsAndBytesConfig(**settings),
        device_map={"": "cpu"},
        **options,
    )


def in_8_bits() -> Any:
    import torch

    return quantized(load_in_8bit=True, dtype=torch.float32)


def in_4_bits(**settings: Any) -> Any:
    import torch

    return quantized(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        dtype=torch.float32,
        **settings,
    )


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=tensors([row(16)])["input_ids"]).logits


@by_version(
    ({"transformers": "<4.46"}, re.compile("^RuntimeError: No GPU found")),
    ({"transformers": "<4.50"}, re.compile("^RuntimeError: CUDA is required but not available")),
    ({"transformers": "<4.55"}, re.compile("^RuntimeError: None of the available devices")),
    (ELSEWHERE, "nothing"),
)
def test_loading_in_8_bits_on_a_cpu() -> str:
    from transformers import BitsAndBytesConfig

    return said_by(
        lambda: base(
            quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map={"": "cpu"}
        )
    )


@by_version(({"bitsandbytes": "<0.47"}, True), (ELSEWHERE, False))
def test_logits_in_8_bits_are_wrong() -> bool:
    """transformers 4.55 and later let bitsandbytes 0.46 onto a CPU, for which it is not ready.

    No environment has that pair. Seen with 4.57.6 and 0.46.1: NaN in float16, and in float32 a mean
    error of 2.6 where the logits have a mean size of 3.4.
    """
    import torch

    if not at_least("transformers", "4.55"):
        pytest.skip("transformers as installed cannot quantize on a CPU")
    from transformers import BitsAndBytesConfig

    model = base(
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
        device_map={"": "cpu"},
        torch_dtype=torch.float32,
    )
    error = float((logits(model) - logits(base())).abs().mean())
    return not error < 0.5


@by_version(({"transformers": "<5"}, "torch.float16"), (ELSEWHERE, "torch.float32"))
def test_dtype_of_the_parts_that_are_not_quantized() -> str:
    return str(quantized(load_in_8bit=True).transformer.wte.weight.dtype)


def skip_unless_packed() -> None:
    """Skip where bitsandbytes would pack weights, but not on this processor."""
    from bitsandbytes import functional

    packs = getattr(functional, "has_avx512bf16", None)
    if packs is not None and not packs():
        pytest.skip("4-bit weights are packed on CPUs with AVX512-BF16")


def error_growth_by_state_dict(**settings: Any) -> float:
    """Mean error of the logits, against the unquantized model, after over before."""
    true = logits(base())
    model = in_4_bits(**settings)
    skip_unless_packed()
    before = logits(model)
    model.state_dict()
    return float((logits(model) - true).abs().mean() / (before - true).abs().mean())


@by_version((versions_of("packed-4bit-weights"), True), (ELSEWHERE, False))
def test_a_state_dict_after_an_evaluation_corrupts_the_model() -> bool:
    return error_growth_by_state_dict() > 2


@by_version((ELSEWHERE, False))
def test_with_double_quantization_it_does_not() -> bool:
    return error_growth_by_state_dict(bnb_4bit_use_double_quant=True) > 1.1


@by_version(
    (
        versions_of("packed-4bit-weights"),
        re.compile("a view of a leaf Variable that requires grad"),
    ),
    (ELSEWHERE, "nothing"),
)
def test_training_after_an_evaluation_in_4_bits(tmp_path: Path) -> str:
    model = lora(in_4_bits())
    skip_unless_packed()
    one = trainer(tmp_path, model)
    one.evaluate()
    return said_by(one.train)


@by_version((versions_of("biases-rounded-in-place"), True), (ELSEWHERE, False))
def test_half_precision_inputs_round_a_bias_in_place() -> bool:
    import torch

    model = in_8_bits()
    layer = model.transformer.h[0].attn.c_attn
    before = layer.bias.detach().clone()
    with torch.no_grad():
        layer(torch.ones(1, 128, dtype=torch.bfloat16))
    return not torch.equal(before, layer.bias.detach().to(before.dtype))


@by_version((ELSEWHERE, [0, "nothing"]))
def test_preparing_after_the_adapter_freezes_it(tmp_path: Path) -> list[object]:
    """In silence: hooks of the preparation keep the loss differentiable."""
    from peft import prepare_model_for_kbit_training

    model = prepare_model_for_kbit_training(lora(in_8_bits()))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return [trainable, said_by(trainer(tmp_path, model).train)]


@by_version(
    ({"transformers": "<5"}, re.compile("^ValueError: `.to` is not supported for `8-bit`")),
    (ELSEWHERE, "nothing"),
)
def test_moving_a_quantized_model() -> str:
    model = in_8_bits()
    return said_by(lambda: model.to("cpu"))


@by_version((ELSEWHERE, re.compile("^ValueError: `.half\\(\\)` is not supported for")))
def test_halving_a_quantized_model() -> str:
    return said_by(in_8_bits().half)


@by_version((ELSEWHERE, re.compile("^ValueError: You cannot perform fine-tuning on purely quant")))
def test_training_a_quantized_model_without_an_adapter(tmp_path: Path) -> str:
    model = in_8_bits()
    return said_by(lambda: trainer(tmp_path, model))
