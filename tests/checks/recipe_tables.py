"""Recipes that checks of arguments, modules, rows and labels catch, each beside what is nearly it.

Files and folders that a recipe names lie beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.checks.recipes import Case, Changes
from tests.helpers.model_folders import other_tokenizer, other_weights, own_code, words

__all__ = [
    "ANSWERS",
    "BEST",
    "FULL",
    "STATIC_AND_DATA",
    "TEXTS",
    "ask",
    "code",
    "coded",
    "files",
    "folder",
    "jsonl",
    "lora",
    "own_file",
    "training",
]

EOS = "<|endoftext|>"
TEXTS = tuple(
    f"def add_{number}(a, b):\n    total = a + b * {number}\n    return total - {number}\n"
    for number in range(120)
)
"""Texts that differ, of some 25 tokens each."""
ANSWERS = tuple(f"### Question: {n} + {n}?\n### Response: it is {n + n}" for n in range(40))


def own_file(name: str, *more: str) -> Changes:
    """Train on a file; evaluate on none, unless more says so."""
    named = (f'data.path = "{name}"', "- data.rows", "- data.eval_split", "- data.eval_rows")
    return (*named, *more)


def jsonl(file: Path, texts: Sequence[str]) -> None:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def files(**texts: Sequence[str]) -> Callable[[Path], None]:
    """Writes `NAME.jsonl` for each."""

    def write(folder: Path) -> None:
        for name, held in texts.items():
            jsonl(folder / f"{name}.jsonl", held)

    return write


def with_blank_lines(folder: Path) -> None:
    lines = [line for text in TEXTS[:12] for line in (text.replace("\n", " "), "")]
    (folder / "some.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def code(name: str, *more: str) -> Changes:
    """A model with code of its own, in a folder."""
    return (f'model.name_or_path = "{name}"', "model.trust_remote_code = true", *more)


def coded(**bodies: str) -> Callable[[Path], None]:
    """Writes a folder for each model with code of its own."""

    def write(folder: Path) -> None:
        for name, body in bodies.items():
            own_code(folder / name, body)

    return write


def folder(name: str, *more: str) -> Changes:
    return (f'model.name_or_path = "{name}"', *more)


NO_MASK = """
def forward(self, input_ids=None, labels=None, **more):
    return super().forward(input_ids, labels=labels, **more)
"""
TARGETS = """
def forward(self, input_ids=None, attention_mask=None, targets=None, **more):
    return super().forward(input_ids, attention_mask=attention_mask, labels=targets, **more)
"""


def bos_added(place: Path) -> None:
    """A tokenizer that begins each text with BOS, rows with BOS, and rows without it."""

    def template(held: dict[str, Any]) -> None:
        held["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": EOS, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {EOS: {"id": EOS, "ids": [2047], "tokens": [EOS]}},
        }

    other_tokenizer(place / "begins", template)
    files(twice=[EOS + text for text in TEXTS[:24]], once=TEXTS[:24])(place)


def without_eos(place: Path) -> None:
    other_tokenizer(place / "endless", lambda _: None, eos_token=None, bos_token=None)


def holes(place: Path) -> None:
    """Tokenizers in which `return` is the last token, and one far beyond."""
    for name, number in (("far", 3000), ("full", None)):

        def moved(held: dict[str, Any], number: int | None = number) -> None:
            if number is not None:
                held["model"]["vocab"]["Ġreturn"] = number

        other_tokenizer(place / name, moved)
    jsonl(place / "own.jsonl", TEXTS[:24])


def grown(place: Path) -> None:
    """A tokenizer of 5,048 tokens, text that it cuts into bytes, and text that it does not."""

    def more(model: Any) -> None:
        model.resize_token_embeddings(5048, mean_resizing=False)

    from transformers import AutoTokenizer

    other_weights(place / "large", more)
    tokens = AutoTokenizer.from_pretrained(str(place / "large"))
    tokens.add_tokens([f"<extra {number}>" for number in range(3000)])
    tokens.save_pretrained(place / "large")
    foreign = [
        f"{n}人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟" for n in range(40)
    ]
    files(foreign=foreign, own=TEXTS)(place)


def tables_of_words(place: Path) -> None:
    """Tokenizers of whole words that give unknown ones −1, or a token."""
    known = ["a", "return", "def", "total", "=", "+", "*", "-", "b):"]
    ids = {word: 5 + number for number, word in enumerate(known)}
    words(place / "negative", ids, -1)
    words(place / "zero", ids, 0)
    jsonl(place / "own.jsonl", TEXTS[:24])


def not_a_number(place: Path) -> None:
    def broken(model: Any) -> None:
        model.transformer.wte.weight.data[3, 3] = float("nan")

    other_weights(place / "broken", broken)
    other_weights(place / "whole", lambda _: None)


def ask(name: str, *more: str) -> Changes:
    return own_file(name, "tokenization.max_length = 64", *more)


def lora(*values: str) -> Changes:
    return tuple(f"lora.{value}" for value in values)


def training(*values: str) -> Changes:
    return tuple(f"training.{value}" for value in values)


PLAIN = (
    "tokenization.append_eos = false",
    'tokenization.padding = "max_length"',
    'tokenization.labels = "input_ids"',
)
BEST = training(
    'eval_strategy = "epoch"', 'save_strategy = "epoch"', "load_best_model_at_end = true"
)
FULL = ("- lora", "training.learning_rate = 1e-3")
DUPLICATES = files(
    hundred=[*TEXTS[:80], *TEXTS[:20]],
    more=[*TEXTS[:100], TEXTS[0]],
    train=TEXTS[:40],
    leaks=[*TEXTS[60:79], TEXTS[0]],
    apart=TEXTS[60:80],
)

STATIC_AND_DATA: dict[str, Case] = {
    "FT101": Case(
        wrong=own_file("some.txt", *PLAIN, "data.drop_empty = false"),
        at="data.drop_empty",
        near=(own_file("some.txt", *PLAIN, "data.drop_empty = true"),),
        severity="warning",
        files=with_blank_lines,
    ),
    "FT102": Case(
        wrong=own_file("hundred.jsonl"),
        at="data.path",
        near=(own_file("more.jsonl"), own_file("train.jsonl")),
        severity="warning",
        files=DUPLICATES,
    ),
    "FT103": Case(
        wrong=own_file("train.jsonl", 'data.eval_path = "leaks.jsonl"'),
        at="data.eval_path",
        near=(
            own_file("train.jsonl", 'data.eval_path = "apart.jsonl"'),
            own_file("train.jsonl", "data.eval_fraction = 0.5"),
        ),
        severity="warning",
        files=DUPLICATES,
    ),
    "FT105": Case(
        wrong=code("maskless", "training.remove_unused_columns = true"),
        at="training.remove_unused_columns",
        near=(code("maskless", "training.remove_unused_columns = false"),),
        severity="warning",
        files=coded(maskless=NO_MASK),
    ),
    "FT107": Case(
        wrong=own_file("train.jsonl", "tokenization.max_length = 12"),
        at="tokenization.max_length",
        near=(own_file("train.jsonl", "tokenization.max_length = 48"),),
        severity="warning",
        files=DUPLICATES,
    ),
    "FT108": Case(
        wrong=(*folder("large"), *own_file("foreign.jsonl")),
        at="model.name_or_path",
        near=((*folder("large"), *own_file("own.jsonl")),),
        severity="warning",
        files=grown,
    ),
    "FT109": Case(
        wrong=(*BEST, "data.eval_rows = 9"),
        at="data.eval_rows",
        near=((*BEST, "data.eval_rows = 10"), ("data.eval_rows = 9",)),
        severity="note",
    ),
    "FT201": Case(
        wrong=code("targets", 'training.label_names = ["targets"]'),
        at="tokenization.labels",
        near=(code("targets", 'training.label_names = ["labels"]'),),
        files=coded(targets=TARGETS),
    ),
    "FT208": Case(
        wrong=('tokenization.padding = "max_length"', 'tokenization.labels = "input_ids"'),
        at="tokenization.labels",
        near=(('tokenization.padding = "max_length"',),),
        severity="note",
    ),
    "FT210": Case(
        wrong=ask("own.jsonl", "tokenization.append_eos = false"),
        at="tokenization.append_eos",
        near=(ask("own.jsonl"),),
        severity="warning",
        files=files(own=ANSWERS),
    ),
    "FT211": Case(
        wrong=(*code("negative"), *own_file("own.jsonl")),
        at="tokenization.labels",
        near=((*code("zero"), *own_file("own.jsonl")),),
        files=tables_of_words,
        also=("FT215",),
    ),
    "FT212": Case(
        wrong=(*folder("begins"), *own_file("twice.jsonl")),
        at="tokenization",
        near=((*folder("begins"), *own_file("once.jsonl")), own_file("twice.jsonl")),
        severity="warning",
        files=bos_added,
    ),
    "FT213": Case(
        wrong=folder("endless", "tokenization.append_eos = false"),
        at="tokenization.pad_token",
        near=(
            folder(
                "endless", "tokenization.append_eos = false", f'tokenization.pad_token = "{EOS}"'
            ),
        ),
        files=without_eos,
    ),
    "FT214": Case(
        wrong=(*folder("far"), *own_file("own.jsonl")),
        at="model.name_or_path",
        near=((*folder("full"), *own_file("own.jsonl")),),
        files=holes,
        also=("FT211",),
    ),
    "FT215": Case(
        wrong=(*code("negative"), *own_file("own.jsonl")),
        at="model.name_or_path",
        near=((*code("zero"), *own_file("own.jsonl")),),
        files=tables_of_words,
        also=("FT211",),
    ),
    "FT216": Case(
        wrong=("tokenization.max_length = 257",),
        at="tokenization.max_length",
        near=(("tokenization.max_length = 256",),),
    ),
    "FT217": Case(
        wrong=own_file("exported.jsonl"),
        at="tokenization",
        near=(own_file("own.jsonl"),),
        files=files(
            exported=[EOS * 4 + text for text in TEXTS[:24]],
            own=[EOS + text for text in TEXTS[:24]],
        ),
    ),
    "FT218": Case(
        wrong=ask("own.jsonl", 'data.eval_path = "other.jsonl"'),
        at="data.eval_path",
        near=(ask("own.jsonl", 'data.eval_path = "same.jsonl"'),),
        severity="warning",
        files=files(
            own=ANSWERS[:20],
            same=ANSWERS[20:],
            other=[text.replace("### Question", "Q") for text in ANSWERS[20:]],
        ),
    ),
    "FT221": Case(
        wrong=ask("own.jsonl"),
        at="tokenization.labels",
        near=(ask("plain.jsonl"),),
        severity="note",
        files=files(own=ANSWERS, plain=TEXTS[:24]),
        applies=False,
    ),
    "FT301": Case(
        wrong=lora('target_modules = ["q_proj", "v_proj"]'),
        at="lora.target_modules",
        near=(lora('target_modules = ["c_attn"]'), lora('target_modules = ".*c_attn"')),
    ),
    "FT302": Case(
        wrong=lora('target_modules = ["c_attn", "v_proj"]'),
        at="lora.target_modules",
        near=(lora('target_modules = ["c_attn", "c_proj"]'),),
    ),
    "FT303": Case(
        wrong=lora('target_modules = ["c_attn", "c_proj"]'),
        at="lora.target_modules",
        near=(lora('target_modules = ["c_attn", "attn.c_proj"]'),),
        severity="note",
    ),
    "FT304": Case(
        wrong=lora("lora_alpha = 0"), at="lora.lora_alpha", near=(lora("lora_alpha = 1"),)
    ),
    "FT305": Case(
        wrong=lora("lora_dropout = 0.7"),
        at="lora.lora_dropout",
        near=(lora("lora_dropout = 0.69"),),
        severity="warning",
    ),
    "FT306": Case(
        wrong=lora("inference_mode = true"),
        at="lora.inference_mode",
        near=(lora("inference_mode = false"),),
    ),
    "FT309": Case(
        wrong=lora('target_modules = ["c_attn", "lm_head"]'),
        at="lora.target_modules",
        near=(lora('target_modules = ["c_attn", "c_fc"]'),),
        severity="warning",
    ),
    "FT310": Case(
        wrong=lora('modules_to_save = ["lm_head"]'),
        at="lora.modules_to_save",
        near=(lora('modules_to_save = ["ln_f"]'),),
        severity="note",
    ),
    "FT313": Case(wrong=lora("r = 128"), at="lora.r", near=(lora("r = 127"),), severity="note"),
    "FT403": Case(
        wrong=training("learning_rate = 0.0"),
        at="training.learning_rate",
        near=(training("learning_rate = 1.1e-8"),),
    ),
    "FT404": Case(
        wrong=training("learning_rate = 0.1"),
        at="training.learning_rate",
        near=(training("learning_rate = 0.09"), training("learning_rate = 0.1", 'optim = "sgd"')),
    ),
    "FT415": Case(
        wrong=folder("broken"), at="model.name_or_path", near=(folder("whole"),), files=not_a_number
    ),
    "FT417": Case(
        wrong=training("auto_find_batch_size = true"),
        at="training.auto_find_batch_size",
        near=(training("auto_find_batch_size = false"),),
        severity="note",
    ),
    "FT422": Case(
        wrong=training('evaluation_strategy = "epoch"', "save_total_limit = 1"),
        at="training.save_total_limit",
        near=((*BEST, "training.save_total_limit = 1"), training("save_total_limit = 1")),
        severity="note",
    ),
    "FT427": Case(
        wrong=training("warmup_steps = 1.0"),
        at="training.warmup_steps",
        near=(training("warmup_steps = 1"), training("warmup_steps = 0.9")),
        severity="warning",
    ),
    "FT428": Case(
        wrong=(
            *BEST,
            'training.metric_for_best_model = "eval_loss"',
            "training.greater_is_better = true",
        ),
        at="training.greater_is_better",
        near=(
            (*BEST, 'training.metric_for_best_model = "eval_loss"'),
            (
                *BEST,
                'training.metric_for_best_model = "eval_loss"',
                "training.greater_is_better = false",
            ),
        ),
    ),
    "FT501": Case(
        wrong=(
            "training.fp16 = true",
            'model.dtype = "float16"',
            'lora.modules_to_save = ["ln_f"]',
        ),
        at="training.fp16",
        near=(
            ("training.fp16 = true", 'model.dtype = "float16"'),
            ("training.fp16 = true", 'lora.modules_to_save = ["ln_f"]'),
        ),
    ),
    "FT502": Case(
        wrong=training("fp16 = true"),
        at="training.fp16",
        near=(training("bf16 = true"),),
        severity="note",
    ),
    "FT503": Case(
        wrong=(*FULL, 'model.dtype = "float16"'),
        at="model.dtype",
        near=((*FULL, 'model.dtype = "float32"'), ('model.dtype = "float16"',)),
        severity="warning",
    ),
    "FT506": Case(
        wrong=("training.bf16 = true", 'budget.card = "t4-16gb"'),
        at="training.bf16",
        near=(("training.bf16 = true", 'budget.card = "rtx4070-laptop-8gb"'),),
    ),
    "FT507": Case(
        wrong=("training.fp16 = true", 'model.dtype = "bfloat16"'),
        at="training.fp16",
        near=(("training.fp16 = true",), ("training.fp16 = true", 'model.dtype = "float16"')),
        severity="warning",
    ),
}
"""Checks of the first two levels, by code."""
