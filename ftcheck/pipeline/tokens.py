"""Step 2, tokens: from text to `input_ids`, `attention_mask` and `labels`."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ftcheck import __version__
from ftcheck.assets import model_dir
from ftcheck.errors import InputError
from ftcheck.pipeline.data import RawData
from ftcheck.recipe import Recipe, Tokenization
from ftcheck.recipe.schema import EOS_AS_PAD
from ftcheck.sources.base_model import BaseModel, find_base_model

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "IGNORED_LABEL",
    "TokenCounts",
    "TokenizedData",
    "encode_rows",
    "load_tokenizer",
    "tokenize",
    "tokenizer_at_hand",
]

IGNORED_LABEL = -100
"""Label that `torch.nn.functional.cross_entropy` leaves out (its default `ignore_index`)."""

_COUNTS = ("length", "real", "cut")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """What became of the rows of one split.

    Attributes:
        raw_rows: Rows of text.
        rows: Rows of tokens: fewer where short ones were left out, others when packing.
        positions: Tokens in all rows before batching, pads included.
        real: Those that are no pads.
        cut: Tokens that truncation took away; when packing, those that filled no block.
        cut_rows: Rows that truncation took tokens from.
        short_rows: Rows below 2 tokens that were left out: with masked or no padding they have
            nothing to learn from, and a batch of them alone has a loss of NaN.
        padded_in_batches: Whether each batch is padded to its longest row when it is collated;
            those pads are in no count here.
    """

    raw_rows: int
    rows: int
    positions: int
    real: int
    cut: int
    cut_rows: int
    short_rows: int
    padded_in_batches: bool

    @property
    def pads(self) -> int:
        """Positions that are padding."""
        return self.positions - self.real


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedData:
    """Rows ready for a `Trainer`: columns `input_ids`, `attention_mask`, `labels`, lists of int.

    With `padding = "longest"` rows have their own lengths, and the collator pads.
    """

    train: Dataset
    evaluation: Dataset | None
    train_counts: TokenCounts
    evaluation_counts: TokenCounts | None


def load_tokenizer(recipe: Recipe, *, source: BaseModel | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base model and give it the pad token of the recipe.

    A pad token that the vocabulary lacks is added at its end, so that `len(tokenizer)` may be
    larger than the embedding; `load_base` resizes that.

    Args:
        recipe: The recipe.
        source: Where the base model is; found where `None`.

    Raises:
        InputError: There is no tokenizer in the folder, or it has no EOS token to pad with.
        Unavailable: The hub or the network does not have it.
    """
    from transformers import AutoTokenizer

    source = source or find_base_model(recipe)
    with source.loading("tokenizer of"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.location, **source.options
        )
    _set_pad_token(recipe, tokenizer)
    return tokenizer


def tokenizer_at_hand(
    recipe: Recipe, source: BaseModel, assume: Callable[[str], None]
) -> PreTrainedTokenizerBase:
    """The tokenizer of the base model where it is on this machine, else the embedded one.

    Args:
        recipe: Names the pad token.
        source: Where the base model is.
        assume: Receives a sentence where it is the embedded one, which pads with EOS.
    """
    if source.has_tokenizer:
        return load_tokenizer(recipe, source=source)
    from transformers import AutoTokenizer

    assume(
        f"tokenizer: that of {source.name} is not on this machine; prompts are tokenized by another"
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(model_dir()))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _set_pad_token(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    wanted = recipe.tokenization.pad_token
    needs_eos = wanted == EOS_AS_PAD or recipe.tokenization.append_eos
    if (needs_eos or recipe.tokenization.packing) and tokenizer.eos_token is None:
        raise recipe.fault(
            "tokenization.pad_token",
            f"the tokenizer of {recipe.model.name_or_path} has no EOS token",
            "Name another pad token, and leave append_eos and packing out.",
        )
    if wanted == EOS_AS_PAD:
        tokenizer.pad_token = tokenizer.eos_token
    else:
        tokenizer.add_special_tokens({"pad_token": wanted})


def tokenize(raw: RawData, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> TokenizedData:
    """Tokenize, cut, end, pad or pack, and label every row.

    Raises:
        InputError: No row is left to train or to evaluate on.
    """
    train, train_counts = _tokenize_split(raw.train, raw.text_column, tokenizer, recipe, "train")
    evaluation, evaluation_counts = None, None
    if raw.evaluation is not None:
        evaluation, evaluation_counts = _tokenize_split(
            raw.evaluation, raw.text_column, tokenizer, recipe, "evaluate"
        )
    return TokenizedData(
        train=train,
        evaluation=evaluation,
        train_counts=train_counts,
        evaluation_counts=evaluation_counts,
    )


def _tokenize_split(
    rows: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, purpose: str
) -> tuple[Dataset, TokenCounts]:
    settings = recipe.tokenization
    encoded = rows.map(
        encode_rows,
        batched=True,
        input_columns=[column],
        fn_kwargs={"tokenizer": tokenizer, "settings": settings},
        remove_columns=rows.column_names,
        num_proc=settings.num_proc,
        new_fingerprint=_fingerprint(rows, tokenizer, settings),
        desc=None,
    )
    if len(encoded) == 0:
        reason = (
            f"the text fills no block of {settings.max_length} tokens"
            if settings.packing
            else "every row has fewer than 2 tokens"
        )
        raise recipe.fault(
            "data", f"there is nothing left to {purpose} on: {reason}", "Give more text."
        )
    length, real, cut = (list(encoded[name]) for name in _COUNTS)
    counts = TokenCounts(
        raw_rows=len(rows),
        rows=len(encoded),
        positions=sum(length),
        real=sum(real),
        cut=sum(cut),
        cut_rows=sum(1 for tokens in cut if tokens),
        short_rows=0 if settings.packing else len(rows) - len(encoded),
        padded_in_batches=settings.padding == "longest" and not settings.packing,
    )
    return encoded.remove_columns(list(_COUNTS)), counts


def encode_rows(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, settings: Tokenization
) -> dict[str, list[Any]]:
    """Encode a batch of texts.

    Args:
        texts: One text a row.
        tokenizer: With `pad_token_id` and, where the settings need it, `eos_token_id` set.
        settings: `[tokenization]`.

    Returns:
        `input_ids`, `attention_mask` (1 on text, 0 on pads) and `labels`, each a list of rows of
        int, and a count a row: `length`, `real` (no pads), `cut` (tokens that were cut off).

    Raises:
        InputError: A text holds a lone surrogate, which is no character.
    """
    _refuse_surrogates(texts)
    reserved = 1 if settings.append_eos and not settings.packing else 0
    length = None if settings.packing else settings.max_length - reserved
    encoded = tokenizer(texts, truncation=length is not None, max_length=length, verbose=False)
    rows: list[list[int]] = [list(ids) for ids in encoded["input_ids"]]
    cut = [0] * len(rows)
    if length is not None and encoded.is_fast:
        cut = [sum(len(rest.ids) for rest in row.overflowing) for row in encoded.encodings]
    if reserved:
        rows = [
            ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, _eos(tokenizer)] for ids in rows
        ]
    if settings.packing:
        rows, cut = _packed(rows, _eos(tokenizer), settings.max_length)
    return _labelled(rows, cut, tokenizer, settings)


def _refuse_surrogates(texts: list[str]) -> None:
    """Some tokenizers take half a character, others speak of types. Files and `datasets`, which
    hold UTF-8, have none; texts from elsewhere may."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        for number, text in enumerate(texts, start=1):
            for place, character in enumerate(text, start=1):
                if "\ud800" <= character <= "\udfff":
                    raise InputError(
                        f"row {number} holds the lone surrogate U+{ord(character):04X} as its "
                        f"character {place}, expected text that UTF-8 can hold.",
                        next_step='Read the text anew with errors="replace", or drop the row.',
                    ) from None


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    eos = tokenizer.eos_token_id
    assert isinstance(eos, int)
    return eos


def _packed(rows: list[list[int]], eos: int, block: int) -> tuple[list[list[int]], list[int]]:
    """Join rows with EOS behind each and cut the whole into blocks; what fills none is cut."""
    joined = [token for ids in rows if ids for token in (*ids, eos)]
    whole = len(joined) // block * block
    blocks = [joined[start : start + block] for start in range(0, whole, block)]
    cut = [0] * len(blocks)
    if cut:
        cut[-1] = len(joined) - whole
    return blocks, cut


def _labelled(
    rows: list[list[int]],
    cut: list[int],
    tokenizer: PreTrainedTokenizerBase,
    settings: Tokenization,
) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {
        name: [] for name in ("input_ids", "attention_mask", "labels", *_COUNTS)
    }
    masked = settings.labels == "pads_masked"
    for ids, lost in zip(rows, cut, strict=True):
        if len(ids) < 2 and (masked or settings.padding == "longest"):
            continue
        pads = settings.max_length - len(ids) if settings.padding == "max_length" else 0
        padded = _padded(ids, pads, tokenizer.pad_token_id, tokenizer.padding_side)
        mask = _padded([1] * len(ids), pads, 0, tokenizer.padding_side)
        out["input_ids"].append(padded)
        out["attention_mask"].append(mask)
        out["labels"].append(
            _padded(list(ids), pads, IGNORED_LABEL, tokenizer.padding_side)
            if masked
            else list(padded)
        )
        for name, count in zip(_COUNTS, (len(padded), len(ids), lost), strict=True):
            out[name].append(count)
    return out


def _padded(values: list[int], pads: int, pad: Any, side: str) -> list[int]:
    padding = [pad] * pads
    return padding + values if side == "left" else values + padding


def _fingerprint(rows: Dataset, tokenizer: PreTrainedTokenizerBase, settings: Tokenization) -> str:
    """Key of the cached rows: changes with the rows, the tokenizer, the settings and this code.

    `datasets` would hash an imported function by its name alone, and go on serving what an older
    version of it made.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    identity = (
        rows._fingerprint,
        asdict(settings),
        backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        str(tokenizer.special_tokens_map),
        tokenizer.padding_side,
        __version__,
        inspect.getsource(sys.modules[__name__]),
    )
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
