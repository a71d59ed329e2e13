"""Baselines keep what was recorded, find what is nearest, and refuse what is not theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcheck.errors import InputError
from ftcheck.gate.baseline import KEYED_BY, Baseline, Entry, Kind, difference
from ftcheck.gate.baseline_schema import problems_in
from ftcheck.gate.recording import record
from tests.allocator.entries import VERSIONS, entry, nearest

NEXT_STEP = "Restore the file from version control, or mend it by hand; nothing was written."

_versions = st.dictionaries(
    st.sampled_from(KEYED_BY),
    st.sampled_from(["1.0.0", "1.0.1", "1.2.0", "2.0.0", "2.0.0+cpu", "2.1.0rc1", "unknown"]),
)
_kinds: st.SearchStrategy[Kind] = st.sampled_from(["measured", "predicted"])
_sizes = st.integers(1, 2**50)
_entries = st.builds(
    Entry,
    test=st.sampled_from(["a.py::t", "a.py::t[é-1]", 'b.py::"']) | st.text(min_size=1),
    kind=_kinds,
    card=st.sampled_from(["l4-24gb", "NVIDIA L4"]),
    versions=_versions,
    allocated_bytes=_sizes,
    reserved_bytes=_sizes,
)
_baselines = st.lists(_entries, max_size=12).map(Baseline.of)


def read_back(baseline: Baseline, folder: Path) -> Baseline:
    file = folder / "baseline.json"
    file.write_text(baseline.text(), encoding="utf-8")
    return Baseline.read(file)


@given(baseline=_baselines)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, baseline: Baseline) -> None:
    back = read_back(baseline, tmp_path_factory.mktemp("round"))
    assert back.entries == baseline.entries
    assert back.text() == baseline.text()


@given(baseline=_baselines, new=st.lists(_entries, max_size=6))
def test_merging_keeps_all_others(baseline: Baseline, new: list[Entry]) -> None:
    merged = baseline.merged(new)
    latest = {one.key: one for one in new}
    assert merged.entries.keys() == baseline.entries.keys() | latest.keys()
    for key, kept in merged.entries.items():
        assert kept == latest.get(key, baseline.entries.get(key))


@given(new=st.lists(_entries, max_size=6), data=st.data())
def test_the_order_of_recording_does_not_show(new: list[Entry], data: st.DataObject) -> None:
    once = list(Baseline.of(new).entries.values())
    assert Baseline.of(data.draw(st.permutations(once))).text() == Baseline.of(once).text()


@given(some=st.lists(_versions, min_size=1, max_size=8), now=_versions)
def test_an_exact_match_is_nearest(some: list[dict[str, str]], now: dict[str, str]) -> None:
    baseline = Baseline.of(entry(versions=one) for one in [*some, now])
    match = nearest(baseline, now)
    assert match.entry.versions == now
    assert match.differences == ()


@given(some=st.lists(_versions, min_size=1, max_size=8), now=_versions)
def test_the_nearest_stays_when_others_go(some: list[dict[str, str]], now: dict[str, str]) -> None:
    found = nearest(Baseline.of(entry(versions=one) for one in some), now).entry
    for one in some:
        pair = Baseline.of([entry(versions=one), found])
        assert nearest(pair, now).entry == found


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (["2.12.9", "2.13.0", "2.13.1"], "2.13.0"),  # exact
        (["2.12.9", "2.13.2", "2.13.9", "3.0.0"], "2.13.9"),  # same minor, newest
        (["2.13.0+cu130", "2.12.9", "2.14.0"], "2.13.0+cu130"),  # same minor, other build
        (["1.9.0", "2.2.0", "2.12.9", "3.0.0"], "2.12.9"),  # same major, newest
        (["0.9.0", "1.10.0", "1.9.0"], "1.10.0"),  # newest, by number and not by text
        (["unknown", "1.0.0"], "1.0.0"),
    ],
)
def test_nearest_of_one_library(recorded: list[str], expected: str) -> None:
    baseline = Baseline.of(entry(versions={"torch": version}) for version in recorded)
    match = nearest(baseline, {"torch": "2.13.0"})
    assert match.entry.versions["torch"] == expected
    said = () if expected == "2.13.0" else (f"torch {expected} → 2.13.0",)
    assert match.differences == said


def test_the_worst_library_decides() -> None:
    near = {"torch": "2.13.1", "transformers": "5.2.0", "peft": "0.19.0"}
    far = {"torch": "2.13.0", "transformers": "4.57.0", "peft": "0.19.1"}
    match = nearest(Baseline.of([entry(versions=near), entry(versions=far)]), VERSIONS)
    assert match.entry.versions == near


def test_one_library_that_is_far_is_worse_than_two_that_are_not() -> None:
    near = {"torch": "2.12.0", "transformers": "5.1.0", "peft": "0.19.1"}
    far = {"torch": "2.13.1", "transformers": "4.57.0", "peft": "0.19.1"}
    match = nearest(Baseline.of([entry(versions=near), entry(versions=far)]), VERSIONS)
    assert match.entry.versions == near


def test_a_library_that_is_not_there_differs_too() -> None:
    assert difference({"torch": "1"}, {"peft": "2"}) == ("torch 1 → none", "peft none → 2")


@pytest.mark.parametrize(
    "other", [{"card": "a100-80gb"}, {"kind": "measured"}, {"test": "test_a.py::test_other"}]
)
def test_another_card_kind_or_test_is_no_match(other: dict[str, Any]) -> None:
    baseline = Baseline.of([entry(**other)])
    assert (
        baseline.nearest(
            test="test_a.py::test_step", kind="predicted", card="l4-24gb", versions=VERSIONS
        )
        is None
    )


def test_sizes_are_readable(tmp_path: Path) -> None:
    record(tmp_path / "b.json", [entry(allocated_bytes=3 * 2**29, reserved_bytes=2**31)])
    written = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    (one,) = written["peaks"]["test_a.py::test_step"]
    assert written["schema"] == 1
    assert (one["allocated"], one["allocated_bytes"]) == ("1.50 GiB", 3 * 2**29)
    assert list(one) == sorted(one)
    assert Baseline.of([]).text() == '{\n  "peaks": {},\n  "schema": 1\n}\n'


Change = Callable[[dict[str, Any]], object]


def _entry_in(plain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plain["peaks"]["test_a.py::test_step"][0]
    return found


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda plain: plain.update(schema=2), "schema: got 2, expected 1"),
        (lambda plain: plain.update(schema=True), "schema: got true, expected 1"),
        (lambda plain: plain.update(peaks=[]), r"peaks: got \[\], expected an object"),
        (lambda plain: plain.update(more=1), "the file: got the key 'more'"),
        (lambda plain: plain["peaks"].update({"x": []}), r'\["x"\]: got \[\], expected a list'),
        (lambda plain: _entry_in(plain).update(kind="guessed"), 'kind: got "guessed"'),
        (lambda plain: _entry_in(plain).pop("card"), "card: got nothing"),
        (lambda plain: _entry_in(plain).update(versions={"torch": 2}), "versions: got "),
        (lambda plain: _entry_in(plain).update(allocated_bytes=-1), "allocated_bytes: got -1"),
        (lambda plain: _entry_in(plain).update(allocated_bytes=True), "allocated_bytes: got true"),
        (lambda plain: _entry_in(plain).update(allocated_bytes=1e3), "allocated_bytes: got 1000.0"),
        (lambda plain: _entry_in(plain).update(reserved_bytes=float("nan")), "bytes: got NaN"),
        (lambda plain: _entry_in(plain).update(reserved_bytes=10**400), "reserved_bytes: got 1000"),
        (lambda plain: _entry_in(plain).update(reserved="1 GiB"), "expected '1.95 KiB', as reserv"),
        (
            lambda plain: plain["peaks"]["test_a.py::test_step"].append(_entry_in(plain)),
            r"\[1\]: got the card, kind and versions of an earlier one",
        ),
    ],
)
def test_a_spoilt_file_is_refused_with_the_place(tmp_path: Path, spoil: Change, words: str) -> None:
    file = tmp_path / "b.json"
    plain = json.loads(Baseline.of([entry()]).text())
    spoil(plain)
    file.write_text(json.dumps(plain), encoding="utf-8")
    before = file.read_bytes()
    with pytest.raises(InputError, match=words) as caught:
        record(file, [entry(allocated_bytes=5)])
    assert str(caught.value).startswith(f"{file}: ")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda one: one.update(more=1),
            ": got the key 'more', expected only allocated, allocated_bytes, card, kind, reserved, "
            "reserved_bytes, versions",
        ),
        (lambda one: one.pop("kind"), ".kind: got nothing, expected measured or predicted"),
        (lambda one: one.update(card=""), '.card: got "", expected the name of a card'),
        (
            lambda one: one.update(versions={"torch": ""}),
            '.versions: got {"torch": ""}, expected an object from names to text',
        ),
        (
            lambda one: one.update(allocated_bytes=0),
            ".allocated_bytes: got 0, expected a whole number of bytes over 0",
        ),
        (
            lambda one: one.update(reserved_bytes=2**63),
            f".reserved_bytes: got {2**63}, expected a whole number of bytes over 0",
        ),
        (
            lambda one: one.update(reserved="1 GiB"),
            ".reserved: got \"1 GiB\", expected '1.95 KiB', as reserved_bytes says",
        ),
    ],
)
def test_what_is_wrong_with_an_entry_word_for_word(spoil: Change, words: str) -> None:
    plain = json.loads(Baseline.of([entry()]).text())
    spoil(_entry_in(plain))
    assert problems_in(json.dumps(plain))[1] == [f': peaks["test_a.py::test_step"][0]{words}']


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ([], "the file: got [], expected an object with schema and peaks"),
        ({}, "schema: got nothing, expected 1"),
        ({"schema": 1}, "peaks: got nothing, expected an object from tests to lists"),
        (
            {"schema": 1, "peaks": {}, "x": 1},
            "the file: got the key 'x', expected only peaks, schema",
        ),
        (
            {"schema": 1, "peaks": {"é": []}},
            'peaks["\\u00e9"]: got [], expected a list of recorded peaks',
        ),
        ({"schema": 1, "peaks": {"t": 3}}, 'peaks["t"]: got 3, expected a list of recorded peaks'),
        ({"schema": 1, "peaks": {"t": [3]}}, 'peaks["t"][0]: got 3, expected an object'),
    ],
)
def test_what_is_wrong_with_a_file_word_for_word(plain: Any, words: str) -> None:
    assert problems_in(json.dumps(plain)) == (plain, [f": {words}"])


def test_an_entry_that_is_there_twice() -> None:
    plain = json.loads(Baseline.of([entry(), entry(card="h100")]).text())
    some = plain["peaks"]["test_a.py::test_step"]
    assert problems_in(json.dumps(plain))[1] == []
    some[1:1] = [5]
    some.append(dict(some[0]))
    assert problems_in(json.dumps(plain))[1] == [
        ': peaks["test_a.py::test_step"][1]: got 5, expected an object',
        ': peaks["test_a.py::test_step"][3]: got the card, kind and versions of an earlier one '
        "again",
    ]


def test_text_that_is_no_file_of_peaks_word_for_word() -> None:
    assert problems_in('{"a": 1,\n"a": 1}') == (
        None,
        [": got the key 'a' twice in one object, expected it once"],
    )
    assert problems_in("{\n") == (
        None,
        [":2: got expecting property name enclosed in double quotes, expected JSON"],
    )
    plain, (words,) = problems_in("[" * 100_000)
    assert plain is None
    assert words.startswith(": got ")
    assert words.endswith(", expected recorded peaks")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: got expecting value, expected JSON"),
        ('{"schema": 1,\n<<<<<<< HEAD\n', ":2: got .*, expected JSON"),
        ('{"schema": 1, "peaks": {"a": [], "a": []}}', "got the key 'a' twice"),
        ('{"schema": ' + "9" * 5000 + "}", "got Exceeds the limit"),
        ("[]", r"the file: got \[\], expected an object"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "b.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        Baseline.read(file)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    plain = json.loads(Baseline.of([entry()]).text())
    _entry_in(plain).update(kind="x", card="", allocated_bytes=0)
    file.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(InputError, match="kind") as caught:
        Baseline.read(file)
    lines = caught.value.message.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{file}: peaks") for line in lines)
    assert caught.value.next_step == NEXT_STEP


def test_an_entry_in_words() -> None:
    assert str(entry(reserved_bytes=2**31)) == (
        "test_a.py::test_step (predicted, l4-24gb): allocated 1000 B, reserved 2.00 GiB"
    )


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("x" * 58, '"' + "x" * 58 + '"'), ("x" * 59, '"' + "x" * 56 + "...")],
)
def test_what_is_long_is_cut_at_sixty(tmp_path: Path, kind: str, shown: str) -> None:
    file = tmp_path / "b.json"
    plain = json.loads(Baseline.of([entry()]).text())
    _entry_in(plain).update(kind=kind)
    file.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Baseline.read(file)
    assert caught.value.message == (
        f'{file}: peaks["test_a.py::test_step"][0].kind: got {shown}, expected measured or '
        "predicted"
    )


def test_what_is_no_text_is_said_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    file.write_bytes(b"\xff")
    for one in (file, tmp_path):
        with pytest.raises(InputError) as caught:
            Baseline.read(one)
        assert caught.value.message.startswith(f"{one} cannot be read: ")
        assert caught.value.next_step == NEXT_STEP
    assert Baseline.read(tmp_path / "none.json").entries == {}
