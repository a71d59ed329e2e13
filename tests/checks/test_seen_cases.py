"""Checks of what scripts do, of recipes' budgets and of texts, each from both sides.

What was seen of a real trainer, with the facts that a script or a recipe adds; tests/subjects and
tests/cli have the same through real scripts and recipes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftcheck.allocator.trace import Tags, Trace, TraceRecorder
from ftcheck.cards import card
from ftcheck.checks.facts import Call, Failure, Record, Reload, Row, Rows
from ftcheck.checks.finding import Finding, Level
from ftcheck.checks.observe.looking import look_at
from ftcheck.checks.seen import Seen
from ftcheck.recipe import load_recipe
from ftcheck.subjects.trainer import trainer_subject
from ftcheck.vram.vram_report import report_on
from tests.checks.cases import Cases, covered
from tests.checks.toys import judged, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

Change = Callable[[Seen], Seen]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    made = trainer(tmp_path_factory.mktemp("seen"), evaluation=rows()[:8])
    return look_at(trainer_subject(made), {Level.DATA, Level.ROUNDTRIP})


def findings(seen: Seen, code: str) -> tuple[Finding, ...]:
    return judged(seen, code).findings


def did(what: str, when: str = "after", **facts: Any) -> Change:
    """A script that did one thing more, and was followed to its end."""

    def change(seen: Seen) -> Seen:
        before = seen.record.calls if seen.record is not None else ()
        calls = (*before, Call(what=what, place="train.py:9", when=when, facts=facts))
        return dataclasses.replace(seen, kind="script", record=Record(calls=calls, through=True))

    return change


def looped(**facts: Any) -> Change:
    """A script with a loop of its own, of which some steps were followed."""

    def change(seen: Seen) -> Seen:
        return dataclasses.replace(seen, kind="script", record=Record(loop=True, **facts))

    return change


def both(*changes: Change) -> Change:
    def change(seen: Seen) -> Seen:
        for one in changes:
            seen = one(seen)
        return seen

    return change


def setup(**facts: Any) -> Change:
    def change(seen: Seen) -> Seen:
        assert seen.setup is not None
        given = dict(facts)
        if "arguments" in given:
            given["arguments"] = {**seen.setup.arguments, **given["arguments"]}
        return dataclasses.replace(seen, setup=dataclasses.replace(seen.setup, **given))

    return change


def failed(text: str, kind: str = "ValueError") -> Change:
    failure = Failure(kind=kind, text=text, during="running the script", place="train.py:3")
    return lambda seen: dataclasses.replace(
        seen, kind="script", record=Record(calls=(), failure=failure)
    )


def cut(tokens: int) -> Change:
    def change(seen: Seen) -> Seen:
        assert seen.train is not None
        return dataclasses.replace(seen, train=dataclasses.replace(seen.train, cut=(tokens, 100)))

    return change


def written_in(text: str) -> Change:
    """Rows of a text, each cut into as many tokens as it has characters or words."""

    def change(seen: Seen) -> Seen:
        assert seen.text is not None
        words = dataclasses.replace(seen.text, size=50_257, decode=lambda ids: text * len(ids))
        made = Rows(rows=(Row(ids=(5,) * 1200, mask=None, labels=None),))
        return dataclasses.replace(seen, text=words, train=made)

    return change


def reloaded(**facts: Any) -> Change:
    return lambda seen: dataclasses.replace(seen, reload=Reload(files=("a",), **facts))


def on_card(name: str) -> Change:
    def change(seen: Seen) -> Seen:
        recipe = load_recipe("gpt2-wikitext2", overrides=(f'budget.card="{name}"',))
        return setup(arguments={"bf16": True})(dataclasses.replace(seen, recipe=recipe))

    return change


def memory(allocated_mib: int) -> Change:
    """One tensor of a size on a card of 8 GB."""

    def change(seen: Seen) -> Seen:
        recorder = TraceRecorder()
        recorder.allocate(1, allocated_mib * 2**20, Tags(phase="step 1"))
        report = report_on(Trace(recorder), subject="x", card=card("rtx4070-laptop-8gb"))
        return dataclasses.replace(seen, memory=report)

    return change


def memory_failed(text: str) -> Change:
    failure = Failure(kind="ChildFailed", text=text, during="predicting memory")
    return lambda seen: dataclasses.replace(seen, memory=failure)


def added(token: int, *, trained: bool) -> Change:
    """A batch with an added token, of a model that was resized."""

    def change(seen: Seen) -> Seen:
        assert seen.batches is not None
        assert seen.setup is not None
        row = Row(ids=(token, 5), mask=(1, 1), labels=(token, 5))
        batches = dataclasses.replace(seen.batches, rows=(row,))
        parameters = tuple(
            dataclasses.replace(one, trainable=one.trainable or (trained and "wte" in one.name))
            for one in seen.setup.parameters
        )
        grown = setup(parameters=parameters)(dataclasses.replace(seen, batches=batches))
        return did("resize", "before", old=2048)(grown)

    return change


def plain(seen: Seen) -> Seen:
    return seen


GENERATED: dict[str, Any] = {
    "dropouts_on": 0,
    "mask": True,
    "rows": 2,
    "padded": True,
    "right_padded": 0,
    "cache": True,
    "length": 20,
    "context": 128,
    "ids": (11, 12, 13, 14),
}


def generated(**facts: Any) -> Change:
    return did("generate", **{**GENERATED, **facts})


def with_prompts(seen: Seen) -> Seen:
    """Rows that begin alike, and whose beginning is masked."""
    assert seen.batches is not None
    made = tuple(
        Row(ids=(21, 22, 23, n, n + 1), mask=(1,) * 5, labels=(-100, -100, -100, n, n + 1))
        for n in range(30, 60)
    )
    return dataclasses.replace(seen, batches=dataclasses.replace(seen.batches, rows=made))


saved = did("save", kind="adapter")
CASES: Cases = {
    "FT104": (
        did("shuffle", method="shuffle", seeded=False),
        "warning",
        (did("shuffle", method="shuffle", seeded=True),),
    ),
    "FT106": (
        did("map", function="prepare", stale=True, evidence=("text: a, now b",)),
        "error",
        (did("map", function="prepare", stale=False, evidence=()),),
    ),
    "FT107": (cut(50), "warning", (cut(0),)),
    "FT108": (written_in("x"), "warning", (written_in("ab"), written_in("word "))),
    "FT301": (
        failed("Target modules {'q_proj'} not found in the base model."),
        "error",
        (failed("something else"), plain),
    ),
    "FT314": (did("wrap", "before", seeded=False), "note", (did("wrap", "before", seeded=True),)),
    "FT504": (
        setup(quantized="8-bit", prepared=False),
        "note",
        (setup(quantized="8-bit", prepared=True),),
    ),
    "FT505": (
        both(
            setup(quantized="4-bit"),
            reloaded(difference=0.0, adapter_effect=1.0, scale=10.0, merge_error=0.16),
        ),
        "note",
        (
            both(
                setup(quantized="4-bit"),
                reloaded(difference=0.0, adapter_effect=1.0, scale=10.0, merge_error=0.14),
            ),
            both(
                setup(quantized="4-bit"),
                reloaded(difference=0.0, adapter_effect=0.4, scale=10.0, merge_error=0.9),
            ),
        ),
    ),
    "FT506": (on_card("t4-16gb"), "error", (on_card("rtx4070-laptop-8gb"),)),
    "FT601": (
        failed(
            "Expected all tensors to be on the same device, but got cuda:0 and cpu", "RuntimeError"
        ),
        "error",
        (failed("something else"), memory(1)),
    ),
    "FT604": (
        failed("`.to` is not supported for `8-bit` bitsandbytes models."),
        "error",
        (failed("something else"),),
    ),
    "FT429": (
        looped(rates=(1e-3,) * 8, kept_gradients=7),
        "error",
        (looped(rates=(1e-3,) * 8), looped(rates=(1e-3,), kept_gradients=0)),
    ),
    "FT701": (memory(7900), "error", (memory(7000),)),
    "FT702": (memory(7600), "note", (memory(7000), memory(7900))),
    "FT801": (
        both(setup(arguments={"save_strategy": "no"}), did("generate", **GENERATED)),
        "warning",
        (both(setup(arguments={"save_strategy": "no"}), saved), did("generate", **GENERATED)),
    ),
    "FT802": (
        reloaded(difference=0.02, scale=10.0, adapter_effect=1.0),
        "error",
        (reloaded(difference=0.009, scale=10.0, adapter_effect=1.0),),
    ),
    "FT803": (
        did("save", "before", kind="adapter"),
        "error",
        (
            both(did("save", "before", kind="adapter"), saved),
            did("save", "before", kind="tokenizer"),
        ),
    ),
    "FT804": (did("save", kind="base"), "error", (saved, both(did("save", kind="base"), saved))),
    "FT805": (
        did("load-adapter", same_base=False, evidence=("wte.weight",)),
        "error",
        (did("load-adapter", same_base=True), did("load-adapter", same_base=None)),
    ),
    "FT806": (
        both(setup(processing_saved=False), saved),
        "note",
        (both(setup(processing_saved=False), saved, did("save", kind="tokenizer")), saved),
    ),
    "FT807": (
        added(2048, trained=False),
        "error",
        (added(2048, trained=True), added(2047, trained=False)),
    ),
    "FT808": (
        did("load-state", count=8, evidence=("a", "b")),
        "error",
        (did("load-adapter", same_base=True),),
    ),
    "FT901": (generated(dropouts_on=3), "warning", (generated(),)),
    "FT902": (generated(right_padded=1), "warning", (generated(),)),
    "FT903": (generated(mask=False), "warning", (generated(),)),
    "FT904": (generated(cache=False), "note", (generated(cache=None),)),
    "FT905": (generated(length=129), "error", (generated(length=128), generated(length=None))),
    "FT906": (
        both(with_prompts, generated()),
        "warning",
        (generated(), both(with_prompts, generated(ids=(2047, 21, 22, 23, 31)))),
    ),
}
covered(CASES, __name__)


@pytest.mark.parametrize("code", CASES)
def test_it_catches_what_is_wrong(seen: Seen, code: str) -> None:
    change, severity, _ = CASES[code]
    found = findings(change(seen), code)
    assert [one.severity.value for one in found] == [severity]


@pytest.mark.parametrize(
    ("code", "change"), [(code, one) for code, case in CASES.items() for one in case[2]]
)
def test_it_leaves_near_misses_alone(seen: Seen, code: str, change: Change) -> None:
    assert findings(change(seen), code) == ()


@pytest.mark.parametrize(
    ("rates", "caught"),
    [
        ((1.0, 0.5, 0.0, 0.0), True),
        ((1.0, 0.5, 0.2, 0.0), False),  # the last step of a run may have none
        ((0.0, 0.5, 1.0), False),  # a warm-up
        ((0.0, 0.0, 0.0), False),  # another reason
        ((), False),
    ],
)
def test_a_schedule_that_ends_after_some_steps(seen: Seen, rates: Any, caught: bool) -> None:
    found = findings(looped(rates=rates)(seen), "FT403")
    assert [one.sentence for one in found] == [
        "the learning rate is 0 after 2 steps: nothing is learned from then on"
    ] * caught


@pytest.mark.parametrize(
    ("code", "change", "severity"),
    [
        ("FT107", cut(49), "note"),
        ("FT505", both(setup(quantized="4-bit"), did("merge")), "warning"),
        (
            "FT806",
            both(setup(processing_saved=False), added(2048, trained=True), saved),
            "note",
        ),
        ("FT903", generated(mask=False, rows=1, padded=False), "note"),
    ],
)
def test_other_degrees(seen: Seen, code: str, change: Change, severity: str) -> None:
    assert [one.severity.value for one in findings(change(seen), code)] == [severity]


def test_what_was_not_looked_at_is_not_measured(seen: Seen, tmp_path: Path) -> None:
    outcome = judged(dataclasses.replace(seen, reload=None), "FT802")
    assert outcome.status.value == "unmeasured"
    assert outcome.reason
    outcome = judged(memory_failed("no kernel for x")(seen), "FT701")
    assert outcome.status.value == "unmeasured"
