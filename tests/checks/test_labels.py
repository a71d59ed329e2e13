"""FT201 to FT211 and FT221: labels, from both sides of each limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftcheck.checks.finding import Finding, Severity, Status
from ftcheck.subjects.trainer import check_trainer
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import base, check_one, found, lora, rows, tokenizer, trainer

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore"),  # of the libraries, about what is built wrong
]

EOS = 2047  # also BOS and the pad token of the toy tokenizer
IDS = [100 + 3 * n for n in range(20)]
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
Row = dict[str, Any]
Change = Callable[[Row], object]
Make = Callable[[], list[Row]]
Labels = Callable[[list[int]], list[int]]


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=f"{values[0]} {name}")


def each(change: Change, count: int = 24, then: Change = lambda _: None) -> Make:
    """Rows, the first of which are changed."""

    def make() -> list[Row]:
        made = rows()
        for one in made[:count]:
            change(one)
            then(one)
        return made

    return make


def labelled(labels: Labels, tokens: int = 21, step: int = 3) -> Make:
    """Rows of tokens, and labels made from them; of 21 tokens, 20 have one behind them."""
    many = [[100 + n + step * place for place in range(tokens)] for n in range(24)]
    return lambda: [{"input_ids": ids, "labels": labels(ids)} for ids in many]


def kept(count: int) -> Labels:
    """So many labels are the tokens at their places; the others are of nothing."""
    return lambda ids: [*ids[:count], *[7] * (len(ids) - count)]


def shifted(count: int) -> Labels:
    """So many labels are the next token; the others are the one at their place."""
    return lambda ids: [*ids[1 : count + 1], *ids[count:]]


def first(count: int) -> Labels:
    """So many tokens at the beginning have labels."""
    return lambda ids: [*ids[:count], *[-100] * (len(ids) - count)]


def real(one: Row) -> int:
    return sum(one["attention_mask"])


def masked(count: int) -> Change:
    """The first tokens of a row have no label."""
    return lambda one: one.update(labels=[-100] * count + one["labels"][count:])


def learned(count: int) -> Change:
    """The first tokens alone have labels."""
    return lambda one: one.update(labels=[*one["labels"][:count], *[-100] * (48 - count)])


def last(label: int) -> Change:
    return lambda one: one.update(labels=[*one["labels"][:-1], label])


def turns(one: Row) -> None:
    """An answer, a question, an answer."""
    one["labels"] = [-100 if 8 <= n < 16 else label for n, label in enumerate(one["labels"])]


def on_the_left(one: Row) -> None:
    """Move the padding in front."""
    count = real(one)
    for name, values in one.items():
        one[name] = [*values[count:], *values[:count]]


def bos(label: int) -> Change:
    """BOS with a label in front of the text, and the padding in front of that."""

    def change(one: Row) -> None:
        for name, value in (("input_ids", EOS), ("attention_mask", 1), ("labels", label)):
            one[name] = [value, *one[name][:-1]]
        on_the_left(one)

    return change


def no_eos(one: Row) -> None:
    last = real(one) - 1
    one["input_ids"][last] = one["labels"][last] = 5


def eos_ignored(one: Row) -> None:
    one["labels"][real(one) - 1] = -100


def line_feed(one: Row) -> None:
    """One more token behind the EOS."""
    last = real(one)
    one["input_ids"][last], one["attention_mask"][last], one["labels"][last] = 5, 1, 5


def eos_of_question(one: Row) -> None:
    """A question that ends in EOS, and is masked."""
    one["input_ids"][8] = EOS
    masked(9)(one)


def padded(labels: int, *, pads: int = 28, mask: bool = True, pad: int = EOS) -> Make:
    """Rows of 20 tokens, EOS the last, and pads, some of which have labels."""
    ids = [*IDS[:19], EOS, *[pad] * pads]
    made = {"input_ids": ids, "labels": [*ids[: 20 + labels], *[-100] * (pads - labels)]}
    shown = {"attention_mask": [1] * 20 + [0] * pads} if mask else {}
    return lambda: [{**made, **shown}] * 24


def answers(
    marker: str, count: int = 24, change: Change = lambda _: None, then: Change = lambda _: None
) -> Make:
    """Questions, the first of which have the marker before their answers."""

    def make() -> list[Row]:
        made = rows([f"Add 1 to {n}{marker if n < count else ' '}{n}" for n in range(24)])
        for one in made:
            change(one)
            then(one)
        return made

    return make


def unlabelled() -> list[Row]:
    return each(lambda one: one.pop("labels"))()


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


PLACES = "{} % equal the token at their place, {} % the one behind it"
PADS = "{} % of the label tokens are padding"
MARKERS = (
    "\n### Response:\n",
    "\n### Answer: ",
    "<|assistant|>",
    " [/INST] ",
    "\nAssistant: ",
    "\nA: ",
    "<start_of_turn>model\n",
    "<|im_start|>assistant\n",
)


@catches("FT202", "FT203", "FT204", "FT207", "FT208", "FT209", "FT211", "FT221")
@pytest.mark.parametrize(
    ("code", "make", "severity", "words"),
    [
        case("none is a token", "FT202", labelled(kept(0)), ERROR, PLACES.format(0, 0)),
        case("half are tokens", "FT202", labelled(kept(10)), ERROR, PLACES.format(50, 0)),
        case("half are next", "FT202", labelled(shifted(10)), ERROR, PLACES.format(50, 50)),
        case("all", "FT203", each(learned(0)), ERROR, "24 of 24 rows"),
        case("half", "FT203", each(learned(0), 12), WARNING, "12 of 24 rows"),
        case("fewer", "FT203", each(learned(0), 11), NOTE, "11 of 24 rows"),
        case("the first label is never learned", "FT203", each(learned(1)), ERROR, "24 of 24"),
        case("all", "FT204", labelled(shifted(20)), ERROR, "(100 %)"),
        case("nine in ten", "FT204", labelled(shifted(18)), ERROR, "(90 %)"),
        case("all", "FT207", each(learned(8)), ERROR, "in 24 of 24 rows"),
        case("eight in ten", "FT207", each(learned(8), 20), ERROR, "in 20 of 24 rows"),
        case("a tenth", "FT207", labelled(first(2), 20), ERROR, "in 24 of 24 rows"),
        case("nine tenths", "FT207", labelled(first(18), 20), ERROR, "in 24 of 24 rows"),
        case("one", "FT208", padded(1), NOTE, PADS.format(5)),
        case("fewer than half", "FT208", padded(19), NOTE, PADS.format(49)),
        case("half", "FT208", padded(20), WARNING, PADS.format(50)),
        case("half, no mask", "FT208", padded(20, mask=False), WARNING, PADS.format(50)),
        case("all", "FT209", each(eos_ignored), WARNING, "24 of 24 rows with EOS ignore it"),
        case("nine in ten", "FT209", each(eos_ignored, 22), WARNING, "22 of 24 rows with EOS"),
        case("no mask", "FT209", padded(-1, mask=False), WARNING, "24 of 24 rows with EOS"),
        case("a line feed", "FT209", each(eos_ignored, then=line_feed), WARNING, "24 of 24"),
        case("-1", "FT211", each(last(-1)), ERROR, "labels hold -1, expected token ids below 2048"),
        case("-101", "FT211", each(last(-101)), ERROR, "labels hold -101,"),
        case("2048", "FT211", each(last(2048)), ERROR, "labels hold 2048,"),
        *(case(repr(one), "FT221", answers(one), NOTE, "prompts have labels") for one in MARKERS),
        case("eight in ten", "FT221", answers("\nAnswer: ", 20), NOTE, "prompts have labels"),
        case(
            "padded on the left",
            "FT221",
            answers("\nAnswer: ", change=on_the_left),
            NOTE,
            "prompts have labels",
        ),
    ],
)
def test_it_is_said_with_its_number(
    tmp_path: Path, *, code: str, make: Make, severity: Severity, words: str
) -> None:
    finding = only(found(trainer(tmp_path, train=make()), code))
    assert finding.severity is severity
    assert words in finding.sentence


@leaves_alone("FT202", "FT203", "FT204", "FT207", "FT208", "FT209", "FT211", "FT221")
@pytest.mark.parametrize(
    ("code", "make"),
    [
        case("more than half are tokens", "FT202", labelled(kept(11))),
        case("all are next", "FT202", labelled(shifted(20))),
        case("the prompt is masked", "FT202", each(masked(14))),
        case("one label", "FT203", each(lambda one: masked(real(one) - 1)(one))),
        case("fewer than nine in ten", "FT204", labelled(shifted(17))),
        case("one token over and over", "FT204", labelled(lambda ids: ids, step=0)),
        case("fewer than eight in ten", "FT207", each(learned(8), 19)),
        case("the prompt is masked", "FT207", each(masked(8))),
        case("a question between answers", "FT207", each(turns)),
        case("below a tenth", "FT207", each(learned(2))),
        case("the last token is masked", "FT207", labelled(first(19), 20)),
        case("five tokens", "FT207", labelled(first(2), 5)),
        case("EOS and pads", "FT208", padded(0)),
        case("EOS and pads, no mask", "FT208", padded(0, mask=False)),
        case("EOS alone, no mask", "FT208", padded(0, pads=0, mask=False)),
        case("padded on the left", "FT208", each(on_the_left)),
        case("BOS behind pads", "FT208", each(bos(EOS))),
        case("fewer than nine in ten", "FT209", each(eos_ignored, 21)),
        case("of a question, and one at the end", "FT209", each(eos_of_question)),
        case("learned, and a line feed", "FT209", each(line_feed)),
        case("nothing is learned", "FT209", each(learned(0))),
        case("no EOS", "FT209", each(no_eos)),
        case("of a question, the answer was cut", "FT209", each(no_eos, then=eos_of_question)),
        case("BOS behind pads", "FT209", each(no_eos, then=bos(-100))),
        case("-100", "FT211", each(last(-100))),
        case("0", "FT211", each(last(0))),
        case("2047", "FT211", each(last(2047))),
        case("fewer than eight in ten", "FT221", answers("\nAnswer: ", 19)),
        case(
            "masked, padded on the left",
            "FT221",
            answers("\nAnswer: ", change=masked(4), then=on_the_left),
        ),
        case("in a sentence", "FT221", answers(" the answer: ")),
        case("prompts are masked", "FT221", answers("\nAnswer: ", change=masked(4))),
        *(case("sound rows", code, rows) for code in ("FT202", "FT203", "FT204", "FT207", "FT221")),
    ],
)
def test_near_misses_are_left_alone(tmp_path: Path, code: str, make: Make) -> None:
    one = check_one(trainer(tmp_path, train=make()), code)
    assert one.status in (Status.PASSED, Status.SKIPPED), one.reason
    assert one.findings == ()


@leaves_alone("FT211")
def test_a_larger_vocabulary_has_more_labels(tmp_path: Path) -> None:
    made = trainer(tmp_path, train=each(last(2048))(), model=lora(base(vocab_size=2049)))
    assert found(made, "FT211") == ()


@catches("FT208")
def test_pads_of_their_own_count_from_the_first_on(tmp_path: Path) -> None:
    words = tokenizer(pad_token="~")
    made = padded(1, mask=False, pad=words.pad_token_id)()
    finding = only(found(trainer(tmp_path, train=made, processing_class=words), "FT208"))
    assert finding.sentence == PADS.format(5)


def own_loss(*, shift: int) -> Any:
    """A trainer whose loss shifts by hand, and needs no labels."""
    import torch
    from transformers import Trainer

    class OwnLoss(Trainer):  # type: ignore[misc] # transformers has no types
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
        ) -> Any:
            labels = inputs.get("labels", inputs["input_ids"])
            outputs = model(input_ids=inputs["input_ids"])
            logits = outputs.logits[:, : labels.shape[1] - shift].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, shift:].flatten())
            return (loss, outputs) if return_outputs else loss

    return OwnLoss


@catches("FT201")
def test_batches_without_labels_are_said(tmp_path: Path) -> None:
    finding = only(found(trainer(tmp_path, train=unlabelled()), "FT201"))
    assert finding.severity is ERROR
    assert finding.evidence == ("a batch has input_ids, attention_mask",)


@leaves_alone("FT201")
def test_labels_of_the_collator_or_a_loss_without_them_are_left_alone(tmp_path: Path) -> None:
    for how in ({"data_collator": of_the_library()}, {"kind": own_loss(shift=1)}):
        assert found(trainer(tmp_path, train=unlabelled(), **how), "FT201") == ()


def pretrained() -> Any:
    from transformers import AutoModelForCausalLM

    from ftcheck.assets import model_dir

    return lora(AutoModelForCausalLM.from_pretrained(str(model_dir())))


@catches("FT204")
@leaves_alone("FT204")
@pytest.mark.parametrize(
    ("make", "shift", "count"),
    [(pretrained, 0, 0), (pretrained, 1, 1), (lora, 0, 0), (lora, 1, 1)],
)
def test_a_loss_of_its_own_is_asked_how_it_shifts(
    tmp_path: Path, make: Callable[[], Any], shift: int, count: int
) -> None:
    words = [one["input_ids"][:24] for one in rows()]
    train = [{"input_ids": ids, "labels": shifted(23)(ids)} for ids in words]
    made = trainer(tmp_path, model=make(), train=train, kind=own_loss(shift=shift))
    report = check_trainer(made, select=["FT204", "FT409"])  # FT409 has the loss computed
    assert report.outcomes[0].status is (Status.FAILED if count else Status.PASSED)
    assert len(report.outcomes[0].findings) == count


def with_dtype(name: str) -> Any:
    """A collator that makes labels of a type."""
    import torch
    from transformers import default_data_collator

    def collate(examples: Any) -> Any:
        batch = default_data_collator(examples)
        return {**batch, "labels": batch["labels"].to(getattr(torch, name))}

    return collate


@catches("FT205")
@pytest.mark.parametrize("name", ["float32", "int32"])
def test_labels_of_another_type_are_said(tmp_path: Path, name: str) -> None:
    finding = only(found(trainer(tmp_path, data_collator=with_dtype(name)), "FT205"))
    assert finding.severity is ERROR
    assert finding.sentence == f"labels have the type {name}, expected int64"


@leaves_alone("FT205")
def test_labels_of_int64_are_left_alone(tmp_path: Path) -> None:
    assert found(trainer(tmp_path, data_collator=with_dtype("int64")), "FT205") == ()
    assert check_one(trainer(tmp_path, train=unlabelled()), "FT205").status is Status.SKIPPED


def of_the_library(kind: str = "LanguageModeling", pad: str = "<|endoftext|>", **more: Any) -> Any:
    import transformers

    options = {"mlm": False} if kind == "LanguageModeling" else {}
    words = tokenizer(pad_token=pad, padding_side=more.pop("side", "right"))
    return getattr(transformers, f"DataCollatorFor{kind}")(words, **options, **more)


@catches("FT209")
@leaves_alone("FT209")
@pytest.mark.parametrize(("pad", "count"), [("<|endoftext|>", 1), ("~", 0)])
def test_a_collator_that_masks_pads_masks_an_eos_of_the_same_id(
    tmp_path: Path, pad: str, count: int
) -> None:
    collator = of_the_library(pad=pad)
    short = [{"input_ids": one["input_ids"][: real(one)]} for one in rows()]
    made = trainer(tmp_path, train=short, data_collator=collator, processing_class=None)
    assert len(found(made, "FT209")) == count


@catches("FT206")
@pytest.mark.parametrize("count", [2, 14])
def test_a_collator_that_makes_labels_anew_is_said(tmp_path: Path, count: int) -> None:
    made = trainer(tmp_path, train=each(masked(count))(), data_collator=of_the_library())
    finding = only(found(made, "FT206"))
    assert finding.severity is ERROR
    assert finding.sentence.startswith("DataCollatorForLanguageModeling replaces labels")


@catches("FT206")
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_lost_mask_is_seen_where_the_collator_pads(tmp_path: Path, side: str) -> None:
    train = labelled(lambda ids: [-100] * 14 + ids[14:])()
    collator = of_the_library(side=side, pad_to_multiple_of=8)
    assert len(found(trainer(tmp_path, train=train, data_collator=collator), "FT206")) == 1


@leaves_alone("FT206")
@pytest.mark.parametrize(
    ("kind", "count"),
    [("Seq2Seq", 14), ("LanguageModeling", 0), ("LanguageModeling", 1)],
)
def test_a_collator_that_loses_nothing_is_left_alone(tmp_path: Path, kind: str, count: int) -> None:
    made = trainer(tmp_path, train=each(masked(count))(), data_collator=of_the_library(kind))
    assert found(made, "FT206") == ()


@catches("FT206")
@leaves_alone("FT206")
@pytest.mark.parametrize(
    ("tokens", "in_four", "lost"), [(6, 4, 24), (11, 3, 18), (5, 4, 0), (11, 2, 0)]
)
def test_half_of_the_masked_tokens_in_most_rows_are_a_lost_mask(
    tmp_path: Path, tokens: int, in_four: int, lost: int
) -> None:
    """Of eleven masked labels; that of the first token is never learned."""
    from transformers import default_data_collator

    def unmask(examples: Any) -> Any:
        batch = default_data_collator(examples)
        batch["labels"][:in_four, :tokens] = batch["input_ids"][:in_four, :tokens]
        return batch

    findings = found(trainer(tmp_path, train=each(masked(11))(), data_collator=unmask), "FT206")
    assert [f"{lost} of 24 rows" in one.sentence for one in findings] == [True] * bool(lost)
