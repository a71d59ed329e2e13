"""Tiny tokenizers of the kinds that models come with, made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

__all__ = ["KINDS", "byte_level", "with_dropout", "with_gap"]

_LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *"THDEW", *"0123456789", *".,()':"]


def _fast(backend: Tokenizer, **tokens: Any) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


def llama() -> Any:
    """SentencePiece BPE with bytes to fall back on, a space put before, and BOS."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS]
    vocab = {piece: number for number, piece in enumerate([*pieces, "▁t", "he", "▁the"])}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    backend = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return _fast(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def t5() -> Any:
    """SentencePiece Unigram: normalized by NFKC, blanks run together, EOS behind."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0)]
    backend = Tokenizer(
        models.Unigram([*pieces, *((letter, -4.0) for letter in _LETTERS)], unk_id=2)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(" {2,}", " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return _fast(backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def wordpiece() -> Any:
    """BERT's: lower case, no accents, `[CLS]` and `[SEP]` around."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,()':#[]<>|"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), "the", "##turn"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _fast(
        backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def byte_level(
    *,
    normalizer: Any = None,
    prefix_space: bool = False,
    missing: str = "",
    dropout: float | None = None,
    gap: int = 0,
    **tokens: Any,
) -> Any:
    """Byte-level BPE with every byte, as GPT-2's, RoBERTa's and Qwen's.

    Args:
        normalizer: What changes a text first.
        prefix_space: Whether a space is put before.
        missing: Signs of bytes that the vocabulary lacks.
        dropout: Share of merges that are left out at random.
        gap: Ids that are left out before the last token.
        tokens: Special tokens.
    """
    alphabet = [sign for sign in sorted(pre_tokenizers.ByteLevel.alphabet()) if sign not in missing]
    vocab = {letter: number for number, letter in enumerate([*alphabet, "Ġt", "he", "Ġthe"])}
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    vocab["Ġthe"] += gap
    backend = Tokenizer(models.BPE(vocab, merges, dropout=dropout))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    return _fast(backend, eos_token="<|endoftext|>", **tokens)


def qwen() -> Any:
    """Byte-level, normalized by NFC."""
    return byte_level(normalizer=normalizers.NFC())


def roberta() -> Any:
    """Byte-level with a space put before, and a mask token that swallows the space before it."""
    mask = AddedToken("[CLS]", lstrip=True, rstrip=True, special=True)
    return byte_level(prefix_space=True, mask_token=mask)


def with_dropout() -> Any:
    """A tokenizer that was saved in the state that it was trained with."""
    return byte_level(dropout=0.5)


def with_gap() -> Any:
    """A tokenizer whose last id is past its length, as after tokens were taken out."""
    return byte_level(gap=5000)


KINDS: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (llama, t5, wordpiece, byte_level, qwen, roberta)
}
