"""FT9xx: how text is generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ftcheck.checks.data import instructs, real_tokens
from ftcheck.checks.explained import sentence_of
from ftcheck.checks.facts import IGNORED, Call, Row
from ftcheck.checks.finding import Finding, Level, NotApplicable, Severity
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__: list[str] = []


def _calls(seen: Seen) -> tuple[Call, ...]:
    """Calls of `generate`, one of each kind: a loop over prompts is said once."""
    kinds: dict[object, Call] = {}
    for call in seen.followed().of("generate"):
        facts = {name: value for name, value in call.facts.items() if name not in ("ids", "length")}
        kinds.setdefault((call.place, *sorted((n, str(v)) for n, v in facts.items())), call)
    return tuple(kinds.values())


@check("FT901", "generates-in-train-mode", Level.ROUNDTRIP, Severity.WARNING)
def train_mode(self: Check, seen: Seen) -> Iterator[Finding]:
    """Text is generated with dropout on.

    `Trainer` leaves the model in training mode: greedy text differs from call to call.

    Bad: `trainer.train(); model.generate(...)`

    Good: `model.eval()` before it.
    """
    for call in _calls(seen):
        if call.facts.get("dropouts_on"):
            yield self.finding(
                f"generate is called with {call.facts['dropouts_on']} dropouts on",
                place=call.place,
                key="generation",
                fix="Call model.eval() first.",
            )


@check("FT902", "generates-behind-pads", Level.ROUNDTRIP, Severity.WARNING)
def right_padded(self: Check, seen: Seen) -> Iterator[Finding]:
    """Prompts of a batch are padded on the right, and continued behind the pads.

    "A decoder-only architecture is being used, but right-padding was detected!"

    Bad: `tokenizer(prompts, padding=True)` with GPT-2's `padding_side="right"`.

    Good: `tokenizer.padding_side = "left"`
    """
    for call in _calls(seen):
        if call.facts.get("right_padded"):
            yield self.finding(
                f"{call.facts['right_padded']} prompts are padded on the right",
                place=call.place,
                key="generation",
                fix='Set tokenizer.padding_side = "left" for generation.',
            )


@check("FT903", "generates-without-mask", Level.ROUNDTRIP, Severity.WARNING)
def no_mask(self: Check, seen: Seen) -> Iterator[Finding]:
    """Several prompts are generated from without an attention mask.

    With pad = EOS nobody can tell pads from text: "The attention mask and the pad token id were not
    set". One prompt has no pads, and needs no mask: a note there.

    Bad: `model.generate(inputs["input_ids"])`

    Good: `model.generate(**inputs, pad_token_id=tokenizer.pad_token_id)`
    """
    for call in _calls(seen):
        if call.facts.get("mask") is False:
            rows = int(call.facts.get("rows", 1))
            padded = bool(call.facts.get("padded"))
            yield self.finding(
                f"generate gets {rows} prompt{'s' if rows > 1 else ''} and no attention mask",
                place=call.place,
                key="generation",
                fix="Pass attention_mask and pad_token_id.",
                severity=Severity.WARNING if padded or rows > 1 else Severity.NOTE,
            )


@check("FT904", "generates-without-cache", Level.ROUNDTRIP, Severity.NOTE)
def no_cache(self: Check, seen: Seen) -> Iterator[Finding]:
    """Text is generated without a cache: each token reads the whole text anew.

    `Trainer` of transformers 5 leaves `config.use_cache = False` behind.

    Bad: generating right after training.

    Good: `model.config.use_cache = True`
    """
    if seen.recipe is not None:
        if seen.recipe.generation.arguments.get("use_cache") is False:
            yield self.finding(
                "generate runs without a cache",
                key="generation.use_cache",
                fix="Leave it out.",
            )
        return
    for call in _calls(seen):
        if call.facts.get("cache") is False:
            yield self.finding(
                "generate runs without a cache",
                place=call.place,
                key="generation",
                fix="Set model.config.use_cache = True after training.",
            )


@check("FT905", "prompt-fills-context", Level.ROUNDTRIP, Severity.ERROR)
def no_room(self: Check, seen: Seen) -> Iterator[Finding]:
    """Prompt and new tokens together are longer than the context.

    Bad: 1,000 tokens of prompt and `max_new_tokens=200` on GPT-2.

    Good: a shorter prompt.
    """
    if seen.refused is not None and "generation.prompts" in seen.refused.text:
        yield self.finding(
            sentence_of(seen.refused)[0],
            key="generation.prompts",
            fix="Shorten the prompt, or set max_new_tokens lower.",
        )
        return
    if seen.kind != "script":
        return
    for call in _calls(seen):
        length, context = call.facts.get("length"), call.facts.get("context")
        if length and context and length > context:
            yield self.finding(
                f"prompt and new tokens make {length} tokens, and the context has {context}",
                place=call.place,
                key="generation",
                fix="Shorten the prompt, or set max_new_tokens lower.",
            )


def _words(row: Row, seen: Seen) -> tuple[int, ...]:
    """Tokens of a row but for pads and special ones."""
    specials = seen.text.specials if seen.text is not None else frozenset()
    return tuple(token for token in real_tokens(row, seen.pad) if token not in specials)


@check("FT906", "prompt-unlike-training", Level.ROUNDTRIP, Severity.WARNING)
def other_prompt(self: Check, seen: Seen) -> Iterator[Finding]:
    """Prompts are written in another form than the rows that were trained on.

    Looked at where the prompts of rows are masked and nine in ten of them begin with the same three
    tokens: the prompt has not the first two of them among its own first five. Special tokens, such
    as BOS, do not count. Of a recipe, where the text of rows has markers of an answer: the prompt
    does not begin with these three.

    Bad: rows "### Question: …", prompts "Q: …".

    Good: one function that writes both.
    """
    seen.models_language()
    if seen.recipe is not None:
        yield from _other_form(self, seen, seen.recipe.generation.prompts)
        return
    calls = [call for call in _calls(seen) if call.facts.get("ids")]
    if not calls:
        return
    rows = [row for row in seen.rows("batches") if row.labels and row.labels[1] == IGNORED]
    if len(rows) < 4:
        return
    start, count = Counter(_words(row, seen)[:3] for row in rows).most_common(1)[0]
    if count < 0.9 * len(rows):
        return
    for call in calls:
        ids = _words(Row(ids=call.facts["ids"], mask=None, labels=None), seen)
        if start[:2] not in {ids[place : place + 2] for place in range(4)}:
            text = seen.text
            yield self.finding(
                "a prompt is written in another form than the rows that were trained on",
                evidence=[]
                if text is None
                else [
                    f"rows begin {text.show(start)}",
                    f"the prompt {text.show(ids[:6])}",
                    call.place,
                ],
                key="generation.prompts",
                fix="Write prompts by the function that wrote the rows.",
            )


def _other_form(self: Check, seen: Seen, prompts: tuple[str, ...]) -> Iterator[Finding]:
    """The same for the prompts of a recipe, whose rows have no masked labels."""
    if not prompts:
        raise NotApplicable("there are no prompts")
    text, rows = seen.need("text"), seen.rows("batches")
    if len(rows) < 4 or not instructs(seen, rows):
        raise NotApplicable("the rows do not look like prompts with answers")
    starts = Counter(
        tuple(token for token in real_tokens(row, text.pad) if token not in text.specials)[:3]
        for row in rows
    )
    start, count = starts.most_common(1)[0]
    begun = text.decode(start).strip()
    other = next((one for one in prompts if not one.lstrip().startswith(begun)), None)
    if count >= 0.9 * len(rows) and other is not None:
        yield self.finding(
            "a prompt is written in another form than the rows that are trained on",
            evidence=[f"rows begin {begun!r}", f"the prompt {other[:60]!r}"],
            key="generation.prompts",
            fix="Write prompts as the rows are written.",
        )
