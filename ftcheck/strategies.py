"""Hypothesis strategies for people's own tests: texts, batches of texts, sound recipes.

```python
@given(ftcheck.strategies.texts())
def test_my_cleaning(text: str) -> None: ...
```

They need hypothesis: `pip install "pytest-ftcheck[properties]"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ftcheck.errors import FtcheckError

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

    from ftcheck.recipe import Recipe

__all__ = ["SPECIAL_TOKENS", "batches", "recipes", "texts"]

SPECIAL_TOKENS: Final = ("<|endoftext|>", "<s>", "</s>", "<pad>", "[CLS]", "[SEP]", "[UNK]")
"""How common tokenizers write their special tokens, which may stand in a text as well."""

_PIECES: Final = (
    "\r\n",
    "\0",
    "\ufeff",
    "e\u0301",
    "\u200d",
    "\ufffd",
    "👩‍🚒",
    "▁",
    "##",
    "\u00a0",
)
"""What tokenizers stumble over: line ends, NUL, combining marks, joined emoji, their own signs."""

_WORDS: Final = ("a", " the", "The ", "def f(x):\n", "    return", " 1,024", " n't .", "word ", "ß")
_BLANKS: Final = " \t\n\r\v\f\u00a0\u2003\u3000"


def texts(
    *,
    longest: int = 2_000,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    lone_surrogates: bool = False,
) -> SearchStrategy[str]:
    """Texts as a data set may hold them: empty, blank, of all of Unicode, long, with CRLF and NUL.

    Args:
        longest: Characters that a long text may reach.
        special_tokens: Texts that are put in as they stand.
        lone_surrogates: Whether each text has one: it can then not be written in UTF-8, and neither
            a file nor a `datasets.Dataset` can hold it.
    """
    _require_hypothesis()
    from hypothesis import strategies as st

    unicode = st.text(st.characters(codec="utf-8"), max_size=40)
    known = st.sampled_from([*_WORDS, *special_tokens, *_PIECES])
    mixed = st.lists(known | unicode, max_size=8).map("".join)
    long = st.builds(_repeated, known | unicode.filter(bool), st.integers(1, longest))
    any_text = st.one_of(st.just(""), mixed, unicode, st.text(_BLANKS, max_size=8), long)
    if lone_surrogates:
        lone = st.characters(categories=["Cs"])
        return st.builds("{}{}{}".format, any_text, lone, mixed)
    return any_text


def _repeated(unit: str, length: int) -> str:
    """A text of at most `length` characters: a unit again and again, once at least."""
    return unit * max(1, length // len(unit))


def batches(
    *,
    longest: int = 2_000,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    lone_surrogates: bool = False,
    max_size: int = 4,
) -> SearchStrategy[list[str]]:
    """Lists of one text or more, equal ones among them; see `texts`.

    Args:
        longest: Characters that a long text may reach.
        special_tokens: Texts that are put in as they stand.
        lone_surrogates: Whether one text of each list has one.
        max_size: Texts in a list.
    """
    _require_hypothesis()
    from hypothesis import strategies as st

    plain = texts(longest=longest, special_tokens=special_tokens)
    if not lone_surrogates:
        return st.lists(plain, min_size=1, max_size=max_size)
    broken = texts(longest=longest, special_tokens=special_tokens, lone_surrogates=True)
    few = st.lists(plain, max_size=max_size - 1)
    return st.builds(_with_one, few, broken, st.integers(0, max_size - 1))


def _with_one(some: list[str], one: str, place: int) -> list[str]:
    return [*some[:place], one, *some[place:]]


def recipes() -> SearchStrategy[Recipe]:
    """Sound recipes on the embedded model and text, of a few steps: no network, no GPU.

    Tokenization, adapter and training vary within what the checks leave alone.
    """
    _require_hypothesis()
    from hypothesis import strategies as st

    @st.composite
    def drawn(draw: DrawFn) -> Recipe:
        import tomlkit

        from ftcheck.recipe import parse_recipe

        document = {
            "model": {"name_or_path": "ftcheck:tiny-gpt2", "loss_type": "ForCausalLM"},
            "data": _data(draw),
            "tokenization": _tokenization(draw),
            "lora": _lora(draw),
            "training": _training(draw),
        }
        return parse_recipe(tomlkit.dumps(document), file="recipe.toml")

    return drawn()


def _data(draw: DrawFn) -> dict[str, Any]:
    from hypothesis import strategies as st

    return {
        "path": "ftcheck:python-functions",
        "shuffle_seed": draw(st.integers(0, 2**32 - 1)),
        "rows": draw(st.integers(64, 256)),
        "drop_empty": draw(st.booleans()),
        "eval_split": "eval",
        "eval_rows": draw(st.integers(8, 32)),
    }


def _tokenization(draw: DrawFn) -> dict[str, Any]:
    from hypothesis import strategies as st

    common = {"max_length": draw(st.integers(32, 256))}
    if draw(st.booleans()):
        return {**common, "packing": True}
    return {
        **common,
        "padding": draw(st.sampled_from(["max_length", "longest"])),
        "pad_token": draw(st.sampled_from(["eos_token", "<|pad|>"])),
        "labels": "pads_masked",
        "append_eos": draw(st.booleans()),
    }


def _lora(draw: DrawFn) -> dict[str, Any]:
    from hypothesis import strategies as st

    modules = st.sampled_from(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])
    rank = draw(st.sampled_from([4, 8, 16]))
    return {
        "r": rank,
        "lora_alpha": rank * draw(st.integers(1, 2)),
        "lora_dropout": draw(st.sampled_from([0.0, 0.05, 0.1])),
        "target_modules": draw(st.lists(modules, min_size=1, max_size=3, unique=True)),
        "task_type": "CAUSAL_LM",
    }


def _training(draw: DrawFn) -> dict[str, Any]:
    from hypothesis import strategies as st

    return {
        "per_device_train_batch_size": draw(st.sampled_from([2, 4, 8])),
        "gradient_accumulation_steps": draw(st.integers(1, 2)),
        "max_steps": draw(st.integers(2, 8)),
        "learning_rate": draw(st.sampled_from([1e-4, 2e-4, 1e-3])),
        "lr_scheduler_type": draw(st.sampled_from(["linear", "cosine", "constant"])),
        "logging_steps": 1,
        "seed": draw(st.integers(0, 2**31)),
        "label_names": ["labels"],
        "report_to": "none",
    }


def _require_hypothesis() -> None:
    """Refuse in words where it is not installed."""
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise FtcheckError(
            "hypothesis is not installed, and ftcheck.strategies needs it.",
            next_step='Install it with: pip install "pytest-ftcheck[properties]"',
        ) from error
