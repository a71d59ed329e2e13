"""From what was seen to a report: findings, statuses, order and words, without any model."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ftcheck.checks import registry
from ftcheck.checks.facts import Batches, Failure, Record, Row, Text
from ftcheck.checks.finding import (
    CheckReport,
    Finding,
    Fix,
    Level,
    NotApplicable,
    NotMeasured,
    Outcome,
    Severity,
    Status,
)
from ftcheck.checks.registry import FAILS, Check, all_checks, check, find, selected, within
from ftcheck.checks.runner import judge
from ftcheck.checks.seen import Seen
from ftcheck.errors import InputError
from ftcheck.recipe import parse_recipe

HEAD = '[model]\nname_or_path = "m"\n[data]\npath = "d"\n'
SEEN = Seen(name="s", kind="trainer", places={"lora": "a.py:3", "training.seed": "a.py:9"})


def one_check(
    *found: dict[str, Any], raised: Exception | None = None, severity: Severity = Severity.ERROR
) -> Check:
    def look(seen: Seen) -> Iterator[Finding]:
        if raised is not None:
            raise raised
        yield from (made.finding(**one) for one in found)

    made = Check(code="FT399", slug="a-slug", level=Level.DATA, severity=severity, look=look)
    return made


def test_levels_cost_more_and_more() -> None:
    assert Level.STATIC.up_to() == (Level.STATIC,)
    assert Level.STEP.up_to() == (Level.STATIC, Level.DATA, Level.STEP)
    assert Level.MEMORY.up_to() == tuple(Level)


def test_a_finding_as_plain_data() -> None:
    found = one_check().finding(
        "Found.",
        evidence=iter(["a", "b"]),
        key="lora.r",
        place="f:1",
        fix="Mend.",
        change={"lora.r": 8},
        severity=Severity.WARNING,
    )
    assert found.fix == Fix(text="Mend.", change={"lora.r": 8})
    assert found.to_dict() == {
        "code": "FT399",
        "slug": "a-slug",
        "severity": "warning",
        "sentence": "Found.",
        "evidence": ["a", "b"],
        "place": "f:1",
        "key": "lora.r",
        "fix": {"text": "Mend.", "change": {"lora.r": 8}},
        "accepted": "",
    }
    bare = one_check().finding("Found.")
    assert bare == Finding(code="FT399", slug="a-slug", severity=Severity.ERROR, sentence="Found.")
    assert (bare.place, bare.key, bare.fix.text, bare.fix.change) == ("", "", "", {})


def test_a_report_as_plain_data_and_the_worst_first() -> None:
    checks = [
        one_check({"sentence": "n", "severity": Severity.NOTE}, {"sentence": "e"}),
        one_check({"sentence": "w"}, severity=Severity.WARNING),
        one_check(),
    ]
    report = judge(SEEN, checks, assumptions=("first",), seconds=1.5)
    assert [one.sentence for one in report.findings] == ["e", "w", "n"]
    assert [one.status for one in report.outcomes] == [Status.FAILED, Status.FAILED, Status.PASSED]
    assert not report.ok
    assert [one.code for one in report.with_status(Status.PASSED)] == ["FT399"]
    plain = report.to_dict()
    assert {key: plain[key] for key in ("subject", "ok", "assumptions", "seconds")} == {
        "subject": "s",
        "ok": False,
        "assumptions": ["first"],
        "seconds": 1.5,
    }
    assert plain["outcomes"][1] == {
        "code": "FT399",
        "slug": "a-slug",
        "level": "data",
        "status": "failed",
        "reason": "",
        "findings": [report.outcomes[1].findings[0].to_dict()],
    }
    assert list(plain) == ["subject", "ok", "assumptions", "seconds", "outcomes"]


def test_findings_are_sorted_by_acceptance_severity_and_code() -> None:
    def found(code: str, severity: Severity, accepted: str = "") -> Outcome:
        one = Finding(code=code, slug=code, severity=severity, sentence=code, accepted=accepted)
        return Outcome(
            code=code, slug=code, level=Level.DATA, status=Status.FAILED, findings=(one,)
        )

    outcomes = (
        found("FT101", Severity.ERROR, "meant"),
        found("FT102", Severity.NOTE),
        found("FT104", Severity.ERROR),
        found("FT103", Severity.ERROR),
        found("FT105", Severity.WARNING),
    )
    report = CheckReport(subject="s", outcomes=outcomes)
    assert [one.code for one in report.findings] == ["FT103", "FT104", "FT105", "FT102", "FT101"]
    assert (report.assumptions, report.seconds) == ((), 0.0)


def test_notes_and_what_is_accepted_do_not_fail() -> None:
    (note,) = judge(SEEN, [one_check({"sentence": "n"}, severity=Severity.NOTE)]).outcomes
    assert note.status is Status.PASSED
    assert len(note.findings) == 1
    for name in ("a-slug", "FT399"):
        report = judge(SEEN, [one_check({"sentence": "e"})], accept={name: "meant"})
        assert [one.accepted for one in report.findings] == ["meant"]
        assert report.ok
    both = judge(SEEN, [one_check({"sentence": "e"})], accept={"a-slug": "s", "FT399": "c"})
    assert both.findings[0].accepted == "s"
    assert not judge(SEEN, [one_check({"sentence": "e"})], accept={"FT398": "meant"}).ok


@pytest.mark.parametrize(
    ("raised", "status", "reason"),
    [
        (NotApplicable("no such thing"), "skipped", "no such thing"),
        (NotMeasured("not here"), "unmeasured", "not here"),
        (ValueError("broke"), "error", "ValueError: broke"),
    ],
)
def test_what_becomes_of_a_check_that_raises(raised: Exception, status: str, reason: str) -> None:
    report = judge(SEEN, [one_check(raised=raised)])
    (outcome,) = report.outcomes
    assert (outcome.status.value, outcome.reason, outcome.findings) == (status, reason, ())
    assert (outcome.code, outcome.slug, outcome.level) == ("FT399", "a-slug", Level.DATA)
    assert report.ok is (status != "error")


@pytest.mark.parametrize(
    ("found", "place"),
    [
        ({"key": "lora.r"}, "a.py:3"),
        ({"key": "training.seed"}, "a.py:9"),
        ({"key": "data.rows"}, ""),
        ({"key": "lora.r", "place": "b.py:1"}, "b.py:1"),
        ({}, ""),
    ],
)
def test_a_finding_has_the_place_of_its_key(found: dict[str, str], place: str) -> None:
    (one,) = judge(SEEN, [one_check({"sentence": "e", **found})]).findings
    assert one.place == place


def test_what_was_looked_at_in_part_is_said_last() -> None:
    seen = Seen(name="s", kind="recipe", in_part=("8 rows",))
    assert judge(seen, [], assumptions=["a"]).assumptions == ("a", "8 rows")
    assert judge(seen, []).seconds == 0.0


def test_places_in_a_recipe() -> None:
    recipe = parse_recipe(HEAD + 'eval_split = "e"\n')
    seen = Seen(name="s", kind="recipe", recipe=recipe, places={"data": "a.py:3"})
    assert seen.place("data.path") == "<text>:4"
    assert seen.held_out_key == "data.eval_split"
    assert SEEN.held_out_key == "data"
    for line, key in (('eval_path = "e"', "eval_path"), ("eval_fraction = 0.5", "eval_fraction")):
        seen = Seen(name="s", kind="recipe", recipe=parse_recipe(f"{HEAD}{line}\n"))
        assert seen.held_out_key == f"data.{key}"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("text", "there is no tokenizer"),
        ("evaluation", "there is no evaluation set"),
        ("eval_batches", "there is no evaluation set"),
        ("record", "it is about what scripts do"),
    ],
)
def test_what_a_subject_may_be_without(what: Any, words: str) -> None:
    with pytest.raises(NotApplicable) as without:
        SEEN.need(what)
    assert str(without.value) == words
    with pytest.raises(NotMeasured) as broke:
        Seen(name="s", kind="trainer", reasons={what: "it broke"}).need(what)
    assert str(broke.value) == "it broke"


def test_what_was_not_looked_at() -> None:
    with pytest.raises(NotMeasured) as nothing:
        SEEN.need("training")
    assert str(nothing.value) == "training was not looked at"
    with pytest.raises(NotMeasured) as script:
        Seen(name="s", kind="script").need("record")
    assert str(script.value) == "record was not looked at"


def test_how_far_a_script_was_followed() -> None:
    def followed(**facts: Any) -> Record:
        record = Record(calls=(), **facts)
        return Seen(name="s", kind="script", record=record).followed()

    assert followed(through=True) == Record(calls=(), through=True)
    with pytest.raises(NotMeasured) as training:
        followed(through=False)
    assert str(training.value) == (
        "the script was followed up to its training; see --through generate"
    )
    with pytest.raises(NotMeasured) as loop:
        followed(through=False, loop=True)
    assert str(loop.value) == "the script was followed up to a few steps of its own loop"


def test_checks_within_levels() -> None:
    some = within(all_checks(), {Level.DATA})
    assert {one.level for one in some if one.code != FAILS} == {Level.DATA}
    assert FAILS in [one.code for one in some]
    assert len([one for one in all_checks() if one.level is Level.DATA]) >= len(some) - 1


def test_checks_are_in_order_and_have_a_page() -> None:
    codes = [one.code for one in all_checks()]
    assert codes == sorted(codes)
    one = find("FT203")
    assert one.subject_matter == "labels"
    assert one.summary == one.page.splitlines()[0]
    assert one.page.startswith(one.summary + "\n")
    assert find("ft801").subject_matter == "saving"
    assert one_check().page == ""


def test_a_code_and_a_slug_are_taken_once() -> None:
    all_checks()

    def nothing(made: Check, seen: Seen) -> Iterator[Finding]:
        yield from ()

    for code, slug in (("FT203", "some-other-slug"), ("FT999", find("FT203").slug)):
        with pytest.raises(ValueError, match=rf"^{code} {slug} is taken$"):
            check(code, slug, Level.DATA, Severity.NOTE)(nothing)


@pytest.mark.parametrize(
    ("select", "ignore", "chosen"),
    [
        (["FT203"], [], True),
        (["ft2"], [], True),
        (["f"], [], True),
        (["FT1"], [], False),
        ([], ["FT2"], False),
        ([], ["FT1"], True),
        (["FT203"], ["FT2"], True),
        (["FT2"], ["FT203"], False),
        (["FT203"], ["FT203"], False),
        (["FT2"], ["FT20"], False),
    ],
)
def test_the_longer_of_two_names_wins(select: list[str], ignore: list[str], chosen: bool) -> None:
    assert ("FT203" in [one.code for one in selected(select, ignore)]) is chosen


def test_an_unknown_name_has_its_next_step() -> None:
    for look_up in (find, lambda name: selected([], [name])):
        with pytest.raises(InputError) as raised:
            look_up("zzz")
        assert raised.value.message == 'There is no check "zzz".'
        assert raised.value.next_step == "All of them: ftcheck explain."
    with pytest.raises(InputError) as near:
        find("FT2O3")
    assert near.value.next_step.startswith("Did you mean FT")
    assert near.value.next_step.endswith("? All of them: ftcheck explain.")


def test_tokens_are_shown_where_there_is_a_tokenizer() -> None:
    assert SEEN.show("row: ", [1, 2]) == []
    assert SEEN.pad is None
    text = Text(
        name="t",
        size=9,
        vocab_size=9,
        eos=None,
        bos=None,
        pad=0,
        specials=frozenset(),
        padding_side="right",
        decode=lambda ids: "a" * len(ids),
    )
    seen = Seen(name="s", kind="trainer", text=text)
    assert seen.pad == 0
    ids = list(range(5, 20))
    assert seen.show("row: ", ids) == ["row: " + text.show(ids, 12)]
    assert seen.show("row: ", ids, 3) == ["row: " + text.show(ids, 3)]


def test_rows_of_batches() -> None:
    row = Row(ids=(1,), mask=None, labels=(1,))

    def rows(**facts: Any) -> Any:
        return Seen(name="s", kind="trainer", batches=Batches(**facts)).rows("batches")

    assert rows(rows=(row,)) == (row,)
    with pytest.raises(NotMeasured, match=r"^batches hold no rows of tokens$"):
        rows(rows=())
    failure = Failure(kind="ValueError", text="x", during="collating")
    with pytest.raises(NotMeasured, match=r"^no batch could be made$"):
        rows(failure=failure)


def test_a_check_is_registered_with_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_checks()
    monkeypatch.setattr(registry, "_CHECKS", {one.code: one for one in before})
    looked = []

    @check("FT998", "brand-new", Level.STEP, Severity.NOTE)
    def made(check: Check, seen: Seen) -> Iterator[Finding]:
        """Its page."""
        looked.append((check, seen))
        yield check.finding("Found.")

    assert (made.code, made.slug, made.level) == ("FT998", "brand-new", Level.STEP)
    assert (made.severity, made.page) == (Severity.NOTE, "Its page.")
    assert all_checks() == (*before, made)
    (outcome,) = judge(SEEN, [made]).outcomes
    assert outcome.status is Status.PASSED
    assert [one.severity for one in outcome.findings] == [Severity.NOTE]
    assert looked == [(made, SEEN)]


def test_a_slug_is_a_name_too() -> None:
    assert [one.code for one in selected(["labels-shifted"])] == ["FT204"]
    assert "FT204" not in [one.code for one in selected(["FT2"], ["labels-shifted"])]


def test_what_is_about_no_key_has_no_place_in_a_recipe() -> None:
    seen = Seen(name="s", kind="recipe", recipe=parse_recipe(HEAD))
    (found,) = judge(seen, [one_check({"sentence": "e"})]).findings
    assert found.place == ""
    assert SEEN.place("lora.rank_pattern.x") == "a.py:3"


def test_another_task_learns_no_language() -> None:
    setup: Any = SimpleNamespace(other_task="it classifies")
    learning: Any = object()
    seen = Seen(name="s", kind="trainer", setup=setup, learning=learning)
    with pytest.raises(NotApplicable, match=r"^it classifies$"):
        seen.need("learning")
    assert seen.need("setup") is setup
    language: Any = SimpleNamespace(other_task="")
    for one in (language, None):
        seen = Seen(name="s", kind="trainer", setup=one, learning=learning)
        assert seen.need("learning") is learning
