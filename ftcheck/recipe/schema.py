"""The typed recipe: all that decides a fine-tuning run.

Sections that Hugging Face libraries own (`[training]`, `[lora]`, `[quantization]`, `[generation]`)
are `Arguments`: mappings from *their* names to values, as written. Sections without a counterpart
there are dataclasses of our own. A `Recipe` holds what was written, and nothing is looked up,
fetched or imported to make one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Lt, MinLen

from ftcheck.errors import InputError

__all__ = [
    "EOS_AS_PAD",
    "OWN_SECTIONS",
    "Arguments",
    "Budget",
    "Checks",
    "Data",
    "Generation",
    "Model",
    "Recipe",
    "Source",
    "Tokenization",
]

EOS_AS_PAD = "eos_token"
"""Value of `tokenization.pad_token` that takes the tokenizer's EOS token as its pad token."""


class Arguments(Mapping[str, Any]):
    """Arguments of a Hugging Face class under their own names: immutable, equal by value."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._values: dict[str, Any] = {**(values or {}), **more}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(json.dumps(self._values, sort_keys=True, default=str))

    def __repr__(self) -> str:
        return f"Arguments({self._values!r})"

    def replace(self, **changes: Any) -> Arguments:
        """A copy with some arguments set."""
        return Arguments({**self._values, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`[model]`: the base model."""

    name_or_path: Annotated[str, MinLen(1)]
    """Hub name, folder (taken relative to the recipe file), or `ftcheck:tiny-gpt2`."""
    revision: str | None = None
    """Branch, tag or commit on the hub; `None` is the main branch."""
    dtype: Literal["float32", "float16", "bfloat16", "auto"] = "float32"
    """Type of the weights that are not quantized; `auto` takes the checkpoint's. Said, and not left
    to the library: transformers below 5.0 loads float32 by default, later ones what is stored."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the run happens; `auto` is the accelerator where there is one, else the CPU."""
    attn_implementation: str | None = None
    """Passed to `from_pretrained`; `None` leaves the choice to transformers."""
    trust_remote_code: bool = False
    """Whether code from the hub may run here."""
    loss_type: str | None = None
    """Sets `model.loss_type` before training; see `gpt2-loss-type` in the table of library bugs.
    `None` leaves the model as the library made it, so that losses equal those of a plain script."""
    loss_chunk_tokens: Annotated[int, Ge(1)] | None = None
    """Computes the loss over so many tokens at a time, and anew in the backward pass, so that the
    logits are never all in float32. It is the mean over label tokens, as with `loss_type =
    "ForCausalLM"`. `None` leaves the loss to the model."""
    reload_with: Literal["peft", "auto"] = "peft"
    """How the saved adapter is loaded again: `PeftModel.from_pretrained` on the base, or
    `AutoModelForCausalLM.from_pretrained` on the adapter folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """`[data]`: the rows to train and to evaluate on."""

    path: Annotated[str, MinLen(1)]
    """Hub data set, a `.txt`, `.jsonl`, `.json`, `.csv` or `.parquet` file (relative to the recipe
    file), or `ftcheck:python-functions`."""
    name: str | None = None
    """Configuration of a hub data set, such as `wikitext-2-raw-v1`."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; `None` is the main branch."""
    split: Annotated[str, MinLen(1)] = "train"
    """Split to train on, or a slice of it, such as `train[:10%]`; a file is one split, `train`."""
    text_column: Annotated[str, MinLen(1)] = "text"
    """Column that holds the text."""
    text_unit: Literal["line", "paragraph"] = "line"
    """What one row of a `.txt` file is; paragraphs are parted by blank lines."""
    shuffle_seed: Annotated[int, Interval(ge=0, lt=2**32)] | None = None
    """Seed of the shuffle before `rows` are taken; `None` keeps the order."""
    rows: Annotated[int, Ge(1)] | None = None
    """Rows to train on, from the front after the shuffle; `None` takes all."""
    drop_empty: bool = False
    """Whether rows of white space alone are dropped, before `rows` are counted."""
    eval_path: str | None = None
    """File to evaluate on."""
    eval_split: str | None = None
    """Split of the same hub data set to evaluate on."""
    eval_fraction: Annotated[float, Gt(0.0), Lt(1.0)] | None = None
    """Share of the chosen rows that is held out from the end of the shuffled order."""
    eval_rows: Annotated[int, Ge(1)] | None = None
    """Rows to evaluate on, from the front; `None` takes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenization:
    """`[tokenization]`: from text to `input_ids`, `attention_mask` and `labels`."""

    max_length: Annotated[int, Ge(2)] = 128
    """Tokens a row is cut to (and padded to, where `padding` says so); the block when packing."""
    padding: Literal["max_length", "longest"] = "max_length"
    """Pad every row to `max_length` once, or each batch to its longest row when it is collated."""
    pad_token: Annotated[str, MinLen(1)] = EOS_AS_PAD
    """`eos_token` takes EOS; any other text is a token of its own, which is added, with a new row
    in the embedding, where the vocabulary lacks it."""
    labels: Literal["input_ids", "pads_masked"] = "input_ids"
    """A copy of the ids, pads included, or the same with −100 where the attention mask is 0."""
    append_eos: bool = False
    """Whether each row ends in EOS (kept when the row is cut)."""
    packing: bool = False
    """Whether rows are joined, with EOS between them, and cut into blocks of `max_length`: no pads.
    The rest that fills no block is left out."""
    num_proc: Annotated[int, Ge(1)] | None = None
    """Processes to tokenize with; `None` is this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """`[generation]`: what is written before and after training."""

    prompts: tuple[str, ...] = ()
    """Texts to continue; none for no sample."""
    arguments: Arguments = field(default_factory=Arguments)
    """Fields of `GenerationConfig`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`[budget]`: the card that the recipe must fit."""

    card: str | None = None
    """Name of a card, such as `rtx4070-laptop-8gb`."""
    vram: str | None = None
    """Memory, with its unit, such as `8 GiB`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """`[checks]`: which checks look at this recipe."""

    select: tuple[str, ...] = ()
    """Codes, prefixes or slugs to run; none for all."""
    accept: dict[str, str] = field(default_factory=dict)
    """Code or slug of a finding that is meant, to the reason why."""


OWN_SECTIONS: Mapping[str, type[Any]] = {
    "model": Model,
    "data": Data,
    "tokenization": Tokenization,
    "budget": Budget,
    "checks": Checks,
}
"""Sections without a counterpart in Hugging Face's libraries, to their dataclasses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a recipe was read.

    Attributes:
        file: The file as the user named it.
        folder: Folder that relative paths in the recipe start from.
        lines: `section.key`, and `section`, to its 1-based line.
    """

    file: str
    folder: Path
    lines: Mapping[str, int]

    def line(self, key: str) -> int | None:
        """Line of a key, else of its section."""
        return self.lines.get(key, self.lines.get(key.partition(".")[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A fine-tuning recipe. Equal recipes decide equal runs."""

    name: str
    """Stem of the file, or the name of a built-in recipe."""
    description: str = ""
    model: Model
    data: Data
    tokenization: Tokenization = field(default_factory=Tokenization)
    quantization: Arguments | None = None
    """Fields of `BitsAndBytesConfig`; `None` leaves the weights as they are."""
    lora: Arguments | None = None
    """Fields of `LoraConfig`; `None` trains every parameter."""
    training: Arguments = field(default_factory=Arguments)
    """Fields of `TrainingArguments`."""
    generation: Generation = field(default_factory=Generation)
    budget: Budget = field(default_factory=Budget)
    checks: Checks = field(default_factory=Checks)
    notices: tuple[str, ...] = field(default=(), compare=False)
    """What was translated for the installed versions, a sentence each."""
    source: Source | None = field(default=None, compare=False, repr=False)

    @property
    def seed(self) -> int:
        """`training.seed`, or 42, which is the default of `TrainingArguments`."""
        seed: int = self.training.get("seed", 42)
        return seed

    @property
    def per_device_train_batch_size(self) -> int:
        """The argument of that name, or 8, which is the default of `TrainingArguments`."""
        return int(self.training.get("per_device_train_batch_size", 8))

    @property
    def gradient_accumulation_steps(self) -> int:
        """The argument of that name, or 1, which is the default of `TrainingArguments`."""
        return int(self.training.get("gradient_accumulation_steps", 1))

    @property
    def checkpointing(self) -> bool:
        """Whether it trains with gradient checkpointing, under either name."""
        names = ("activation_checkpointing", "gradient_checkpointing")
        return any(self.training.get(name) for name in names)

    @property
    def checkpointing_kwargs(self) -> dict[str, Any]:
        """Arguments of the checkpointing, under either name; empty where there are none."""
        names = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
        return dict(next((given for name in names if (given := self.training.get(name))), {}))

    def place(self, key: str) -> str:
        """`file:line` of `section.key`, for a message; the file alone where no line is known."""
        if self.source is None:
            return self.name
        line = self.source.line(key)
        return self.source.file if line is None else f"{self.source.file}:{line}"

    def fault(self, key: str, text: str, next_step: str) -> InputError:
        """An error at `section.key` that shows only once data or model are at hand."""
        return InputError(f"{self.place(key)}: {key}: {text}.", next_step=next_step)

    def resolve(self, path: str) -> Path:
        """A path of the recipe, taken relative to the file that it stands in."""
        plain = Path(path).expanduser()
        return plain if self.source is None else self.source.folder / plain
