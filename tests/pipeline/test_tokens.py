from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftcheck.errors import InputError
from ftcheck.pipeline import load_data, load_tokenizer, tokenize
from ftcheck.pipeline.tokens import IGNORED_LABEL, encode_rows
from ftcheck.recipe import Tokenization
from tests.helpers.recipes import small_recipe

EOS = "<|endoftext|>"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=120)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(small_recipe())


def encode(texts: list[str], tokenizer: Any, **settings: Any) -> dict[str, list[Any]]:
    return encode_rows(texts, tokenizer, Tokenization(**settings))


def test_padded_rows_are_those_of_the_tokenizer_itself(tokenizer: Any) -> None:
    texts = ["def f(x):\n    return x\n", "", "long " * 100, " "]
    ours = encode(texts, tokenizer, max_length=32)
    theirs = tokenizer(texts, truncation=True, padding="max_length", max_length=32)
    assert ours["input_ids"] == theirs["input_ids"]
    assert ours["attention_mask"] == theirs["attention_mask"]
    assert ours["labels"] == theirs["input_ids"]


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(2, 40), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_text(
    tokenizer: Any, texts: list[str], max_length: int, masked: bool, append_eos: bool
) -> None:
    labels = "pads_masked" if masked else "input_ids"
    out = encode(texts, tokenizer, max_length=max_length, labels=labels, append_eos=append_eos)
    rows = list(zip(out["input_ids"], out["attention_mask"], out["labels"], strict=True))
    if not masked:
        assert len(rows) == len(texts)
    for ids, mask, label in rows:
        real = sum(mask)
        assert len(ids) == len(mask) == len(label) == max_length
        assert mask == [1] * real + [0] * (max_length - real)
        assert ids[real:] == [tokenizer.pad_token_id] * (max_length - real)
        assert label[:real] == ids[:real]
        assert label[real:] == ([IGNORED_LABEL] * (max_length - real) if masked else ids[real:])
        assert not append_eos or ids[real - 1] == tokenizer.eos_token_id
        assert max(ids) < len(tokenizer)


@given(TEXTS.filter(lambda text: EOS not in text))
@settings(deadline=None, max_examples=60)
def test_decoding_gives_the_text_back(tokenizer: Any, text: str) -> None:
    ids = encode([text], tokenizer, max_length=1000)["input_ids"][0]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_eos_survives_truncation_and_is_not_doubled(tokenizer: Any) -> None:
    out = encode(
        ["word " * 50, "short", f"ended{EOS}"],
        tokenizer,
        max_length=8,
        append_eos=True,
        labels="pads_masked",
        padding="longest",
    )
    assert [row[-1] for row in out["input_ids"]] == [tokenizer.eos_token_id] * 3
    assert len(out["input_ids"][0]) == 8
    assert out["input_ids"][2].count(tokenizer.eos_token_id) == 1
    assert out["labels"][0][-1] == tokenizer.eos_token_id  # learned, though it is the pad token


def test_truncation_keeps_the_front_and_counts_what_it_cuts(tokenizer: Any) -> None:
    text = "one two three four five six seven eight nine ten"
    whole = tokenizer(text)["input_ids"]
    for max_length in (len(whole) - 1, len(whole), len(whole) + 1):
        out = encode([text], tokenizer, max_length=max_length)
        assert out["cut"] == [max(0, len(whole) - max_length)]
        assert out["input_ids"][0][: len(whole)] == whole[:max_length]


def test_packing_loses_nothing_but_the_rest(tokenizer: Any) -> None:
    texts = ["def f():\n    pass\n", "", "x = 1\n", "y" * 70]
    out = encode(texts, tokenizer, max_length=16, packing=True)
    joined = [
        token
        for text in texts
        if text
        for token in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)
    ]
    assert [token for row in out["input_ids"] for token in row] == joined[: len(joined) // 16 * 16]
    assert all(mask == [1] * 16 for mask in out["attention_mask"])
    assert out["labels"] == out["input_ids"]
    assert sum(out["cut"]) == len(joined) % 16


def test_left_padding_follows_the_tokenizer() -> None:
    tokenizer = load_tokenizer(small_recipe())
    tokenizer.padding_side = "left"
    out = encode(["a b"], tokenizer, max_length=8, labels="pads_masked")
    real = sum(out["attention_mask"][0])
    assert out["attention_mask"][0] == [0] * (8 - real) + [1] * real
    assert out["labels"][0][:-real] == [IGNORED_LABEL] * (8 - real)


def test_short_rows_are_left_out_where_they_have_nothing_to_learn(tokenizer: Any) -> None:
    texts = ["", "a", "def f(): pass"]
    assert len(encode(texts, tokenizer, max_length=8)["input_ids"]) == 3
    for settings_ in ({"padding": "longest"}, {"labels": "pads_masked"}):
        assert len(encode(texts, tokenizer, max_length=8, **settings_)["input_ids"]) == 1


def test_counts_of_a_split() -> None:
    recipe = small_recipe("tokenization.max_length=24")
    raw, tokenizer = load_data(recipe), load_tokenizer(recipe)
    counts = tokenize(raw, tokenizer, recipe).train_counts
    whole = [len(tokenizer(text)["input_ids"]) for text in raw.train["text"]]
    assert counts.raw_rows == counts.rows == 48
    assert counts.real == sum(min(length, 23) + 1 for length in whole)
    assert counts.cut == sum(max(0, length - 23) for length in whole)
    assert counts.cut_rows == sum(length > 23 for length in whole)
    assert counts.pads == 0


def test_padding_is_counted_with_fixed_rows() -> None:
    recipe = small_recipe("tokenization.padding=max_length", "tokenization.max_length=128")
    counts = tokenize(load_data(recipe), load_tokenizer(recipe), recipe).train_counts
    assert counts.positions == 48 * 128
    assert counts.pads == 48 * 128 - counts.real


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["tokenization.packing=true", "tokenization.max_length=100000"],
            "fills no block of 100000",
        ),
    ],
)
def test_nothing_left_is_an_error(overrides: list[str], message: str) -> None:
    recipe = small_recipe(*overrides)
    raw, tokenizer = load_data(recipe), load_tokenizer(recipe)
    with pytest.raises(InputError, match=message):
        tokenize(raw, tokenizer, recipe)


def test_a_pad_token_of_its_own_is_added_behind_the_vocabulary() -> None:
    plain = load_tokenizer(small_recipe())
    own = load_tokenizer(small_recipe("tokenization.pad_token=<|pad|>"))
    assert own.pad_token_id == len(plain)
    assert own.pad_token_id != own.eos_token_id
    assert own("def f(): pass")["input_ids"] == plain("def f(): pass")["input_ids"]


def test_cached_rows_are_not_those_of_other_settings() -> None:
    tokenizer = load_tokenizer(small_recipe())
    lengths = []
    for max_length in (16, 32, 16):
        recipe = small_recipe(f"tokenization.max_length={max_length}")
        rows = tokenize(load_data(recipe), tokenizer, recipe).train
        lengths.append(max(len(ids) for ids in rows["input_ids"]))
    assert lengths == [16, 32, 16]


def test_half_a_character_is_refused_by_its_row(tokenizer: Any) -> None:
    with pytest.raises(
        InputError, match=r"row 2 holds the lone surrogate U\+D800 as its character 3"
    ):
        encode(["a", "b \ud800"], tokenizer)
