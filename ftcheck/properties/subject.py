"""What the properties look at: rows as the pipeline makes them, beside what the tokenizer says.

The tokenizer itself, called once without truncation, is the reference: it says which tokens a text
has. What the pipeline makes of them (cut, ended, padded, packed, labelled, collated) is judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ftcheck.errors import FtcheckError
from ftcheck.pipeline.tokens import encode_rows
from ftcheck.pipeline.training import build_collator
from ftcheck.recipe import Recipe
from ftcheck.sources.base_model import find_base_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["COLUMNS", "Piece", "PropertyFailed", "Row", "Subject"]

COLUMNS = ("input_ids", "attention_mask", "labels")

Encoded = dict[str, list[Any]]


class PropertyFailed(AssertionError):
    """A property does not hold; the words are for people.

    Args:
        sentence: What was found and what was expected.
        evidence: More of it, a line each.
    """

    def __init__(self, sentence: str, evidence: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.evidence = tuple(evidence)

    @classmethod
    def within(cls, error: BaseException) -> PropertyFailed | None:
        """What an error is or holds: Hypothesis wraps what fails one time and not the next."""
        inner = (error, *getattr(error, "exceptions", ()), error.__cause__, error.__context__)
        return next((one for one in inner if isinstance(one, cls)), None)


class Row(NamedTuple):
    """One row of a batch, pads included."""

    ids: list[int]
    mask: list[int]
    labels: list[int]

    @property
    def real(self) -> list[int]:
        """Ids that the mask calls text."""
        return [token for token, one in zip(self.ids, self.mask, strict=True) if one]


class Piece(NamedTuple):
    """A text with the ids that are expected of it, and those that were found."""

    text: str
    expected: list[int]
    found: list[int]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recipe's tokenization.

    Attributes:
        recipe: The recipe.
        tokenizer: Its tokenizer, with the pad token set.
        encoder: From texts to columns of rows, as `encode_rows` gives them; `None` is that.
    """

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    encoder: Callable[[list[str]], Encoded] | None = None

    def encode(self, texts: list[str]) -> Encoded:
        """Rows before they are collated, as `COLUMNS`.

        Raises:
            PropertyFailed: The encoder broke.
        """
        try:
            out = self.encode_raw(texts)
        except FtcheckError:
            raise
        except Exception as error:
            raise PropertyFailed(f"encoding raised {type(error).__name__}: {error}") from error
        return {name: out[name] for name in COLUMNS}

    def encode_raw(self, texts: list[str]) -> Encoded:
        """What the encoder returns, or raises."""
        if self.encoder is not None:
            return self.encoder(texts)
        return encode_rows(texts, self.tokenizer, self.recipe.tokenization)

    def batch(self, texts: list[str]) -> list[Row]:
        """Rows as they come to the model: collated."""
        columns = self.encode(texts)
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if rows and self.padded_when_collated:
            collated = build_collator(self.tokenizer, self.recipe)(rows)
            columns = {name: collated[name].tolist() for name in COLUMNS}
        return [Row(*row) for row in zip(*columns.values(), strict=True)]

    @property
    def padded_when_collated(self) -> bool:
        """Whether each batch is padded to its longest row."""
        settings = self.recipe.tokenization
        return settings.padding == "longest" and not settings.packing

    def pieces(self, texts: list[str]) -> list[Piece]:
        """What became of each text that is not too short to be kept.

        Raises:
            PropertyFailed: There are fewer or more rows than such texts.
        """
        if self.recipe.tokenization.packing:
            return list(self._packed(texts))
        return [Piece(text, ids, row.real) for text, ids, row in self.rows(texts)]

    def rows(self, texts: list[str]) -> list[tuple[str, list[int], Row]]:
        """Text, expected ids and row, for each text that is not too short; not when packing.

        Raises:
            PropertyFailed: There are fewer or more rows than such texts.
        """
        settings = self.recipe.tokenization
        expected = [(text, self.expected(text)) for text in texts]
        if self.padded_when_collated or settings.labels == "pads_masked":
            expected = [(text, ids) for text, ids in expected if len(ids) >= 2]
        rows = self.batch(texts)
        if len(rows) != len(expected):
            raise PropertyFailed(f"there are {len(rows)} rows, expected {len(expected)}")
        return [(text, ids, row) for (text, ids), row in zip(expected, rows, strict=True)]

    def _packed(self, texts: list[str]) -> Iterator[Piece]:
        joined = [token for row in self.batch(texts) for token in row.ids]
        whole = [(text, ids) for text in texts if (ids := self.whole(text))]
        block = self.recipe.tokenization.max_length
        expected = sum(len(ids) + 1 for _, ids in whole) // block * block
        if len(joined) != expected:
            raise PropertyFailed(f"all blocks hold {len(joined)} tokens, expected {expected}")
        start = 0
        for text, ids in whole:
            found = joined[start : start + len(ids)]
            yield Piece(text, ids[: len(found)], found)
            start += len(ids) + 1

    def whole(self, text: str) -> list[int]:
        """Ids of a text that is not cut, with what the tokenizer adds of its own."""
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def body(self, text: str) -> list[int]:
        """Ids of a text alone."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def expected(self, text: str) -> list[int]:
        """Ids of a row without its pads: the front of the text, and EOS where the recipe says so.

        What the tokenizer adds by itself, such as BOS or `[CLS]` and `[SEP]`, is kept when cut.
        """
        settings = self.recipe.tokenization
        room = settings.max_length - (1 if settings.append_eos else 0)
        ids = self.whole(text)
        if len(ids) > room:
            front, body = self.front(ids, text), self.body(text)
            back = ids[front + len(body) :]
            ids = [*ids[:front], *body[: max(0, room - front - len(back))], *back][:room]
        eos = self.tokenizer.eos_token_id
        return [*ids, eos] if settings.append_eos and ids[-1:] != [eos] else ids

    def front(self, ids: list[int], text: str) -> int:
        """How many ids the tokenizer puts before a text by itself."""
        frame, body = self._frame, self.body(text)
        for front in range(len(frame) + 1):
            if ids == [*frame[:front], *body, *frame[front:]]:
                return front
        return 0

    @cached_property
    def _frame(self) -> list[int]:
        return self.whole("")

    @cached_property
    def embedding_rows(self) -> int:
        """Rows of the input embedding once the model is loaded, which adds those that lack.

        Raises:
            Unavailable: The hub or the network does not have the model's configuration.
        """
        return max(find_base_model(self.recipe).embedding_rows, len(self.tokenizer))

    def decode(self, ids: list[int]) -> str:
        """Text of ids, as the tokenizer gives it back."""
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def gives_back(self, text: str) -> bool:
        """Whether decoding must give this very text, but for one space at its front.

        So it must where every byte has a token (byte-level, or with tokens for bytes to fall back
        on) and the tokenizer changes nothing before it cuts. Others lower, strip accents or have
        words that they do not know; and some put a space behind each special token.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or any(token in text for token in self._spaced_tokens):
            return False
        model, decoders, normalizers = self._parts
        if "ByteLevel" in decoders:
            normalizer = backend.normalizer
            return normalizer is None or normalizer.normalize_str(text) == text
        replaces_only = normalizers <= {"Prepend", "Replace"} and "▁" not in text
        return bool(model.get("byte_fallback")) and "ByteFallback" in decoders and replaces_only

    @cached_property
    def _spaced_tokens(self) -> list[str]:
        """Added tokens beside which the tokenizer adds blanks, or swallows them."""
        added = self.tokenizer.added_tokens_decoder.values()
        exact = "ByteLevel" in self._parts[1] and self.decode(self.body("x")) == "x"
        return [one.content for one in added if one.lstrip or one.rstrip or not exact]

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], set[str], set[str]]:
        """Model, kinds of decoders, kinds of normalizers."""
        parts = json.loads(self.tokenizer.backend_tokenizer.to_str())
        return parts["model"], _kinds(parts["decoder"]), _kinds(parts["normalizer"])


def _kinds(part: dict[str, Any] | None) -> set[str]:
    if part is None:
        return set()
    inner = part.get("decoders") or part.get("normalizers") or []
    return {part["type"]} - {"Sequence"} | {kind for one in inner for kind in _kinds(one)}
