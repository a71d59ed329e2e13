"""Each property holds for sound recipes and fails for the bug that it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import ftcheck
from ftcheck.errors import InputError
from ftcheck.pipeline import load_tokenizer, tokenize
from ftcheck.pipeline.tokens import encode_rows
from ftcheck.properties import PROPERTIES, Property, PropertyFailed, Subject, find, hold
from ftcheck.properties import suite as the_suite
from ftcheck.recipe import Recipe, Tokenization, dump_recipe, load_recipe
from ftcheck.strategies import SPECIAL_TOKENS, batches
from tests.properties.tokenizers_of_many_kinds import KINDS, byte_level, with_dropout, with_gap

EOS = "<|endoftext|>"
BATCHES = [
    [""],
    ["a"],
    [" "],
    ["", "the turn", "", "\r\n\0"],
    ["The  turn é e\u0301 ▁ ## 👩‍🚒 \ufffd", " the turn"],
    [f"the{EOS} turn{EOS}", EOS, f"{EOS}a", "<s>0</s>", "a [CLS] b [SEP][UNK]"],
    ["the turn " * 200, "a", "\u00e9" * 300, "👩‍🚒" * 60],
]
"""Texts that every kind of tokenizer is tried on; Hypothesis looks for more where it is slow."""

REFERENCE = (
    "tokenization.padding=max_length",
    "tokenization.labels=input_ids",
    "tokenization.append_eos=false",
)
SOUND = {
    "quickstart": (),
    "reference": REFERENCE,
    "packing": ("tokenization.packing=true", "tokenization.append_eos=false"),
    "own-pad": ("tokenization.pad_token=<|pad|>", "tokenization.padding=max_length"),
    "pads-learned": ("tokenization.labels=input_ids",),
    "short": ("tokenization.max_length=6", "tokenization.padding=max_length"),
}
"""Name to what it changes of the quickstart."""


def recipe_of(name: str) -> Recipe:
    return load_recipe("quickstart", overrides=SOUND[name])


def padded(recipe: Recipe, tokenizer: Any, side: str = "right") -> Subject:
    """A subject whose tokenizer has the pad token of the recipe."""
    wanted = recipe.tokenization.pad_token
    tokenizer.add_special_tokens(
        {"pad_token": tokenizer.eos_token if wanted == "eos_token" else wanted}
    )
    tokenizer.padding_side = side
    return Subject(recipe=recipe, tokenizer=tokenizer)


def holds_everywhere(subject: Subject) -> None:
    for one in PROPERTIES.values():
        if one.not_for(subject.recipe):
            continue
        for batch in BATCHES:
            one.hold(subject, [*batch, "\udfff"] if one.texts == "broken" else batch)


def try_with_hypothesis(one: Property, subject: Subject, *, examples: int) -> None:
    longest = 8 * subject.recipe.tokenization.max_length
    special = (*SPECIAL_TOKENS, subject.recipe.tokenization.pad_token)
    drawn = batches(longest=longest, special_tokens=special, lone_surrogates=one.texts == "broken")

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def test(texts: list[str]) -> None:
        one.hold(subject, texts)

    test()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", SOUND)
def test_sound_recipes_have_all(name: str, side: str) -> None:
    recipe = recipe_of(name)
    holds_everywhere(padded(recipe, load_tokenizer(recipe), side))


@pytest.mark.parametrize("name", ["quickstart", "reference", "packing", "short"])
@pytest.mark.parametrize("kind", KINDS)
def test_sound_tokenizers_have_all(kind: str, name: str) -> None:
    holds_everywhere(padded(recipe_of(name), KINDS[kind]()))


@pytest.mark.parametrize("name", ["gpt2-wikitext2", "text-file"])
def test_built_in_recipes_have_all(name: str) -> None:
    recipe = load_recipe(name, overrides=["model.name_or_path=ftcheck:tiny-gpt2"])
    holds_everywhere(Subject(recipe=recipe, tokenizer=load_tokenizer(recipe)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("kind", [*KINDS, "embedded"])
def test_no_text_shows_a_fault_of_a_sound_tokenizer(kind: str, name: str) -> None:
    recipe = recipe_of(name)
    made = load_tokenizer(recipe) if kind == "embedded" else KINDS[kind]()
    subject = padded(recipe, made)
    for one in PROPERTIES.values():
        if not one.not_for(recipe) and one.texts != "none":
            try_with_hypothesis(one, subject, examples=100)


# Bugs: each changes what the pipeline makes of the texts, or the tokenizer.

Rows = dict[str, list[Any]]


def encoded(change: Callable[[Rows, Subject], Rows], name: str = "reference") -> Subject:
    """A subject whose encoder changes what the pipeline's gives."""
    recipe = recipe_of(name)
    plain = Subject(recipe=recipe, tokenizer=load_tokenizer(recipe))
    return replace(plain, encoder=lambda texts: change(plain.encode_raw(texts), plain))


def with_settings(name: str = "reference", **changes: Any) -> Subject:
    """A subject whose encoder follows other settings than the recipe has."""
    recipe = recipe_of(name)
    tokenizer = load_tokenizer(recipe)
    other: Tokenization = replace(recipe.tokenization, **changes)
    return Subject(
        recipe=recipe,
        tokenizer=tokenizer,
        encoder=lambda texts: encode_rows(texts, tokenizer, other),
    )


def tokenizer_with(name: str = "reference", **attributes: Any) -> Subject:
    recipe = recipe_of(name)
    tokenizer = load_tokenizer(recipe)
    for attribute, value in attributes.items():
        setattr(tokenizer, attribute, value)
    return Subject(recipe=recipe, tokenizer=tokenizer)


def each_row(change: Callable[[list[int]], list[int]], *columns: str) -> Any:
    def changed(rows: Rows, _: Subject) -> Rows:
        return {**rows, **{name: [change(row) for row in rows[name]] for name in columns}}

    return changed


def pads_by_id(rows: Rows, subject: Subject) -> Rows:
    """The mask of those who take EOS for a pad wherever it stands."""
    pad = subject.tokenizer.pad_token_id
    mask = [[int(token != pad) for token in ids] for ids in rows["input_ids"]]
    return {**rows, "attention_mask": mask}


def labels_by_id(rows: Rows, subject: Subject) -> Rows:
    """As `DataCollatorForLanguageModeling` masks: each EOS, the pad's or not."""
    pad = subject.tokenizer.pad_token_id
    labels = [[-100 if token == pad else token for token in ids] for ids in rows["input_ids"]]
    return {**rows, "labels": labels}


def cut_eos(rows: Rows, subject: Subject) -> Rows:
    """A full row ends in a token of its text, as where EOS is put behind and then cut."""
    eos = subject.tokenizer.eos_token_id
    ids = [[*row[:-1], 0] if row[-1] == eos else row for row in rows["input_ids"]]
    return {**rows, "input_ids": ids}


def without_eos(rows: Rows, subject: Subject) -> Rows:
    """Something else stands between packed texts."""
    eos = subject.tokenizer.eos_token_id
    ids = [[0 if token == eos else token for token in row] for row in rows["input_ids"]]
    return {**rows, "input_ids": ids}


def as_wide_as_the_first(rows: Rows, _: Subject) -> Rows:
    """A buffer that is kept: later rows have the end of the first."""
    ids = rows["input_ids"]
    return {**rows, "input_ids": [[*row[:-1], ids[0][-1]] for row in ids]}


def sorted_rows(rows: Rows, _: Subject) -> Rows:
    order = sorted(range(len(rows["input_ids"])), key=lambda row: sum(rows["attention_mask"][row]))
    return {name: [column[row] for row in order] for name, column in rows.items()}


def longest_first() -> Subject:
    """Packing that sorts its texts."""
    plain = tokenizer_with("packing")
    return replace(
        plain, encoder=lambda texts: plain.encode_raw(sorted(texts, key=len, reverse=True))
    )


def counting() -> Subject:
    calls = iter(range(10**9))
    return encoded(each_row(lambda row: [*row[:-1], next(calls)], "input_ids"))


def types_only(texts: list[str]) -> Rows:
    raise TypeError("TextEncodeInput must be Union[TextInputSequence, …]")


def without_bytes() -> Subject:
    """Byte-level, but the tokens of CR and NUL are not there."""
    return padded(recipe_of("reference"), byte_level(missing="čĀ"))


def other_pad(rows: Rows, _: Subject) -> Rows:
    pairs = zip(rows["input_ids"], rows["attention_mask"], strict=True)
    ids = [[token if one else 7 for token, one in zip(*row, strict=True)] for row in pairs]
    return {**rows, "input_ids": ids, "labels": ids}


def replaced(texts: list[str]) -> Rows:
    return with_settings().encode_raw([text.encode(errors="replace").decode() for text in texts])


BUGS: list[tuple[str, Callable[[], Subject]]] = [
    ("pad-is-what-the-recipe-says", lambda: tokenizer_with(pad_token="def")),
    ("pad-is-what-the-recipe-says", lambda: encoded(other_pad)),
    ("labels-are-what-the-recipe-says", lambda: with_settings(labels="pads_masked")),
    ("labels-are-what-the-recipe-says", lambda: encoded(labels_by_id, "own-pad")),
    ("labels-are-what-the-recipe-says", lambda: encoded(labels_by_id, "packing")),
    (
        "labels-are-what-the-recipe-says",
        lambda: encoded(each_row(lambda row: [*row[1:], -100], "labels")),
    ),
    ("length-is-max-length", lambda: with_settings(max_length=127)),
    ("length-is-max-length", lambda: with_settings(padding="longest")),
    ("length-is-max-length", lambda: with_settings("quickstart", max_length=129)),
    ("length-is-max-length", lambda: with_settings("packing", max_length=64)),
    ("mask-is-1-on-text-and-0-on-pads", lambda: encoded(pads_by_id)),
    ("mask-is-1-on-text-and-0-on-pads", lambda: encoded(pads_by_id, "packing")),
    (
        "mask-is-1-on-text-and-0-on-pads",
        lambda: encoded(each_row(lambda row: [1] * len(row), "attention_mask")),
    ),
    (
        "mask-is-1-on-text-and-0-on-pads",
        lambda: replace(tokenizer_with(padding_side="left"), encoder=tokenizer_with().encode_raw),
    ),
    ("truncation-keeps-the-prefix", lambda: tokenizer_with(truncation_side="left")),
    (
        "truncation-keeps-the-prefix",
        lambda: encoded(each_row(lambda row: [*row[1:], row[0]], "input_ids"), "packing"),
    ),
    ("texts-end-in-eos", lambda: with_settings("quickstart", append_eos=False)),
    ("texts-end-in-eos", lambda: encoded(cut_eos, "own-pad")),
    ("texts-end-in-eos", lambda: encoded(without_eos, "packing")),
    ("decoding-gives-the-text-back", without_bytes),
    (
        "decoding-gives-the-text-back",
        lambda: encoded(each_row(lambda row: [*row[1:], row[0]], "input_ids")),
    ),
    ("batch-equals-its-rows", lambda: encoded(as_wide_as_the_first)),
    ("batch-equals-its-rows", longest_first),
    ("order-does-not-matter", lambda: encoded(sorted_rows)),
    ("two-runs-agree", counting),
    ("two-runs-agree", lambda: padded(recipe_of("reference"), with_dropout())),
    ("ids-are-inside-the-embedding", lambda: padded(recipe_of("reference"), with_gap())),
    ("lone-surrogates-are-refused", lambda: replace(with_settings(), encoder=types_only)),
    ("lone-surrogates-are-refused", lambda: replace(with_settings(), encoder=replaced)),
]


@pytest.mark.parametrize(
    ("name", "bug"), BUGS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(BUGS)]
)
def test_a_bug_fails_its_property(name: str, bug: Callable[[], Subject]) -> None:
    with pytest.raises(Exception, match=r"does not hold|[Ii]nconsistent|unreliable") as caught:
        try_with_hypothesis(find(name), bug(), examples=300)
    failed = PropertyFailed.within(caught.value)
    assert failed is not None
    assert f"{name} does not hold" in str(failed)
    assert f'reproduce: ftcheck.properties.hold("{name}"' in str(failed)


def test_rows_of_another_text_fail_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_row_lost(raw: Any, tokenizer: Any, recipe: Recipe) -> Any:
        made = tokenize(raw, tokenizer, recipe)
        return replace(made, train=made.train.select(range(len(made.train) - 1)))

    monkeypatch.setattr(the_suite, "tokenize", last_row_lost)
    with pytest.raises(PropertyFailed, match="the data set has 0 rows, expected 1"):
        hold("data-set-equals-its-rows", ["a text"], "quickstart")


def test_what_is_not_written_fails_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_lora(recipe: Recipe) -> str:
        return dump_recipe(replace(recipe, lora=None))

    monkeypatch.setattr(the_suite, "dump_recipe", without_lora)
    with pytest.raises(PropertyFailed, match="recipe-survives-writing does not hold"):
        hold("recipe-survives-writing", [], "quickstart")


def test_each_property_has_its_bug() -> None:
    elsewhere = {"data-set-equals-its-rows", "recipe-survives-writing"}
    assert {name for name, _ in BUGS} | elsewhere == set(PROPERTIES)
    assert len(PROPERTIES) == 14


def test_the_call_that_is_printed_fails_again() -> None:
    tokenizer = load_tokenizer(load_recipe("quickstart"))
    tokenizer.truncation_side = "left"
    with pytest.raises(PropertyFailed) as caught:
        hold("truncation-keeps-the-prefix", ["\ufffd" * 43], "quickstart", tokenizer=tokenizer)
    call = str(caught.value).partition("reproduce: ")[2]
    assert call == (
        'ftcheck.properties.hold("truncation-keeps-the-prefix", [\'\ufffd\' * 43], "quickstart", '
        "tokenizer=tokenizer)"
    )
    with pytest.raises(PropertyFailed) as again:
        eval(call, {"ftcheck": ftcheck, "tokenizer": tokenizer})
    assert str(again.value) == str(caught.value)


def test_an_encoder_that_breaks_is_told_in_words() -> None:
    subject = replace(with_settings(), encoder=types_only)
    with pytest.raises(PropertyFailed, match="encoding raised TypeError: TextEncodeInput"):
        find("two-runs-agree").hold(subject, ["a"])


def test_an_unknown_property_is_refused() -> None:
    with pytest.raises(InputError, match="no property 'two-runs'"):
        hold("two-runs", ["a"], "quickstart")
