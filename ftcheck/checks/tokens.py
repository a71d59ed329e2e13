"""FT21x to FT23x: tokens, pads and masks. Labels are in `labels`."""

from __future__ import annotations

from collections.abc import Iterator

from ftcheck.checks.data import edges, instructs, real_tokens
from ftcheck.checks.explained import NO_PAD_TOKEN, next_step_of, sentence_of
from ftcheck.checks.facts import Row, Text
from ftcheck.checks.finding import Finding, Level, NotApplicable, NotMeasured, Severity
from ftcheck.checks.labels import TAIL
from ftcheck.checks.registry import Check, check
from ftcheck.checks.seen import Seen

__all__ = ["stripped"]


@check("FT213", "pad-token-missing", Level.DATA, Severity.ERROR)
def pad_missing(self: Check, seen: Seen) -> Iterator[Finding]:
    """The collator pads, and the tokenizer has no pad token.

    GPT-2 and Llama come without one: "Asking to pad but the tokenizer does not have a padding
    token".

    Bad: `tokenizer(texts, padding=True)` with the tokenizer as it was loaded.

    Good: `tokenizer.pad_token = tokenizer.eos_token`, with labels that go by the attention mask.
    """
    if seen.refused is not None and "no EOS token" in seen.refused.text:
        yield self.finding(
            f"{sentence_of(seen.refused)[0]} to pad with",
            key="tokenization.pad_token",
            fix="Name a pad token, and leave append_eos and packing out.",
        )
        return
    failure = seen.need("batches").failure
    if failure is not None and any(part in failure.text for part in NO_PAD_TOKEN):
        yield self.finding(
            "the collator pads, and the tokenizer has no pad token",
            evidence=[f"{failure.kind}: {failure.text.splitlines()[0]}"],
            key="tokenization.pad_token",
            fix="Set tokenizer.pad_token.",
        )


@check("FT214", "embedding-too-small", Level.DATA, Severity.ERROR)
def embedding(self: Check, seen: Seen) -> Iterator[Finding]:
    """Token ids for which the embedding has no row.

    On a CPU: "index out of range in self"; on a card: "device-side assert triggered". It comes from
    tokens that were added without resizing the embedding, or from the tokenizer of another model.

    Bad:

        tokenizer.add_special_tokens({"pad_token": "<pad>"})

    Good:

        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        model.resize_token_embeddings(len(tokenizer))
    """
    setup = seen.need("setup")
    rows = seen.need("train").rows + seen.need("batches").rows
    largest = max((max(row.ids, default=-1) for row in rows), default=-1)
    if largest >= setup.embedding_rows:
        token = f": {seen.text.decode([largest])!r}" if seen.text is not None else ""
        yield self.finding(
            f"rows hold the token id {largest}{token}, and the embedding has "
            f"{setup.embedding_rows} rows",
            evidence=[] if seen.text is None else [f"len(tokenizer) = {seen.text.size}"],
            key="model.name_or_path",
            fix="Call model.resize_token_embeddings(len(tokenizer)), or use the model's tokenizer.",
        )
    elif seen.text is not None and seen.text.size > setup.embedding_rows:
        yield self.finding(
            f"the tokenizer has {seen.text.size} tokens, and the embedding has "
            f"{setup.embedding_rows} rows",
            evidence=["no row that was looked at holds one of the tokens beyond"],
            key="model.name_or_path",
            fix="Call model.resize_token_embeddings(len(tokenizer)).",
            severity=Severity.WARNING,
        )


@check("FT215", "ids-not-integers", Level.DATA, Severity.ERROR)
def ids_dtype(self: Check, seen: Seen) -> Iterator[Finding]:
    """Token ids that are no integers of 32 or 64 bits, or negative.

    An embedding takes int32 or int64, and nothing else.

    Bad: `torch.tensor(ids, dtype=torch.float32)`

    Good: `torch.tensor(ids)`
    """
    batches = seen.need("batches")
    key = "data" if seen.recipe is None else "model.name_or_path"  # whose tokenizer made them
    if batches.id_dtype not in ("", "int32", "int64"):
        yield self.finding(
            f"input_ids have the type {batches.id_dtype}", fix="Make them int64.", key=key
        )
    if any(min(row.ids, default=0) < 0 for row in batches.rows):
        yield self.finding(
            "input_ids hold negative numbers",
            fix="−100 belongs into the labels alone.",
            key=key,
        )


@check("FT216", "longer-than-context", Level.DATA, Severity.ERROR)
def too_long(self: Check, seen: Seen) -> Iterator[Finding]:
    """Rows longer than the model's context.

    A table of positions (GPT-2, OPT) has no entry for them: "index out of range in self". Rotary
    positions can be computed, and were not trained: a warning. A batch that is one long row with
    `position_ids` that begin anew does not count.

    Bad: GPT-2 and `max_length=2048`.

    Good: `max_length` of at most `model.config.max_position_embeddings`.
    """
    if seen.refused is not None and "tokenization.max_length" in seen.refused.text:
        sentence, key = sentence_of(seen.refused)
        yield self.finding(sentence, key=key, fix=next_step_of(seen.refused))
        return
    setup = seen.need("setup")
    batches = seen.need("batches")
    rows = seen.need("train").rows + (() if batches.position_ids else batches.rows)
    longest = max((len(row.ids) for row in rows), default=0)
    if setup.positions is not None and longest > setup.positions:
        yield self.finding(
            f"rows of up to {longest:,} tokens, and the context has {setup.positions:,}",
            key="tokenization.max_length",
            fix=f"Cut rows to {setup.positions} tokens.",
            change={"tokenization.max_length": setup.positions},
            severity=None if setup.absolute_positions else Severity.WARNING,
        )


@check("FT217", "mask-contradicts-pads", Level.DATA, Severity.ERROR)
def mask_wrong(self: Check, seen: Seen) -> Iterator[Finding]:
    """The attention mask hides real tokens, or shows pads in front of them.

    Inverted, the model sees its padding alone. All ones over left padding, every real token looks
    at pads. Pads behind the text that are not masked harm nobody in a causal model, and are a note.

    Bad: `attention_mask = (input_ids == pad).long()`

    Good: the mask that the tokenizer gives.
    """
    rows = seen.rows("batches")
    text = seen.need("text")
    pad = text.pad
    if pad is None:
        raise NotApplicable("there is no pad token")
    own = pad in (text.bos, text.eos)  # a pad next to the text may be its BOS or EOS
    inverted, in_front, behind, padded = 0, 0, 0, 0
    shown: Row | None = None
    for row in rows:
        first, last = edges(row.ids, pad)
        if first == last or (first, last) == (0, len(row.ids)):
            continue
        padded += 1
        mask = row.mask or (1,) * len(row.ids)
        if sum(mask[first:last]) < 0.5 * (last - first):
            inverted, shown = inverted + 1, row
        elif first > 2 * own and any(mask[: first - own]):
            in_front, shown = in_front + 1, shown or row
        elif any(mask[last + own :]):
            behind += 1
    whole = seen.need("batches")
    if not padded or whole.four_dimensional_mask or whole.position_ids:
        raise NotApplicable("no row is padded")
    if inverted:
        assert shown is not None
        yield self.finding(
            f"in {inverted} of {padded} padded rows the attention mask hides the text",
            evidence=[f"mask {list((shown.mask or ())[:16])} …", text.show(shown.ids, 16)],
            key="tokenization",
            fix="1 stands for real tokens, 0 for pads.",
        )
    if in_front:
        yield self.finding(
            f"in {in_front} of {padded} padded rows pads in front of the text are not masked",
            key="tokenization",
            fix="Give the model the attention mask that the tokenizer made.",
        )
    if behind and not (inverted or in_front):
        yield self.finding(
            f"in {behind} of {padded} padded rows pads behind the text are not masked",
            key="tokenization",
            fix="A causal model does not see them; mask them all the same.",
            severity=Severity.NOTE,
        )


@check("FT212", "special-tokens-doubled", Level.DATA, Severity.WARNING)
def doubled(self: Check, seen: Seen) -> Iterator[Finding]:
    """BOS twice at the start of rows, or EOS twice at their end.

    A chat template renders BOS, and the tokenizer adds another one; or EOS is appended as text to a
    tokenizer that appends it. The model never meets such a start again.

    Bad: `tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))`

    Good: the same with `add_special_tokens=False`.
    """
    text = seen.need("text")
    rows = [row for row in seen.rows("batches") if len(row.ids) > 3]
    begins = [row for row in rows if _starts_double(row, text)]
    ends = [row for row in rows if _ends_double(row, text)]
    for found, where in ((begins, "start"), (ends, "end")):
        if rows and len(found) >= 0.5 * len(rows):
            tokens = _whole(found[0], text)
            shown = tokens[:6] if where == "start" else tokens[-6:]
            yield self.finding(
                f"{len(found)} of {len(rows)} rows have a special token twice at their {where}",
                evidence=[text.show(shown)],
                key="tokenization",
                fix="Tokenize with add_special_tokens=False what has its special tokens already.",
            )


def _starts_double(row: Row, text: Text) -> bool:
    return _double(text.bos, _whole(row, text)[:3], row, text)


def _ends_double(row: Row, text: Text) -> bool:
    return _double(text.eos, _whole(row, text)[:-4:-1], row, text)


def _double(special: int | None, edge: tuple[int, ...], row: Row, text: Text) -> bool:
    """Whether three tokens, from the edge of a row inwards, are a special one twice, then text."""
    if special is None or len(edge) < 3 or (row.mask is None and special == text.pad):
        return False
    return edge[0] == edge[1] == special != edge[2]


def _whole(row: Row, text: Text) -> tuple[int, ...]:
    """Real tokens, with what may be BOS or EOS of the row's own."""
    return real_tokens(row, None if text.pad in (text.bos, text.eos) else text.pad)


@check("FT210", "eos-never-appended", Level.DATA, Severity.WARNING)
def eos_missing(self: Check, seen: Seen) -> Iterator[Finding]:
    """Answers that do not end in EOS: the model never learns to stop.

    GPT-2's tokenizer adds none. Looked at where rows are prompts with answers (their prompts are
    masked, or the text has markers such as "### Response:"); in plain text a missing EOS is usual,
    and nothing is said. Rows that were cut at `max_length` do not count. Another special token at
    the end, such as <|im_end|>, stops as well.

    Bad: `tokenizer(prompt + answer)`

    Good: `tokenizer(prompt + answer + tokenizer.eos_token)`
    """
    seen.models_language()
    text = seen.need("text")
    if not seen.real_data:
        raise NotMeasured("other text stands in for the data")
    rows = seen.rows("batches")
    why = instructs(seen, rows)
    if not why:
        raise NotApplicable("the rows do not look like prompts with answers")
    if text.eos is None:
        raise NotApplicable("the tokenizer has no EOS token")
    longest = max(len(row.ids) for row in rows)
    whole = [row for row in rows if len(stripped(row, text)) < longest]
    if not whole:
        raise NotApplicable("every row was cut")
    ended = [row for row in whole if _ends_special(row, text)]
    if len(ended) < 0.5 * len(whole):
        row = next(one for one in whole if not _ends_special(one, text))
        yield self.finding(
            f"{len(whole) - len(ended)} of {len(whole)} answers do not end in EOS ({why}): the "
            "model never learns to stop",
            evidence=[f"the end of one: {text.show(stripped(row, text)[-6:])}"],
            key="tokenization.append_eos",
            fix="Append tokenizer.eos_token to every answer.",
            change={"tokenization.append_eos": True},
        )


def stripped(row: Row, text: Text) -> tuple[int, ...]:
    """Real tokens, by the mask if there is one, else by runs of the pad token."""
    if row.mask is not None and 0 in row.mask:
        return real_tokens(row, None)
    pad = text.pad
    ids = row.ids
    if pad is None or pad != text.eos:
        return real_tokens(row, pad)
    last = len(ids)
    while last > 1 and ids[last - 1] == pad and ids[last - 2] == pad:
        last -= 1  # one EOS may be the text's own
    return ids[:last]


def _ends_special(row: Row, text: Text) -> bool:
    ids = stripped(row, text)
    return any(token in text.specials or token == text.eos for token in ids[-TAIL:])


@check("FT219", "tokenizer-of-another-model", Level.STEP, Severity.ERROR)
def other_tokenizer(self: Check, seen: Seen) -> Iterator[Finding]:
    """The base model predicts the rows worse than guessing: the tokens are not its own.

    Guessing among V tokens costs ln V nats. A pretrained model is far below it on any text, one
    with random weights a little above. More than half a nat above is no model for these ids. A note
    where it predicts plain English well: then the ids are its own, and it is the text that it never
    saw the like of.

    Bad: `AutoTokenizer.from_pretrained("gpt2")` with the weights of OPT.

    Good: tokenizer and model by the same name.
    """
    import math

    if not seen.real_weights:
        raise NotMeasured("the weights that the run starts from are not on this machine")
    learning, setup = seen.need("learning"), seen.need("setup")
    loss = learning.base_loss
    if loss is None:
        raise NotMeasured("the loss of the base was not computed")
    guessing = math.log(setup.embedding_rows)
    prose = learning.prose_loss
    if loss > guessing + 0.5 and prose is not None and prose < guessing - 0.5:
        yield self.finding(
            f"the base model has a loss of {loss:.2f} on its first batch, and guessing would have "
            f"{guessing:.2f}: it never saw such text",
            evidence=[f"its loss on plain English is {prose:.2f}"],
            key="model.name_or_path",
            fix="Take a base model that knows the language, or train for long on much text.",
            severity=Severity.NOTE,
        )
    elif loss > guessing + 0.5:
        yield self.finding(
            f"the base model has a loss of {loss:.2f} on its first batch, and guessing would have "
            f"{guessing:.2f}",
            evidence=[
                f"model {setup.model_name or setup.model_class}, "
                f"tokenizer {seen.text.name if seen.text else 'unknown'}"
            ],
            key="model.name_or_path",
            fix="Load tokenizer and model by the same name; check that weights were loaded.",
        )
