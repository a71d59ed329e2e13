"""Kinds of plain data that looking at a subject gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "IGNORED",
    "Adapter",
    "Batches",
    "Call",
    "Failure",
    "Learning",
    "Module",
    "Parameter",
    "Record",
    "Reload",
    "Row",
    "Rows",
    "Setup",
    "Text",
    "Training",
]

IGNORED: Final = -100
"""Label that losses leave out (`ignore_index` of `torch.nn.functional.cross_entropy`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception that the subject raised while it was looked at.

    Attributes:
        kind: Name of its class.
        text: Its message.
        during: What was being done, such as `training`.
        place: `file:line` of the innermost frame in the user's own code; empty where there is none.
    """

    kind: str
    text: str
    during: str
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of the model.

    Attributes:
        name: As `named_parameters` has it.
        shape: Its sizes.
        dtype: Such as `float32`.
        device: Type of its device.
        trainable: Its `requires_grad`.
        finite: Whether it holds no NaN and no infinity.
        adapter: Whether peft put it there.
        tied_to: Name of the parameter whose storage it shares; empty for none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    trainable: bool
    finite: bool
    adapter: bool
    tied_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of the base model that has a weight matrix, by its name before wrapping."""

    name: str
    kind: str
    adapted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter of a `PeftModel`.

    Attributes:
        name: Such as `default`.
        active: Whether the model uses it.
        config: Plain fields of its configuration, such as `r`, `lora_alpha`, `target_modules`.
    """

    name: str
    active: bool
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What is asked of the tokenizer.

    Attributes:
        name: Its name or path.
        size: `len(tokenizer)`: the vocabulary and what was added.
        vocab_size: Without what was added.
        eos: Id of EOS.
        bos: Id of BOS.
        pad: Id of the pad token.
        specials: Ids of all special tokens, also of those that no role such as EOS names.
        padding_side: `left` or `right`.
        decode: Text of some ids.
    """

    name: str
    size: int
    vocab_size: int
    eos: int | None
    bos: int | None
    pad: int | None
    specials: frozenset[int]
    padding_side: str
    decode: Callable[[Sequence[int]], str]

    def show(self, ids: Sequence[int], most: int = 12) -> str:
        """Some tokens as text and as ids, cut to a line."""
        shown = [int(token) for token in ids[:most]]
        more = f" … ({len(ids)} tokens)" if len(ids) > most else ""
        return f"{self.decode(shown)!r} {shown}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Arguments, configurations and modules, as they are before training.

    Attributes:
        arguments: Fields of `TrainingArguments` under their own names; enums as their values.
        model_class: Class of the base model.
        model_name: Its `name_or_path`.
        config: Plain fields of the base model's configuration.
        positions: Longest context; `None` where there is no limit.
        absolute_positions: Whether positions are a table, which nothing can be read beyond.
        embedding_rows: Rows of the input embedding.
        grown_from: Rows that it had before it was resized for the tokenizer of a recipe; `None`
            where it was not, or is not known to have been.
        tied: Whether input embedding and output layer are one matrix.
        quantized: `8-bit`, `4-bit`, or empty.
        prepared: Whether `prepare_model_for_kbit_training` has been at the model.
        parameters: All of them.
        modules: Those of the base with a weight matrix.
        adapters: Of a `PeftModel`; empty for none.
        nested_peft: Whether a `PeftModel` is within another, or an adapter on an adapter.
        columns: Of the training set; empty where unknown.
        dropped_columns: Those that `Trainer` takes away before the collator, to whether they hold
            a list of numbers for each row.
        overrides: Methods of `Trainer` that the subject's class has its own of.
        collator: Class of the data collator.
        train_rows: Rows of the training set; `None` where it has no length.
        eval_rows: Rows of the evaluation set; `None` for none.
        optimizer_given: Whether the trainer was given an optimizer.
        compute_metrics: Whether it was given that function.
        preprocess_logits: Whether it was given `preprocess_logits_for_metrics`.
        early_stopping: Whether `EarlyStoppingCallback` is among its callbacks.
        device_map: `hf_device_map` of the model: module to device.
        gpus: `args.n_gpu`.
        launched: Whether a launcher (accelerate, torchrun) started this process.
        label_names: Of the trainer.
        processing_saved: Whether the trainer saves a tokenizer with its checkpoints.
        other_task: Why it is no causal language modelling, in words; empty where it is.
    """

    arguments: Mapping[str, Any]
    model_class: str
    model_name: str
    config: Mapping[str, Any]
    positions: int | None
    absolute_positions: bool
    embedding_rows: int
    grown_from: int | None
    tied: bool
    quantized: str
    prepared: bool
    parameters: tuple[Parameter, ...]
    modules: tuple[Module, ...]
    adapters: tuple[Adapter, ...]
    nested_peft: bool
    columns: tuple[str, ...]
    dropped_columns: Mapping[str, bool]
    overrides: frozenset[str]
    collator: str
    train_rows: int | None
    eval_rows: int | None
    optimizer_given: bool
    compute_metrics: bool
    preprocess_logits: bool
    early_stopping: bool
    device_map: Mapping[str, str]
    gpus: int
    launched: bool
    label_names: tuple[str, ...]
    processing_saved: bool
    other_task: str = ""

    @property
    def own_loss(self) -> bool:
        """Whether the trainer computes its loss by code of its own."""
        return bool({"compute_loss", "training_step"} & self.overrides)

    @property
    def trainable(self) -> tuple[Parameter, ...]:
        """Parameters that are trained."""
        return tuple(one for one in self.parameters if one.trainable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of tokens; `mask` and `labels` are `None` where there are none."""

    ids: tuple[int, ...]
    mask: tuple[int, ...] | None
    labels: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of a tokenized data set, before they are collated.

    Attributes:
        rows: Those that were read, and have tokens.
        cut: Tokens that truncation took, and all tokens; `None` where that is not known.
        read: How many were read, with tokens or without.
        total: How many there are; `None` where the data set has no length.
    """

    rows: tuple[Row, ...]
    cut: tuple[int, int] | None = None
    read: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Batches as the data loader gives them, row by row.

    Attributes:
        rows: Of all batches that were read.
        keys: Of a batch.
        label_dtype: Such as `int64`; empty without labels.
        id_dtype: Of `input_ids`.
        batches: How many batches the whole loader has; `None` where it has no length.
        read: How many were taken from it.
        position_ids: Whether positions start anew within rows.
        four_dimensional_mask: Whether the mask says which token sees which.
        failure: What the data set or the collator raised.
    """

    rows: tuple[Row, ...] = ()
    keys: tuple[str, ...] = ()
    label_dtype: str = ""
    id_dtype: str = ""
    batches: int | None = None
    read: int = 0
    position_ids: bool = False
    four_dimensional_mask: bool = False
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """The model on one batch, with its own loss, without dropout.

    Attributes:
        base_loss: Mean loss over label tokens with the adapter off; `None` where not computed.
        prose_loss: The same on plain English, where the base does worse than guessing on the rows;
            `None` where not computed.
        start_loss: Mean loss over label tokens with the adapter on, before any step.
        adapter_effect: Largest difference that the adapter makes to the logits before training.
        own_loss: What `compute_loss` of the trainer gives for the batch.
        mean_loss: Mean over label tokens that the model would shift itself.
        unshifted_loss: The same without a shift.
        first_label_counts: Whether the label of the first token, which nothing predicts, changes
            the loss of the trainer; `None` where that is the library's, or was not looked at.
        losses: Mean loss on the same batch after each step at the recipe's highest rate.
        leak: Largest change of a row's logits when another row of the batch is another;
            relative to the largest logit.
        packed_leak: The same of the last text of a row, when those before it are others; `None`
            where positions do not begin anew within the row.
        accumulation: Norm of the gradient that the trainer accumulates over that of the mean over
            all label tokens; `None` where not measured.
        failure: What was raised.
    """

    base_loss: float | None = None
    prose_loss: float | None = None
    start_loss: float | None = None
    adapter_effect: float | None = None
    own_loss: float | None = None
    mean_loss: float | None = None
    unshifted_loss: float | None = None
    first_label_counts: bool | None = None
    losses: tuple[float, ...] = ()
    leak: float | None = None
    packed_leak: float | None = None
    accumulation: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A few steps of the subject's own `Trainer.train()`, at the recipe's highest rate.

    Attributes:
        losses: Of each micro-batch, as `training_step` returns them.
        gradients: Trainable parameter to the largest norm that its gradient had; 0 for none.
        moved: Trainable parameter to how far it went, relative to its size.
        rounded: Trainable parameter to the share of its elements with a gradient that stayed as
            they were.
        changed_frozen: Parameters that changed though they are not trained.
        in_optimizer: Names of the parameters that the optimizer holds.
        dropout_off: Dropouts that were off while training.
        dropout_on_in_eval: Dropouts that were on while evaluating.
        schedule: Learning rate at each step of the whole run (at most 2,000 of them, evenly).
        steps: Optimizer steps of the whole run.
        eval_metrics: Names that evaluating reports; `None` where there is no evaluation set.
        eval_loss: Of them, the loss.
        finite: Whether all trainable parameters are finite afterwards.
        repeat: Losses of a second run from the same start; empty where there was none.
        failure: What was raised.
    """

    losses: tuple[float, ...] = ()
    gradients: Mapping[str, float] = field(default_factory=dict)
    moved: Mapping[str, float] = field(default_factory=dict)
    rounded: Mapping[str, float] = field(default_factory=dict)
    changed_frozen: tuple[str, ...] = ()
    in_optimizer: frozenset[str] | None = None
    dropout_off: tuple[str, ...] = ()
    dropout_on_in_eval: tuple[str, ...] = ()
    schedule: tuple[float, ...] = ()
    steps: int | None = None
    eval_metrics: tuple[str, ...] | None = None
    eval_loss: float | None = None
    finite: bool = True
    repeat: tuple[float, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What comes back after `save_model` and loading.

    Attributes:
        files: Names of what was saved.
        difference: Largest difference of logits, trained against loaded again.
        scale: Largest logit.
        adapter_effect: Largest difference that training made.
        merge_error: Largest difference that merging the adapter makes, relative to
            `adapter_effect`; `None` where it was not merged.
        failure: What was raised.
    """

    files: tuple[str, ...] = ()
    difference: float | None = None
    scale: float = 1.0
    adapter_effect: float | None = None
    merge_error: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a script made.

    Attributes:
        what: Such as `generate`, `save_pretrained`, `shuffle`.
        place: `file:line` in the script.
        when: `before` or `after` training.
        facts: Plain facts of the call, by kind.
    """

    what: str
    place: str
    when: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a script did.

    Attributes:
        calls: In their order.
        through: Whether it was followed to its end.
        failure: What it raised.
        loop: Whether it trains in a loop of its own, in which it was stopped.
        rates: The highest learning rate of each optimizer step of that loop.
        kept_gradients: Steps of that loop after which the gradient was not cleared.
    """

    calls: tuple[Call, ...] = ()
    through: bool = False
    failure: Failure | None = None
    loop: bool = False
    rates: tuple[float, ...] = ()
    kept_gradients: int = 0

    def of(self, what: str) -> tuple[Call, ...]:
        """Calls of one kind."""
        return tuple(call for call in self.calls if call.what == what)
