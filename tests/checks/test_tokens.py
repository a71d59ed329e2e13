"""FT210 and FT212 to FT219: tokens, pads and masks, from both sides of each limit."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftcheck.assets import model_dir
from ftcheck.checks.facts import Learning
from ftcheck.checks.finding import Finding, Severity, Status
from ftcheck.checks.observe.looking import look_at
from ftcheck.subjects.trainer import trainer_subject
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, judged, lora, rows, tokenizer, trainer

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore"),  # of the libraries, about what is built wrong
]

EOS = 2047  # also BOS and the pad token of the toy tokenizer
OWN = 93  # "~", which is neither
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
IDS = [100 + 3 * n for n in range(20)]
Row = dict[str, Any]
Build = Callable[[Path], Any]


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=f"{values[0]} {name}")


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


def row(
    ids: Sequence[int], *, front: int = 0, behind: int = 0, shown: int = 0, pad: int = EOS
) -> Row:
    """Some tokens, pads on both sides, of which so many nearest to the text are not masked."""
    left, right = min(front, shown), min(behind, shown)
    mask = [0] * (front - left) + [1] * (left + len(ids) + right) + [0] * (behind - right)
    return {
        "input_ids": [*[pad] * front, *ids, *[pad] * behind],
        "attention_mask": mask,
        "labels": [*[-100] * front, *ids, *[-100] * behind],
    }


def words(pad: str | None = "<|endoftext|>", *added: str, **changes: Any) -> Any:
    made = tokenizer(**changes)
    made.pad_token = pad
    made.add_tokens([*added])
    return made


def of(some: Row, others: Row | None = None, count: int = 24, **more: Any) -> Build:
    """A trainer with so many rows of one kind, and of the other up to 24."""
    train = [some] * count + [others or {}] * (24 - count)
    pad = "~" if some["input_ids"][-1] == OWN or some["input_ids"][0] == OWN else "<|endoftext|>"
    return lambda folder: trainer(folder, train=train, processing_class=words(pad), **more)


def without_mask(ids: list[int], pad: str = "~") -> Build:
    made = {"input_ids": ids, "labels": ids}
    return lambda folder: trainer(folder, train=[made] * 24, processing_class=words(pad))


def question(*end: int, prompt: int = 6) -> Row:
    """A question that is masked, its answer, what it ends in, and pads."""
    made = row([*IDS, *end], behind=8 - len(end))
    made["labels"][:prompt] = [-100] * prompt
    return made


LONGEST = question(*range(8))  # as long as the batch: it may have been cut


def marked(folder: Path) -> Any:
    texts = [f"### Question: {n}? " + "so " * (n % 3) + f"\n### Answer: {n}" for n in range(24)]
    return trainer(folder, train=rows(texts, eos=False))


def ended(*, named: bool = False, special: bool = True) -> Build:
    """Answers that end in a token that was added; Llama 3 has its special ones without a name."""

    def build(folder: Path) -> Any:
        known = tokenizer()
        if named:
            known.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
        else:
            known.add_tokens(["<|eot_id|>"], special_tokens=special)
        model = lora(base(vocab_size=len(known)))
        ends = [question(len(known) - 1)] * 24
        return trainer(folder, model=model, train=ends, processing_class=known)

    return build


class Listed:
    """A data set of lists of tokens, of two lengths."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int) -> list[int]:
        return IDS[number % 2 :]


DICTIONARIES = [{"input_ids": IDS[number % 2 :]} for number in range(24)]


def padding(train: Any, pad: str | None) -> Build:
    """Rows of two lengths, and a collator that pads."""

    def build(folder: Path) -> Any:
        from transformers import DataCollatorForLanguageModeling

        collator = DataCollatorForLanguageModeling(words(pad), mlm=False)
        return trainer(folder, train=train, data_collator=collator, processing_class=words(pad))

    return build


def embedded(token: int, *added: str, size: int = 2048) -> Build:
    """A row with a token, a tokenizer with some more of them, and an embedding of a size."""

    def build(folder: Path) -> Any:
        model = base()
        model.resize_token_embeddings(size)
        known = words("<|endoftext|>", *added)
        train = [row([token, *IDS]), *[row([5, *IDS])] * 23]
        return trainer(folder, model=lora(model), train=train, processing_class=known)

    return build


def typed(name: str) -> Build:
    """A collator that makes ids of a type."""

    def build(folder: Path) -> Any:
        import torch
        from transformers import default_data_collator

        def collate(examples: Any) -> Any:
            batch = default_data_collator(examples)
            return {**batch, "input_ids": batch["input_ids"].to(getattr(torch, name))}

        return trainer(folder, data_collator=collate)

    return build


def context(kind: str, positions: int) -> Build:
    """Rows of 48 tokens, and a table of positions (GPT-2, OPT) or rotary ones (Llama)."""

    def build(folder: Path) -> Any:
        import transformers

        sizes = {
            "vocab_size": 2048,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "ffn_dim": 16,
            "num_attention_heads": 2,
            "max_position_embeddings": positions,
            "intermediate_size": 16,
            "word_embed_proj_dim": 16,
        }
        if kind == "GPT2":
            return trainer(folder, model=base(n_positions=positions))
        config = getattr(transformers, f"{kind}Config")(**sizes)
        return trainer(folder, model=getattr(transformers, f"{kind}ForCausalLM")(config))

    return build


def hidden(count: int) -> Row:
    """A row of 20 tokens, so many of which the mask hides; of more than half, it shows the pads."""
    shown = [1] * (20 - count) + [int(count > 10)] * 8
    return {**row(IDS, behind=8), "attention_mask": [0] * count + shown}


def side(
    *,
    masked: int = 0,
    pads: int = 0,
    eos: int = 0,
    alike: int = 0,
    count: int = 20,
    labels: bool = True,
) -> list[Row]:
    """Rows of 20 tokens and 24 pads: labels that are masked, labels on pads, rows that end in EOS,
    rows that begin alike."""
    made = []
    for number in range(count):
        start = [7, 8, 9] if number < alike else [1000 + number, 8, 9]
        ids = [*start, *IDS[3:19], EOS if number < eos else IDS[19]]
        one = row(ids, behind=24, pad=OWN)
        one["labels"] = [*[-100] * masked, *ids[masked:], *[OWN] * pads, *[-100] * (24 - pads)]
        made.append(one if labels else {"input_ids": one["input_ids"]})
    return made


def sides(one: Mapping[str, Any], other: Mapping[str, Any]) -> Build:
    """Training and evaluation rows."""
    return lambda folder: trainer(
        folder, train=side(**one), evaluation=side(**other), processing_class=words("~")
    )


STARTS = "{} of 24 rows have a special token twice at their start"
ENDS = "{} of 24 rows have a special token twice at their end"
LONGER = "rows of up to 48 tokens, and the context has 47"
FRONT = "in {} of 24 padded rows pads in front of the text are not masked"
HIDES = "in 1 of 24 padded rows the attention mask hides the text"
FORMS = "written in different forms"
NO_EOS, RIGHT, PLAIN = question(), row(IDS, behind=8), row(IDS, behind=6)
BOS_TWICE, EOS_TWICE = row([EOS, EOS, *IDS], behind=4), row([*IDS, EOS, EOS], behind=4)


@catches("FT210", "FT212", "FT213", "FT214", "FT215", "FT216", "FT217", "FT218")
@pytest.mark.parametrize(
    ("code", "build", "severity", "said"),
    [
        case("all", "FT210", of(NO_EOS, LONGEST, 23), WARNING, "23 of 23 answers do not end"),
        case("most", "FT210", of(NO_EOS, question(EOS), 13), WARNING, "13 of 24 answers do not"),
        case("markers", "FT210", marked, WARNING, "(the text has markers of an answer)"),
        case("a plain token that was added", "FT210", ended(special=False), WARNING, "24 of 24"),
        case("BOS, all", "FT212", of(BOS_TWICE), WARNING, STARTS.format(24)),
        case("BOS, half", "FT212", of(BOS_TWICE, PLAIN, 12), WARNING, STARTS.format(12)),
        case("EOS, all", "FT212", of(EOS_TWICE), WARNING, ENDS.format(24)),
        case("EOS, half", "FT212", of(EOS_TWICE, PLAIN, 12), WARNING, ENDS.format(12)),
        case("BOS, no mask", "FT212", without_mask([EOS, EOS, *IDS]), WARNING, STARTS.format(24)),
        case("EOS, no mask", "FT212", without_mask([*IDS, EOS, EOS]), WARNING, ENDS.format(24)),
        case(
            "EOS and pads, no mask",
            "FT212",
            without_mask([*IDS, EOS, EOS, OWN]),
            WARNING,
            ENDS.format(24),
        ),
        case("dictionaries", "FT213", padding(DICTIONARIES, None), ERROR, "has no pad token"),
        case("lists", "FT213", padding(Listed(), None), ERROR, "has no pad token"),
        case("in a row", "FT214", embedded(2048), ERROR, "rows hold the token id 2048"),
        case("in no row", "FT214", embedded(5, "<a>"), WARNING, "the tokenizer has 2049 tokens"),
        case("float", "FT215", typed("float32"), ERROR, "input_ids have the type float32"),
        case("int16", "FT215", typed("int16"), ERROR, "input_ids have the type int16"),
        case("-1", "FT215", embedded(-1), ERROR, "input_ids hold negative numbers"),
        case("-100", "FT215", embedded(-100), ERROR, "input_ids hold negative numbers"),
        case("table", "FT216", context("GPT2", 47), ERROR, LONGER),
        case("table of OPT", "FT216", context("OPT", 47), ERROR, LONGER),
        case("rotary", "FT216", context("Llama", 47), WARNING, LONGER),
        case("inverted", "FT217", of(hidden(20), RIGHT, 1), ERROR, HIDES),
        case("more than half", "FT217", of(hidden(11), RIGHT, 1), ERROR, HIDES),
        case("in front", "FT217", of(row(IDS, front=8, shown=8), RIGHT, 1), ERROR, FRONT.format(1)),
        case("in front, three", "FT217", of(row(IDS, front=3, shown=3)), ERROR, FRONT.format(24)),
        case(
            "in front, two of their own",
            "FT217",
            of(row(IDS, front=2, shown=2, pad=OWN)),
            ERROR,
            FRONT.format(24),
        ),
        case(
            "in front, one of their own",
            "FT217",
            of(row(IDS, front=1, shown=1, pad=OWN)),
            ERROR,
            FRONT.format(24),
        ),
        case(
            "behind, one of their own",
            "FT217",
            of(row(IDS, behind=1, shown=1, pad=OWN)),
            NOTE,
            "pads behind the text",
        ),
        case("behind", "FT217", of(row(IDS, behind=8, shown=2)), NOTE, "pads behind the text"),
        case("labels", "FT218", sides({}, {"masked": 7}), WARNING, "100 % in training, 65 % in"),
        case("labels, turned", "FT218", sides({"masked": 7}, {}), WARNING, "65 % in training"),
        case("pads", "FT218", sides({"pads": 20}, {}), WARNING, "50 % in training, 0 %"),
        case(
            "half of pads, a tenth",
            "FT218",
            sides({"pads": 20}, {"pads": 2}),
            WARNING,
            "50 % in training, 9 %",
        ),
        case("EOS", "FT218", sides({"eos": 20}, {"eos": 1}), WARNING, "100 % in training, 5 %"),
        case(
            "EOS in nine of ten",
            "FT218",
            sides({"eos": 18}, {"eos": 2}),
            WARNING,
            "90 % in training, 10 %",
        ),
        case("forms", "FT218", sides({"alike": 20}, {}), WARNING, FORMS),
        case("forms, at the limit", "FT218", sides({"alike": 2}, {"alike": 18}), WARNING, FORMS),
        case("8 rows", "FT218", sides({"alike": 8, "count": 8}, {"count": 8}), WARNING, FORMS),
        case("no labels", "FT218", sides({}, {"labels": False}), WARNING, "evaluation rows have"),
        case("none in training", "FT218", sides({"labels": False}, {}), WARNING, "training rows"),
    ],
)
def test_it_is_said_with_its_number(
    tmp_path: Path, *, code: str, build: Build, severity: Severity, said: str
) -> None:
    finding = only(found(build(tmp_path), code))
    assert finding.severity is severity
    assert said in finding.sentence


@leaves_alone("FT210", "FT212", "FT213", "FT214", "FT215", "FT216", "FT217", "FT218")
@pytest.mark.parametrize(
    ("code", "build"),
    [
        case("half", "FT210", of(NO_EOS, question(EOS), 12)),
        case("a line feed behind", "FT210", of(question(EOS, 5))),
        case("BOS masked", "FT210", of(question(prompt=1))),
        case("plain text", "FT210", of(question(prompt=0))),
        case("all were cut", "FT210", of(LONGEST)),
        case("in <|im_end|>", "FT210", ended(named=True)),
        case("in <|eot_id|>", "FT210", ended()),
        case("BOS, fewer than half", "FT212", of(BOS_TWICE, PLAIN, 11)),
        case("EOS, fewer than half", "FT212", of(EOS_TWICE, PLAIN, 11)),
        case("once", "FT212", of(row([EOS, *IDS, EOS], behind=4))),
        case("BOS behind pads", "FT212", of(row([EOS, *IDS], front=4))),
        case("EOS pads, no mask", "FT212", without_mask([*IDS, EOS, EOS], "<|endoftext|>")),
        case("EOS once and pads, no mask", "FT212", without_mask([*IDS, EOS, OWN, OWN])),
        case("not side by side", "FT212", of(row([EOS, 5, EOS, *IDS, EOS, 5, EOS]))),
        case("a pad token", "FT213", padding(DICTIONARIES, "~")),
        case("a pad token, lists", "FT213", padding(Listed(), "~")),
        case("nothing to pad", "FT213", lambda f: trainer(f, processing_class=words(None))),
        case("the last row", "FT214", embedded(2047)),
        case("resized", "FT214", embedded(2048, "<a>", size=2049)),
        case("larger", "FT214", embedded(2048, "<a>", size=2112)),
        case("int32", "FT215", typed("int32")),
        case("int64", "FT215", typed("int64")),
        case("0", "FT215", embedded(0)),
        *(case(kind, "FT216", context(kind, 48)) for kind in ("GPT2", "OPT", "Llama")),
        case("half is hidden", "FT217", of(hidden(10))),
        case("in front", "FT217", of(row(IDS, front=8))),
        case("in front, and BOS", "FT217", of(row(IDS, front=8, shown=1))),
        case("two BOS", "FT217", of(row(IDS, front=2, shown=2))),
        case("behind", "FT217", of(RIGHT)),
        case("EOS, and behind", "FT217", of(row(IDS, behind=8, shown=1))),
        case("alike", "FT218", sides({}, {})),
        case("labels", "FT218", sides({}, {"masked": 5})),
        case("pads, 49 %", "FT218", sides({"pads": 19}, {})),
        case("pads, half and 13 %", "FT218", sides({"pads": 20}, {"pads": 3})),
        case("EOS in 17 of 20", "FT218", sides({"eos": 17}, {})),
        case("EOS in all, and in 3 of 20", "FT218", sides({"eos": 20}, {"eos": 3})),
        case("forms of 17 in 20", "FT218", sides({"alike": 17}, {})),
        case("forms, three of the other", "FT218", sides({"alike": 20}, {"alike": 3})),
        case("forms of seven rows", "FT218", sides({"alike": 7, "count": 7}, {"count": 8})),
        case("no labels at all", "FT218", sides({"labels": False}, {"labels": False})),
    ],
)
def test_near_misses_are_left_alone(tmp_path: Path, code: str, build: Build) -> None:
    one = check_one(build(tmp_path), code)
    assert one.status in (Status.PASSED, Status.SKIPPED), one.reason
    assert one.findings == ()


def test_a_fix_is_what_the_recipe_would_have(tmp_path: Path) -> None:
    finding = only(found(of(NO_EOS, LONGEST, 23)(tmp_path), "FT210"))
    assert finding.fix.change == {"tokenization.append_eos": True}
    finding = only(found(context("GPT2", 47)(tmp_path), "FT216"))
    assert finding.fix.change == {"tokenization.max_length": 47}


def pretrained(folder: Path, shift: int) -> Any:
    """A model that was trained, and rows of its ids or of others."""
    from transformers import AutoModelForCausalLM

    def moved(ids: list[int]) -> list[int]:
        return [(7 * token + shift) % 2048 if shift else token for token in ids]

    made = [row(moved(one["input_ids"])) for one in rows()]
    model = lora(AutoModelForCausalLM.from_pretrained(str(model_dir())))
    return trainer(folder, model=model, train=made)


@catches("FT219")
def test_the_tokens_of_another_model_are_said(tmp_path: Path) -> None:
    finding = only(found(pretrained(tmp_path, 1), "FT219"))
    assert finding.severity is ERROR
    assert "guessing would have 7.62" in finding.sentence


@leaves_alone("FT219")
def test_the_tokens_of_the_model_and_random_weights_are_left_alone(tmp_path: Path) -> None:
    assert check_one(pretrained(tmp_path, 0), "FT219").status is Status.PASSED
    assert check_one(trainer(tmp_path), "FT219").status is Status.PASSED


@leaves_alone("FT219")
def test_text_that_the_base_never_saw_the_like_of_is_a_note(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    texts = ["Le chat écrit une lettre près de la fenêtre, puis prépare le dîner."] * 8
    made = [row(tokenizer()(text)["input_ids"]) for text in texts]
    model = AutoModelForCausalLM.from_pretrained(str(model_dir()))
    finding = only(found(trainer(tmp_path, model=model, train=made), "FT219"))
    assert finding.severity is NOTE
    assert finding.sentence.endswith("it never saw such text")
    assert re.match(r"its loss on plain English is [2345]\.", finding.evidence[0])


@catches("FT219")
@leaves_alone("FT219")
@pytest.mark.parametrize(
    ("loss", "real", "status"),
    [(0.49, True, Status.PASSED), (0.51, True, Status.FAILED), (0.51, False, Status.UNMEASURED)],
)
def test_half_a_nat_above_guessing_is_the_limit(
    tmp_path: Path, loss: float, real: bool, status: Status
) -> None:
    seen = look_at(trainer_subject(trainer(tmp_path)), {})
    learning = Learning(base_loss=math.log(2048) + loss)
    seen = dataclasses.replace(seen, learning=learning, real_weights=real)
    one = judged(seen, "FT219")
    assert one.status is status
    assert len(one.findings) == (status is Status.FAILED)
