"""What was seen of a subject: plain data that checks judge.

Looking (`ftcheck.checks.observe`) runs models and is isolated from the subject; judging (the
modules of checks) reads what is here and touches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from ftcheck.checks.facts import (
    Batches,
    Failure,
    Learning,
    Record,
    Reload,
    Row,
    Rows,
    Setup,
    Text,
    Training,
)
from ftcheck.checks.finding import NotApplicable, NotMeasured

if TYPE_CHECKING:
    from ftcheck.recipe import Recipe
    from ftcheck.vram.vram_report import VramReport

__all__ = ["Seen"]

_NOTHING: Final = {
    "text": "there is no tokenizer",
    "evaluation": "there is no evaluation set",
    "eval_batches": "there is no evaluation set",
    "record": "it is about what scripts do",
}
"""What a subject may be without, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that was seen of a subject. What was not looked at is `None`.

    Attributes:
        name: Of the subject.
        kind: `recipe`, `trainer` or `script`.
        recipe: Where the subject is one.
        text: Of the tokenizer.
        setup: Static facts.
        train: Rows of the training set.
        evaluation: Rows of the evaluation set.
        batches: Of the training loader.
        eval_batches: Of the evaluation loader.
        learning: On one batch.
        training: Of a few steps.
        reload: Of saving and loading.
        memory: Of the virtual GPU.
        record: Of a script.
        refused: What the pipeline said when the subject could not be built.
        real_weights: Whether the model has the weights that the run starts from.
        real_data: Whether the rows are those of the run.
        in_part: What was looked at in part, a sentence each.
        reasons: Why something was not looked at: name of the attribute above to words.
        places: Section of a recipe (`lora`, `training`, `model`, ...) to `file:line`.
    """

    name: str
    kind: str
    recipe: Recipe | None = None
    text: Text | None = None
    setup: Setup | None = None
    train: Rows | None = None
    evaluation: Rows | None = None
    batches: Batches | None = None
    eval_batches: Batches | None = None
    learning: Learning | None = None
    training: Training | None = None
    reload: Reload | None = None
    memory: VramReport | Failure | None = None
    record: Record | None = None
    refused: Failure | None = None
    real_weights: bool = True
    real_data: bool = True
    in_part: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @overload
    def need(self, what: Literal["text"]) -> Text: ...
    @overload
    def need(self, what: Literal["setup"]) -> Setup: ...
    @overload
    def need(self, what: Literal["train", "evaluation"]) -> Rows: ...
    @overload
    def need(self, what: Literal["batches", "eval_batches"]) -> Batches: ...
    @overload
    def need(self, what: Literal["learning"]) -> Learning: ...
    @overload
    def need(self, what: Literal["training"]) -> Training: ...
    @overload
    def need(self, what: Literal["reload"]) -> Reload: ...
    @overload
    def need(self, what: Literal["memory"]) -> VramReport | Failure: ...
    @overload
    def need(self, what: Literal["record"]) -> Record: ...
    def need(self, what: str) -> Any:
        """What was seen of one kind.

        Raises:
            NotApplicable: The subject has nothing of that kind.
            NotMeasured: It was not looked at, or broke while it was.
        """
        if what == "learning":
            self.models_language()
        found = getattr(self, what)
        if found is not None:
            return found
        script = what == "record" and self.kind == "script"
        if what in _NOTHING and what not in self.reasons and not script:
            raise NotApplicable(_NOTHING[what])
        raise NotMeasured(self.reasons.get(what, f"{what} was not looked at"))

    def models_language(self) -> None:
        """Nothing, where a causal language model is trained on labels of its tokens.

        Raises:
            NotApplicable: Another task, such as classification, or preferences.
        """
        if self.setup is not None and self.setup.other_task:
            raise NotApplicable(self.setup.other_task)

    def followed(self) -> Record:
        """What a script did, to its end.

        Raises:
            NotApplicable: The subject is no script.
            NotMeasured: It was followed up to its training.
        """
        record = self.need("record")
        if not record.through:
            until = (
                "a few steps of its own loop"
                if record.loop
                else "its training; see --through generate"
            )
            raise NotMeasured(f"the script was followed up to {until}")
        return record

    @property
    def pad(self) -> int | None:
        """The pad id; `None` without a tokenizer or a pad token."""
        return None if self.text is None else self.text.pad

    def show(self, before: str, ids: Sequence[int], most: int = 12) -> list[str]:
        """A line of evidence: words, then tokens as text and as ids; none without a tokenizer."""
        return [] if self.text is None else [before + self.text.show(ids, most)]

    def rows(self, what: Literal["batches", "eval_batches"]) -> tuple[Row, ...]:
        """Rows of batches of one kind, where there are any with labels."""
        found = self.need(what)
        if not found.rows:
            words = "no batch could be made" if found.failure else "batches hold no rows of tokens"
            raise NotMeasured(words)
        return found.rows

    @property
    def held_out_key(self) -> str:
        """Key of a recipe that names the rows to evaluate on."""
        names = ("eval_path", "eval_split", "eval_fraction")
        data = None if self.recipe is None else self.recipe.data
        return next((f"data.{name}" for name in names if getattr(data, name, None)), "data")

    def place(self, key: str) -> str:
        """`file:line` of a recipe key, or of the object that stands for its section."""
        if self.recipe is not None and self.recipe.source is not None:
            return self.recipe.place(key)
        return self.places.get(key, self.places.get(key.partition(".")[0], ""))
