"""What is wrong with a recipe, word for word, and near misses that are right."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from ftcheck.errors import RecipeError
from ftcheck.recipe import parse_recipe, schema
from ftcheck.recipe.hf_fields import HFField, fields
from ftcheck.recipe.rules import contradictions
from ftcheck.recipe.values import Fault, argument_faults

MODEL = '[model]\nname_or_path = "m"\n'
HEAD = MODEL + '[data]\npath = "d"\n'
TRAINING = HEAD + "[training]\n"
LORA = HEAD + "[lora]\nr = 1\n"
GENERATION = HEAD + "[generation]\n"
ROWS = "Set data.eval_split, data.eval_path or data.eval_fraction."
SAME_LENGTH = (
    "every row has the same length, so grouping by length does nothing. "
    'Set padding = "longest" without packing, or leave the grouping out.'
)
DTYPES = "expected one of 'float32', 'float16', 'bfloat16', 'auto'."
NO_BEST = (
    'training.load_best_model_at_end: got true, and eval_strategy is "no": no best one is ever '
    'known. Set eval_strategy = "steps" or "epoch".'
)


def said(text: str) -> list[str]:
    try:
        parse_recipe(text)
    except RecipeError as error:
        return [str(problem).removeprefix("<text>:") for problem in error.problems]
    return []


def in_model(line: str) -> str:
    return HEAD.replace("[data]", f"{line}\n[data]")


CONTRADICTIONS = {
    LORA + "[quantization]\nload_in_8bit = true\nload_in_4bit = true\n": [
        "9: quantization.load_in_4bit: got true beside load_in_8bit = true, expected at most one "
        "of them."
    ],
    LORA + "[quantization]\n": [
        "7: quantization: expected load_in_8bit = true or load_in_4bit = true. "
        "Leave the section out for weights that are not quantized."
    ],
    HEAD + "[quantization]\nload_in_8bit = true\n": [
        "5: quantization: quantized weights cannot be trained, and there is no [lora] section. "
        "Add [lora], or leave [quantization] out."
    ],
    TRAINING + "fp16 = true\nbf16 = true\n": [
        "7: training.bf16: got true beside fp16 = true, expected at most one of them."
    ],
    in_model('dtype = "float16"') + "[training]\nfp16 = true\n": [
        '7: training.fp16: got true beside model.dtype = "float16" without [lora]: mixed '
        'precision needs trainable weights in float32. Set model.dtype = "float32".'
    ],
    TRAINING + "max_steps = 0\n": [
        "6: training.max_steps: got 0, expected 1 or more, or -1 to go by num_train_epochs."
    ],
    HEAD + 'eval_path = "a"\neval_split = "b"\neval_fraction = 0.5\n': [
        "6: data.eval_split: set beside data.eval_path, expected one of them.",
        "7: data.eval_fraction: set beside data.eval_path, expected one of them.",
    ],
    HEAD + "eval_rows = 3\n": [f"5: data.eval_rows: set without rows to evaluate on. {ROWS}"],
    TRAINING + 'eval_strategy = "epoch"\n': [
        "6: training.eval_strategy: asks for evaluation, and [data] names no rows to evaluate "
        f"on. {ROWS}"
    ],
    TRAINING + "load_best_model_at_end = true\n": [
        "6: training.load_best_model_at_end: asks for evaluation, and [data] names no rows to "
        f"evaluate on. {ROWS}",
        f"6: {NO_BEST}",
    ],
    HEAD + 'eval_split = "e"\n[training]\nload_best_model_at_end = true\n': [f"7: {NO_BEST}"],
    HEAD + "[tokenization]\npacking = true\n[training]\ngroup_by_length = true\n": [
        f"6: tokenization.packing: {SAME_LENGTH}"
    ],
    HEAD + '[tokenization]\npadding = "max_length"\n[training]\ngroup_by_length = true\n': [
        f"6: tokenization.padding: {SAME_LENGTH}"
    ],
    in_model('device = "cuda"') + "[training]\nuse_cpu = true\n": [
        '3: model.device: got "cuda" beside training.use_cpu = true.'
    ],
    in_model('device = "mps"') + "[training]\nuse_cpu = true\n": [
        '3: model.device: got "mps" beside training.use_cpu = true.'
    ],
    TRAINING + "local_rank = 0\n": [
        "6: training.local_rank: is set by the launcher. "
        "Start with: accelerate launch -m ftcheck run RECIPE"
    ],
    HEAD + '[budget]\nvram = "8"\n': [
        "6: budget.vram: got '8', expected a number with a unit, such as '8 GiB' (1024-based) or "
        "'8 GB' (1000-based)."
    ],
    HEAD + '[checks.accept]\nFT203 = " "\n': [
        "6: checks.accept.FT203: got an empty reason, expected one."
    ],
    GENERATION + "num_return_sequences = 3\nnum_beams = 2\n": [
        "6: generation.num_return_sequences: got 3 beside num_beams = 2 without do_sample = true."
    ],
    GENERATION + "num_return_sequences = 2\n": [
        "6: generation.num_return_sequences: got 2 beside num_beams = 1 without do_sample = true."
    ],
}
RIGHT = (
    HEAD,
    LORA + "[quantization]\nload_in_8bit = true\n",
    LORA + "[quantization]\nload_in_4bit = true\n",
    LORA + "[quantization]\nload_in_4bit = true\nload_in_8bit = false\n",
    TRAINING + "fp16 = true\n",
    TRAINING + "bf16 = true\n",
    in_model('dtype = "float16"') + "[training]\nbf16 = true\n",
    in_model('dtype = "float16"') + "[training]\nfp16 = true\n[lora]\nr = 1\n",
    in_model('dtype = "bfloat16"') + "[training]\nfp16 = true\n",
    TRAINING + "max_steps = 1\n",
    TRAINING + "max_steps = -1\n",
    HEAD + 'eval_split = "e"\neval_rows = 3\n[training]\neval_strategy = "epoch"\n',
    HEAD + 'eval_path = "e"\n[training]\neval_strategy = "epoch"\nload_best_model_at_end = true\n',
    HEAD + 'eval_fraction = 0.5\n[training]\neval_strategy = "steps"\n',
    TRAINING + 'eval_strategy = "no"\n',
    HEAD + "[tokenization]\npacking = true\n",
    HEAD + '[tokenization]\npadding = "max_length"\n',
    HEAD + '[tokenization]\npadding = "longest"\n[training]\ngroup_by_length = true\n',
    in_model('device = "cpu"') + "[training]\nuse_cpu = true\n",
    in_model('device = "cuda"') + "[training]\nuse_cpu = false\n",
    HEAD + '[budget]\nvram = "8 GiB"\n',
    HEAD + '[checks.accept]\nFT203 = "meant"\n',
    GENERATION + "num_return_sequences = 3\nnum_beams = 3\n",
    GENERATION + "num_return_sequences = 3\ndo_sample = true\n",
)
VALUES = {
    HEAD + "rowss = 3\n": "5: data.rowss: unknown key. Did you mean rows?",
    HEAD + "zzz = 3\n": "5: data.zzz: unknown key.",
    '[model]\n[data]\npath = "d"\n': "1: model.name_or_path: is missing, and has no default.",
    HEAD.replace('"m"', "7"): "2: model.name_or_path: got 7, expected a text in quotes.",
    HEAD.replace('"m"', '""'): (
        "2: model.name_or_path: got '', expected a text that is not empty."
    ),
    HEAD + "rows = 1.5\n": "5: data.rows: got 1.5, expected a whole number.",
    HEAD + "rows = true\n": "5: data.rows: got true, expected a whole number.",
    HEAD + "rows = false\n": "5: data.rows: got false, expected a whole number.",
    HEAD + "rows = 0\n": "5: data.rows: got 0, expected 1 or more.",
    HEAD + "eval_fraction = 1.0\n": "5: data.eval_fraction: got 1.0, expected a number below 1.",
    HEAD + "eval_fraction = 0\n": "5: data.eval_fraction: got 0, expected a number above 0.",
    in_model('dtype = "fp16"'): (f"3: model.dtype: got 'fp16', {DTYPES} Did you mean float16?"),
    in_model('dtype = "fp32"'): (f"3: model.dtype: got 'fp32', {DTYPES} Did you mean float32?"),
    in_model('dtype = "bf16"'): (f"3: model.dtype: got 'bf16', {DTYPES} Did you mean bfloat16?"),
    in_model('dtype = "half"'): (f"3: model.dtype: got 'half', {DTYPES} Did you mean float16?"),
    in_model('dtype = "autp"'): f"3: model.dtype: got 'autp', {DTYPES} Did you mean auto?",
    in_model('dtype = "xyz"'): f"3: model.dtype: got 'xyz', {DTYPES}",
    HEAD + "[tokenization]\nmax_length = 1\n": (
        "6: tokenization.max_length: got 1, expected 2 or more."
    ),
    HEAD + '[tokenization]\npacking = "no"\n': (
        "6: tokenization.packing: got 'no', expected true or false."
    ),
    TRAINING + "learning_rate = '1e-4'\n": (
        "6: training.learning_rate: got '1e-4', expected a number."
    ),
    TRAINING + "learning_rate = nan\n": (
        "6: training.learning_rate: got nan, expected a finite number."
    ),
    TRAINING + "learning_rate = -1\n": "6: training.learning_rate: got -1, expected 0 or more.",
    TRAINING + "weight_decay = inf\n": (
        "6: training.weight_decay: got inf, expected a finite number."
    ),
    TRAINING + "seed = 4294967296\n": (
        "6: training.seed: got 4294967296, expected a number below 4294967296."
    ),
    TRAINING + "eval_strategy = 'stepz'\n": (
        "6: training.eval_strategy: got 'stepz', expected one of 'no', 'steps', 'epoch'. "
        "Did you mean steps?"
    ),
    TRAINING + "fp16 = 1\n": "6: training.fp16: got 1, expected true or false.",
    TRAINING + "adam_beta1 = 1.0\n": "6: training.adam_beta1: got 1.0, expected a number below 1.",
    TRAINING + "warmup_ratio = 1.5\n": "6: training.warmup_ratio: got 1.5, expected 1 or less.",
    LORA.replace("1", "0"): "6: lora.r: got 0, expected 1 or more.",
    LORA.replace("1", "[8]"): "6: lora.r: got [8], expected a whole number.",
    LORA + "rank = 8\n": "7: lora.rank: unknown argument of LoraConfig as installed.",
    GENERATION + "top_p = 1.5\n": "6: generation.top_p: got 1.5, expected 1 or less.",
    GENERATION + "temperature = 0\n": (
        "6: generation.temperature: got 0, expected a number above 0."
    ),
    HEAD + f'rows = "{"x" * 78}"\n': f"5: data.rows: got '{'x' * 78}', expected a whole number.",
    HEAD + f'rows = "{"x" * 79}"\n': f"5: data.rows: got '{'x' * 76}…, expected a whole number.",
    "[modle]\n" + HEAD: "1: modle: unknown section. Did you mean model?",
    "[zzz]\n" + HEAD: "1: zzz: unknown section.",
    "description = 5\n" + HEAD: "1: description: got 5, expected a text in quotes.",
    MODEL: " data: the section [data] is missing.",
    GENERATION + 'prompts = "a"\n': "6: generation.prompts: got 'a', expected an array of texts.",
    GENERATION + "prompts = [1]\n": "6: generation.prompts: got [1], expected an array of texts.",
    GENERATION + 'prompt = ["a"]\n': (
        "6: generation.prompt: unknown argument of GenerationConfig as installed. "
        "Did you mean prompts?"
    ),
    TRAINING + "learning_rat = 1\n": (
        "6: training.learning_rat: unknown argument of TrainingArguments as installed. "
        "Did you mean learning_rate?"
    ),
    in_model("dtype = 'float32'\ntorch_dtype = 'float16'"): (
        "4: model.torch_dtype: says the same as model.dtype."
    ),
    in_model("torch_dtype = 'float17'"): (
        f"3: model.dtype: got 'float17', {DTYPES} Did you mean float16?"
    ),
    "[checks]\naccept = 3\n" + HEAD: "2: checks.accept: got 3, expected a table.",
    HEAD + "[checks.accept]\nFT203 = 1\n": (
        "5: checks.accept: got {'FT203': 1}, expected a text in quotes."
    ),
    "a = " + "[" * 100_000: " is nested too deeply to be read.",
}


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old names are gone, as they are from transformers 5 on."""
    gone = {
        "no_cuda",
        "save_safetensors",
        "evaluation_strategy",
        "warmup_ratio",
        "logging_dir",
        "per_gpu_train_batch_size",
        "use_ipex",
    }

    def newer(section: Any) -> Any:
        return {name: one for name, one in fields(section).items() if name not in gone}

    monkeypatch.setattr("ftcheck.recipe.load.fields", newer)


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_values_that_contradict_each_other(text: str) -> None:
    assert said(text) == CONTRADICTIONS[text]


@pytest.mark.parametrize("text", RIGHT)
def test_what_contradicts_nothing(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize("text", VALUES, ids=range(len(VALUES)))
def test_a_value_that_is_wrong_by_itself(text: str) -> None:
    assert said(text) == [VALUES[text]]


def test_all_that_is_wrong_is_said_in_the_order_of_lines() -> None:
    assert said(HEAD + "rows = 0\n[lora]\nr = 0\n[nothing]\n") == [
        "5: data.rows: got 0, expected 1 or more.",
        "7: lora.r: got 0, expected 1 or more.",
        "8: nothing: unknown section.",
    ]
    assert said("model = 'gpt2'\n") == [
        " data: the section [data] is missing.",
        "1: model: got a value, expected a section [model].",
        "1: model.name_or_path: is missing, and has no default.",
    ]
    assert said("") == [
        " model: the section [model] is missing.",
        " data: the section [data] is missing.",
    ]


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no_cuda = true\nuse_cpu = true", "no_cuda: says the same as training.use_cpu."),
        (
            "save_safetensors = false",
            "save_safetensors: got False: weights are saved as safetensors only since "
            "transformers 5.0.",
        ),
        (
            "use_ipex = true",
            "use_ipex: got True: the installed version has no support for Intel's extension.",
        ),
        (
            "evaluation_strategy = 'stepz'",
            "evaluation_strategy: got 'stepz', expected one of 'no', 'steps', 'epoch'. Did you "
            "mean steps?",
        ),
        ("per_gpu_train_batch_size = 0", "per_gpu_train_batch_size: got 0, expected 1 or more."),
        ("warmup_ratio = 1.5", "warmup_ratio: got 1.5, expected 1 or less."),
        (
            "warmup_ratio = 1",
            "warmup_ratio: got 1: a warm-up of the whole run cannot be written as warmup_steps; "
            "use a share below 1.",
        ),
    ],
)
def test_an_old_name_with_a_value_that_is_wrong(line: str, words: str) -> None:
    assert said(TRAINING + line) == [f"6: training.{words}"]


@pytest.mark.usefixtures("newest")
def test_an_old_name_is_carried_over_with_its_line() -> None:
    text = TRAINING + "no_cuda = true\nlogging_dir = 'l'\nseed = 3\n"
    recipe = parse_recipe(text.replace("[data]", "torch_dtype = 'float16'\n[data]"))
    assert dict(recipe.training) == {"use_cpu": True, "seed": 3}
    assert recipe.model.dtype == "float16"
    assert recipe.notices == (
        "model.torch_dtype → dtype = 'float16' (renamed in 4.56)",
        "training.no_cuda → use_cpu = True (renamed in 4.34, old name gone in 5.0)",
        "training.logging_dir left out (gone in 5.15; metrics go to the run folder)",
    )
    assert recipe.source is not None
    assert recipe.source.line("training.use_cpu") == 7
    assert recipe.source.line("model.dtype") == 3
    assert said(TRAINING.replace("[data]", 'device = "cuda"\n[data]') + "no_cuda = true\n") == [
        '3: model.device: got "cuda" beside training.use_cpu = true.'
    ]
    # The old name asks for evaluation as the new one does.
    (words,) = said(TRAINING + "evaluation_strategy = 'epoch'\n")
    assert words.startswith("6: training.eval_strategy: asks for evaluation")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[model\n", 1),
        (HEAD + "path = 'b'\n", 5),
        (HEAD + "[model]\n", 5),
        ('{"model": 1}', 1),
        ('[model]\nname_or_path = "gpt2\n', 2),
        ("a = 1\n\nb", 3),
    ],
)
def test_what_is_no_toml_has_its_line(text: str, line: int) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe(text)
    assert [problem.key for problem in raised.value.problems] == [""]
    (words,) = said(text)
    assert words.startswith(f"{line}: not valid TOML: ")
    assert words.endswith(".")
    assert "(at" not in words


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (datetime.date, 3, "a valid date"),  # of pydantic's own words
        (Annotated[float, Ge(0.5)], 0, "0.5 or more"),
        (Annotated[float, Ge(2.0)], 0, "2 or more"),
        (int | None, "a", "a whole number"),
        (int | bool, "a", "a whole number or true or false"),
        (list[int] | dict[str, int], "a", "an array or a table"),
    ],
)
def test_what_was_expected_of_any_type(annotation: Any, value: Any, expected: str) -> None:
    (fault,) = argument_faults("training", HFField(name="x", annotation=annotation), value)
    assert fault == Fault(key="x", text=f"got {value!r}, expected {expected}.")


def test_old_names_count_where_they_are_installed() -> None:
    recipe = parse_recipe(in_model('device = "cuda"'))
    old = schema.Arguments({"evaluation_strategy": "epoch", "no_cuda": True})
    assert [fault.key for fault in contradictions(dataclasses.replace(recipe, training=old))] == [
        "training.eval_strategy",
        "model.device",
    ]
    never = schema.Arguments({"evaluation_strategy": "no", "no_cuda": False})
    assert list(contradictions(dataclasses.replace(recipe, training=never))) == []
