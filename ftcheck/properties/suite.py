"""The properties. Each takes a subject and a batch of texts, and raises where it does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ftcheck.errors import InputError
from ftcheck.pipeline.data import RawData
from ftcheck.pipeline.tokens import IGNORED_LABEL, tokenize
from ftcheck.properties.registry import register
from ftcheck.properties.subject import COLUMNS, PropertyFailed, Subject
from ftcheck.recipe import Recipe, dump_recipe, parse_recipe
from ftcheck.recipe.schema import EOS_AS_PAD


def _compare(what: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """Raise at the first position where two rows differ."""
    if list(found) == list(expected):
        return
    if len(found) != len(expected):
        sentence = f"{what} has length {len(found)}, expected {len(expected)}"
    else:
        place = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        sentence = f"{what} has {found[place]} at position {place}, expected {expected[place]}"
    raise PropertyFailed(sentence, [f"found     {_ids(found)}", f"expected  {_ids(expected)}"])


def _ids(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:12]))
    return f"[{shown}{', …' if len(ids) > 12 else ''}]"


@register("tokenization.pad_token")
def pad_is_what_the_recipe_says(subject: Subject, texts: list[str]) -> None:
    """Pads are EOS, or the token that the recipe names."""
    tokenizer, wanted = subject.tokenizer, subject.recipe.tokenization.pad_token
    expected = tokenizer.eos_token if wanted == EOS_AS_PAD else wanted
    if tokenizer.pad_token != expected:
        raise PropertyFailed(f"the pad token is {tokenizer.pad_token!r}, expected {expected!r}")
    pad = tokenizer.convert_tokens_to_ids(expected)
    for row in subject.batch(texts):
        pads = [token for token, real in zip(row.ids, row.mask, strict=True) if not real]
        _compare("the padding", pads, [pad] * len(pads))


@register("tokenization.labels")
def labels_are_what_the_recipe_says(subject: Subject, texts: list[str]) -> None:
    """Labels equal the input ids; with `pads_masked`, −100 stands where the mask is 0."""
    masked = subject.recipe.tokenization.labels == "pads_masked"
    for row in subject.batch(texts):
        pairs = zip(row.ids, row.mask, strict=True)
        expected = [token if real or not masked else IGNORED_LABEL for token, real in pairs]
        _compare("the row of labels", row.labels, expected)


@register("tokenization.max_length")
def length_is_max_length(subject: Subject, texts: list[str]) -> None:
    """Each row has `max_length` positions; with `longest`, those of the longest row at most."""
    width = subject.recipe.tokenization.max_length
    rows = subject.batch(texts)
    if subject.padded_when_collated:
        longest = max((len(ids) for ids in subject.encode(texts)["input_ids"]), default=0)
        if longest > width:
            raise PropertyFailed(f"a row has {longest} tokens, expected {width} at most")
        width = longest
    for row in rows:
        for name, column in zip(COLUMNS, row, strict=True):
            if len(column) != width:
                raise PropertyFailed(f"{name} has length {len(column)}, expected {width}")


@register("tokenization.padding")
def mask_is_1_on_text_and_0_on_pads(subject: Subject, texts: list[str]) -> None:
    """The mask is 1 on every token of the text, EOS and pad tokens in it too, and 0 elsewhere."""
    if subject.recipe.tokenization.packing:
        for row in subject.batch(texts):
            _compare("the mask of a block", row.mask, [1] * len(row.ids))
        return
    for _, ids, row in subject.rows(texts):
        text, pads = [1] * len(ids), [0] * (len(row.ids) - len(ids))
        left = subject.tokenizer.padding_side == "left"
        _compare("the mask", row.mask, pads + text if left else text + pads)


@register("tokenization.max_length")
def truncation_keeps_the_prefix(subject: Subject, texts: list[str]) -> None:
    """A row holds the first tokens of its text, as many as fit; packed rows hold all, in order."""
    for piece in subject.pieces(texts):
        _compare("the row without pads", piece.found, piece.expected)


def _without_eos(recipe: Recipe) -> str:
    settings = recipe.tokenization
    return "" if settings.append_eos or settings.packing else "append_eos and packing are not set"


@register("tokenization.append_eos", not_for=_without_eos)
def texts_end_in_eos(subject: Subject, texts: list[str]) -> None:
    """EOS ends each row with `append_eos`, when it is cut too; when packing, each text."""
    eos = subject.tokenizer.eos_token_id
    if not subject.recipe.tokenization.packing:
        for piece in subject.pieces(texts):
            _compare("the end of a row", piece.found[-1:], [eos])
        return
    joined = [token for row in subject.batch(texts) for token in row.ids]
    ends, end = [], -1
    for ids in filter(None, map(subject.whole, texts)):
        end += len(ids) + 1
        ends.append(end)
    between = [joined[end] for end in ends if end < len(joined)]
    _compare("what stands between packed texts", between, [eos] * len(between))


@register("model.name_or_path")
def decoding_gives_the_text_back(subject: Subject, texts: list[str]) -> None:
    """Decoding a row gives the text up to where it was cut.

    The very text, where the tokenizer is one that can give it back (`Subject.gives_back`); else
    what it makes of the same tokens when nobody has cut, padded or packed them.
    """
    for text, expected, found in subject.pieces(texts):
        whole, body = subject.whole(text), subject.body(text)
        front = subject.front(whole, text)
        own = _common(expected[front:], body)
        decoded = subject.decode(found[front : front + len(own)])
        if not subject.gives_back(text):
            if decoded != subject.decode(own):
                raise PropertyFailed(f"got {decoded!r}, expected {subject.decode(own)!r}")
            continue
        cut = len(own) < len(body)
        ends = decoded.rstrip("\ufffd") if cut else decoded  # a character may be cut in two
        texts_back = (ends, ends.removeprefix(" "), f" {ends}")
        if not any(text.startswith(one) if cut else text == one for one in texts_back):
            raise PropertyFailed(f"got {_short(decoded)} back")


def _common(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """What both begin with."""
    same = zip(some, others, strict=False)
    length = next((i for i, (a, b) in enumerate(same) if a != b), min(len(some), len(others)))
    return list(some[:length])


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"


@register("tokenization")
def batch_equals_its_rows(subject: Subject, texts: list[str]) -> None:
    """A batch of n gives what n times one gives.

    When packing, texts that follow change no block of those before.
    """
    together = subject.encode(texts)
    if subject.recipe.tokenization.packing:
        for count in range(1, len(texts)):
            first = subject.encode(texts[:count])
            blocks = len(first["input_ids"])
            _same(first, {name: rows[:blocks] for name, rows in together.items()}, "first blocks")
        return
    alone: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for text in texts:
        for name, rows in subject.encode([text]).items():
            alone[name] += rows
    _same(together, alone, "batch")


def _same(found: Mapping[str, list[Any]], expected: Mapping[str, list[Any]], what: str) -> None:
    for name in COLUMNS:
        if len(found[name]) != len(expected[name]):
            raise PropertyFailed(
                f"the {what} has {len(found[name])} rows, expected {len(expected[name])}"
            )
        for number, (ours, theirs) in enumerate(zip(found[name], expected[name], strict=True)):
            _compare(f"{name} of row {number} of the {what}", ours, theirs)


def _in_order(recipe: Recipe) -> str:
    return "packing joins rows in their order" if recipe.tokenization.packing else ""


@register("tokenization", not_for=_in_order)
def order_does_not_matter(subject: Subject, texts: list[str]) -> None:
    """Texts in another order give the same rows in that order."""
    backward = subject.encode(texts[::-1])
    _same({name: rows[::-1] for name, rows in backward.items()}, subject.encode(texts), "batch")


@register("tokenization")
def two_runs_agree(subject: Subject, texts: list[str]) -> None:
    """The same texts give the same rows again."""
    _same(subject.encode(texts), subject.encode(texts), "batch")


@register("model.name_or_path")
def ids_are_inside_the_embedding(subject: Subject, texts: list[str]) -> None:
    """Each id has a row in the embedding, once the model is loaded."""
    rows = subject.embedding_rows
    for row in subject.batch(texts):
        outside = [token for token in row.ids if not 0 <= token < rows]
        if outside:
            raise PropertyFailed(f"a row has the id {outside[0]}, and the embedding {rows} rows")


@register("data.path", texts="broken")
def lone_surrogates_are_refused(subject: Subject, texts: list[str]) -> None:
    """Half a character is refused in one clear error that names the row."""
    try:
        subject.encode_raw(texts)
    except InputError:
        return
    except Exception as error:
        raise PropertyFailed(
            f"raised {type(error).__name__}: {error}, expected an InputError"
        ) from error
    raise PropertyFailed("a lone surrogate was encoded, expected an InputError")


@register("data")
def data_set_equals_its_rows(subject: Subject, texts: list[str]) -> None:
    """A `datasets.Dataset` of the texts is tokenized to the rows that the texts give."""
    from datasets import Dataset

    recipe = subject.recipe
    alone = replace(recipe, tokenization=replace(recipe.tokenization, num_proc=None))
    column = recipe.data.text_column
    raw = RawData(
        train=Dataset.from_dict({column: texts}), evaluation=None, text_column=column, dropped=0
    )
    expected = subject.encode(texts)
    try:
        with _no_bars():
            train = tokenize(raw, subject.tokenizer, alone).train
    except InputError:  # nothing is left
        _same({name: [] for name in COLUMNS}, expected, "data set")
        return
    _same({name: list(train[name]) for name in COLUMNS}, expected, "data set")


@contextmanager
def _no_bars() -> Iterator[None]:
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


@register("model", texts="none")
def recipe_survives_writing(subject: Subject, _: list[str]) -> None:
    """The recipe that `dump_recipe` writes loads as the same recipe."""
    recipe = subject.recipe
    again = parse_recipe(dump_recipe(recipe), name=recipe.name)
    if again != recipe:
        raise PropertyFailed(f"it loads as {again}, expected {recipe}")
