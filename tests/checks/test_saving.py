"""FT801 to FT807 on what is saved, FT901 to FT906 on what is generated: live trainers where one can
show it, and what a script did where only that can."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftcheck.checks.facts import Call, Record, Reload
from ftcheck.checks.finding import Finding, Level, Outcome, Severity, Status
from ftcheck.checks.observe.looking import look_at
from ftcheck.checks.seen import Seen
from ftcheck.subjects.check import check_recipe
from ftcheck.subjects.recorder import Recorder, base_sample
from ftcheck.subjects.trainer import trainer_subject
from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import TEXTS, base, check_one, found, judged, lora, rows, tokenizer, trainer
from tests.helpers.recipes import small_recipe

pytestmark = [
    pytest.mark.slow,  # all of them together
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
"""What the libraries say of such trainers is not what is tested here."""

ERROR, WARNING, NOTE = Severity
UNSAVED = {"arguments": {"save_strategy": "no"}}


def call(what: str, *, when: str = "after", line: int = 1, **facts: Any) -> Call:
    """A call as `ftcheck.subjects.recorder` notes it."""
    return Call(what=what, place=f"train.py:{line}", when=when, facts=facts)


def saved(kind: str, when: str = "after") -> Call:
    return call("save", kind=kind, when=when)


def scripted(made: Any, *calls: Call, through: bool = True, words: Any = None) -> Seen:
    """What is seen of a script that has this trainer and makes these calls."""
    subject = trainer_subject(made, "train.py")
    subject.kind = "script"
    subject.tokenizer = words or tokenizer()
    subject.record = Record(calls=calls, through=through)
    return look_at(subject, {Level.DATA})


def only(seen: Seen, code: str) -> Finding:
    (finding,) = judged(seen, code).findings
    return finding


@pytest.mark.parametrize("code", [f"FT{one}" for one in (801, 803, 804, 805, 806, 901, 904, 906)])
def test_a_script_that_was_left_at_its_training_is_not_measured(tmp_path: Path, code: str) -> None:
    outcome = judged(scripted(trainer(tmp_path), through=False), code)
    assert outcome.status is Status.UNMEASURED
    assert "--through generate" in outcome.reason
    assert check_one(trainer(tmp_path), code).status is Status.SKIPPED


# ------------------------------------------------------------------------ saved at all, and when


EARLY = call("save", kind="adapter", when="before", line=7)

CAUGHT: tuple[tuple[str, list[Call], Severity, str], ...] = (
    ("FT801", [], WARNING, ""),
    ("FT801", [saved("tokenizer")], WARNING, ""),
    ("FT803", [EARLY], ERROR, "train.py:7"),
    ("FT803", [EARLY, saved("tokenizer")], ERROR, "train.py:7"),
    ("FT804", [saved("base")], ERROR, "train.py:1"),
    ("FT804", [EARLY, saved("base"), saved("tokenizer")], ERROR, "train.py:1"),
)

LEFT_ALONE: dict[str, tuple[list[Call], ...]] = {
    "FT801": ([saved("adapter")], [saved("full")]),
    "FT803": ([], [saved("adapter")], [saved("tokenizer", "before")], [EARLY, saved("adapter")]),
    "FT804": (
        [],
        [saved("adapter")],
        [saved("merged")],
        [saved("base"), saved("adapter")],
        [saved("base"), saved("merged")],
        [saved("base", "before")],
    ),
}


@catches("FT801", "FT803", "FT804")
@pytest.mark.parametrize(("code", "calls", "severity", "place"), CAUGHT)
def test_what_is_not_saved_or_not_afterwards_is_said(
    tmp_path: Path, code: str, calls: list[Call], severity: Severity, place: str
) -> None:
    finding = only(scripted(trainer(tmp_path, **UNSAVED), *calls), code)
    assert finding.severity is severity
    assert finding.place == place


@leaves_alone("FT801", "FT803", "FT804")
@pytest.mark.parametrize(
    ("code", "calls"), [(code, calls) for code, each in LEFT_ALONE.items() for calls in each]
)
def test_what_is_saved_afterwards_is_left_alone(
    tmp_path: Path, code: str, calls: list[Call]
) -> None:
    assert judged(scripted(trainer(tmp_path, **UNSAVED), *calls), code).findings == ()


@leaves_alone("FT801")
def test_a_trainer_that_saves_by_itself_is_left_alone(tmp_path: Path) -> None:
    assert judged(scripted(trainer(tmp_path)), "FT801").findings == ()


# ------------------------------------------------------------------------ what comes back


def saving(function: Callable[[Any, str], None]) -> Any:
    """A subclass of `Trainer` that saves in its own way."""
    from transformers import Trainer

    def save_model(self: Any, output_dir: str, _internal_call: bool = False) -> None:
        function(self, output_dir)

    return type("Own", (Trainer,), {"save_model": save_model})


def another(trainer: Any, folder: str) -> None:
    """Save an adapter that was never trained."""
    lora().save_pretrained(folder)


@catches("FT802")
@pytest.mark.parametrize(
    ("save", "sentence"),
    [
        (another, r"are off by 0\.\d+ \(at most 0\.001 would pass\)$"),
        (lambda *_: None, "^loading what was saved fails: FileNotFoundError"),
    ],
)
def test_a_save_of_something_else_or_of_nothing_is_an_error(
    tmp_path: Path, save: Callable[[Any, str], None], sentence: str
) -> None:
    made = trainer(tmp_path, kind=saving(save), arguments={"learning_rate": 1e-2})
    (finding,) = found(made, "FT802")
    assert finding.severity is ERROR
    assert re.search(sentence, finding.sentence), finding.sentence


@leaves_alone("FT802")
@pytest.mark.parametrize(
    "make",
    [
        lora,
        base,
        lambda: base().bfloat16(),
        lambda: lora(modules_to_save=["ln_f"]),
        lambda: lora(modules_to_save=["lm_head"]),
        lambda: lora(trainable_token_indices=[5]),
        lambda: lora(bias="all"),
        lambda: lora(bias="lora_only"),
    ],
)
def test_a_model_that_comes_back_is_left_alone(tmp_path: Path, make: Callable[[], Any]) -> None:
    made = trainer(tmp_path, model=make(), arguments={"learning_rate": 1e-2})
    assert check_one(made, "FT802").status is Status.PASSED


@catches("FT802")
def test_a_trained_part_that_is_not_saved_is_an_error(tmp_path: Path) -> None:
    model = lora()
    model.get_base_model().transformer.ln_f.requires_grad_(True)
    made = trainer(tmp_path, model=model, arguments={"learning_rate": 0.1})
    assert len(found(made, "FT802")) == 1


@catches("FT802")
@leaves_alone("FT802")
@pytest.mark.parametrize(
    ("half", "difference", "differs"),
    [
        (False, 0.0039, False),
        (False, 0.004, False),
        (False, 0.0041, True),
        (True, 0.079, False),
        (True, 0.081, True),
        (False, float("nan"), True),
    ],
)
def test_logits_may_differ_by_a_thousandth_or_two_hundredths_in_half_precision(
    tmp_path: Path, half: bool, difference: float, differs: bool
) -> None:
    model = lora(base().bfloat16() if half else base())
    reload = Reload(difference=difference, scale=4.0)
    seen = dataclasses.replace(scripted(trainer(tmp_path, model=model)), reload=reload)
    assert judged(seen, "FT802").status is (Status.FAILED if differs else Status.PASSED)


def loaded_on(trained: Any, other: Any) -> tuple[Call, ...]:
    """What is noted where an adapter that was trained on one base is loaded on another."""
    recorder = Recorder(Path(__file__).parent)
    recorder.base, recorder.trained = base_sample(trained), True
    recorder.loaded_adapter(other)
    return recorder.record(through=True).calls


def moved(by: float) -> Any:
    model = base()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * parameter.std().nan_to_num())
    return model


@catches("FT805")
def test_an_adapter_on_other_weights_is_an_error(tmp_path: Path) -> None:
    (noted,) = loaded_on(lora(), moved(0.5))
    finding = only(scripted(trainer(tmp_path), noted), "FT805")
    assert finding.severity is ERROR
    assert "wte.weight" in finding.evidence[0]
    assert finding.place == noted.place


@leaves_alone("FT805")
@pytest.mark.parametrize(
    "other",
    [base, lora, lambda: base().bfloat16(), lambda: moved(1e-4), lambda: torch.nn.Linear(2, 2)],
)
def test_an_adapter_on_the_same_weights_is_left_alone(
    tmp_path: Path, other: Callable[[], Any]
) -> None:
    (noted,) = loaded_on(lora(), other())
    assert judged(scripted(trainer(tmp_path), noted), "FT805").findings == ()


# ------------------------------------------------------------------------ the tokenizer


def larger() -> Any:
    """The tokenizer with a token more, of the id 2048."""
    words = tokenizer()
    words.add_tokens(["<mine>"])
    return words


RESIZED = call("resize", when="before", old=2048)


@catches("FT806")
@pytest.mark.parametrize(
    ("words", "calls", "severity"),
    [
        (tokenizer, [], NOTE),
        (larger, [], NOTE),
        (tokenizer, [RESIZED], NOTE),
        (larger, [RESIZED], WARNING),
    ],
)
def test_a_tokenizer_that_is_not_saved_is_said(
    tmp_path: Path, words: Callable[[], Any], calls: list[Call], severity: Severity
) -> None:
    made = trainer(tmp_path, processing_class=None)
    finding = only(scripted(made, *calls, saved("adapter"), words=words()), "FT806")
    assert finding.severity is severity
    assert ("tokens were added" in finding.sentence) is (severity is WARNING)


@leaves_alone("FT806")
@pytest.mark.parametrize(
    ("saves", "calls"),
    [(False, [saved("adapter"), saved("tokenizer")]), (True, [saved("adapter")]), (False, [])],
)
def test_a_tokenizer_that_is_saved_or_like_all_else_is_left_alone(
    tmp_path: Path, saves: bool, calls: list[Call]
) -> None:
    made = trainer(tmp_path, processing_class=tokenizer() if saves else None)
    assert judged(scripted(made, RESIZED, *calls, words=larger()), "FT806").findings == ()


def resized(folder: Path, *, masked: bool, **config: Any) -> Seen:
    """A script that added a token, which a row holds, and perhaps hides behind the mask."""
    model = base()
    model.resize_token_embeddings(2049)
    given = rows()
    given[0]["input_ids"][-1], given[0]["attention_mask"][-1] = 2048, int(not masked)
    return scripted(
        trainer(folder, model=lora(model, **config), train=given), RESIZED, words=larger()
    )


@catches("FT807")
@pytest.mark.parametrize("config", [{}, {"modules_to_save": ["ln_f"]}])
def test_added_tokens_that_are_not_trained_are_an_error(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    finding = only(resized(tmp_path, masked=False, **config), "FT807")
    assert finding.severity is ERROR
    assert finding.sentence.startswith("1 added tokens are in the rows")
    assert "<mine>" in finding.evidence[0]


@leaves_alone("FT807")
@pytest.mark.parametrize(
    ("masked", "config"),
    [
        (True, {}),
        (False, {"trainable_token_indices": [2048]}),
        (False, {"modules_to_save": ["wte"]}),
    ],
)
def test_added_tokens_that_are_trained_or_hidden_are_left_alone(
    tmp_path: Path, masked: bool, config: dict[str, Any]
) -> None:
    assert judged(resized(tmp_path, masked=masked, **config), "FT807").findings == ()


@leaves_alone("FT804", "FT807")
@pytest.mark.parametrize(
    ("code", "make", "calls"),
    [("FT807", lora, []), ("FT807", base, [RESIZED]), ("FT804", base, [saved("base")])],
)
def test_what_has_no_adapter_or_no_new_tokens_is_not_looked_at(
    tmp_path: Path, code: str, make: Callable[[], Any], calls: list[Call]
) -> None:
    seen = scripted(trainer(tmp_path, model=make()), *calls)
    assert judged(seen, code).status is Status.SKIPPED


# ------------------------------------------------------------------------ generating

SOUND = {
    "dropouts_on": 0,
    "mask": True,
    "rows": 2,
    "padded": True,
    "right_padded": 0,
    "cache": None,
    "length": 128,
    "context": 128,
}


def generated(ids: tuple[int, ...] = (), line: int = 1, **facts: Any) -> Call:
    """A call of `generate` that is sound but for these facts."""
    return call("generate", line=line, ids=ids, **{**SOUND, **facts})


@catches("FT901", "FT902", "FT903", "FT904", "FT905")
@pytest.mark.parametrize(
    ("code", "facts", "severity", "sentence"),
    [
        ("FT901", {"dropouts_on": 3}, WARNING, "generate is called with 3 dropouts on"),
        ("FT902", {"right_padded": 2}, WARNING, "2 prompts are padded on the right"),
        ("FT903", {"mask": False}, WARNING, "generate gets 2 prompts and no attention mask"),
        ("FT903", {"mask": False, "rows": 1}, WARNING, "generate gets 1 prompt and no attention"),
        ("FT903", {"mask": False, "rows": 1, "padded": False}, NOTE, "generate gets 1 prompt and"),
        ("FT904", {"cache": False}, NOTE, "generate runs without a cache"),
        ("FT905", {"length": 129}, ERROR, "prompt and new tokens make 129 tokens, and the context"),
    ],
)
def test_a_way_to_generate_that_is_wrong_is_said_once(
    tmp_path: Path, code: str, facts: dict[str, Any], severity: Severity, sentence: str
) -> None:
    loop = [generated((1, 2), line=9, **facts), generated((3, 4), line=9, **facts)]
    finding = only(scripted(trainer(tmp_path), generated(), *loop), code)
    assert finding.severity is severity
    assert finding.sentence.startswith(sentence)
    assert finding.place == "train.py:9"


@leaves_alone("FT901", "FT902", "FT903", "FT904", "FT905")
@pytest.mark.parametrize("code", ["FT901", "FT902", "FT903", "FT904", "FT905"])
@pytest.mark.parametrize(
    "facts", [{}, {"cache": True, "rows": 1, "padded": False}, {"length": None}, {"context": None}]
)
def test_a_way_to_generate_that_is_sound_is_left_alone(
    tmp_path: Path, code: str, facts: dict[str, Any]
) -> None:
    assert judged(scripted(trainer(tmp_path), generated(**facts)), code).findings == ()


def prompted(prompt: str) -> Any:
    return small_recipe(f'generation.prompts=["{prompt}"]')


@catches("FT905")
@leaves_alone("FT905")
def test_a_prompt_of_a_recipe_that_fills_the_context_is_an_error() -> None:
    (outcome,) = check_recipe(prompted("def main():"), select=["FT905"]).outcomes
    assert outcome.status is Status.PASSED
    (finding,) = check_recipe(prompted("def " * 400), select=["FT905"]).findings
    assert finding.severity is ERROR
    assert finding.key == "generation.prompts"


def asked(alike: int, *, masked: bool = True) -> list[dict[str, Any]]:
    """Ten rows, of which so many begin with the same prompt, which is no label."""
    starts = ["### Question: "] * alike + [f"{number} is my " for number in range(10 - alike)]
    given = rows([start + text for start, text in zip(starts, TEXTS, strict=False)])
    for row in given if masked else ():
        row["labels"][:4] = [-100] * 4
    return given


def prompt(text: str, folder: Path, given: list[dict[str, Any]]) -> Outcome:
    ids = tuple(tokenizer()(text)["input_ids"])
    return judged(scripted(trainer(folder, train=given), generated(ids)), "FT906")


@catches("FT906")
@pytest.mark.parametrize(
    ("text", "alike"), [("Q: what is it", 9), ("Q: what is it", 10), ("# Question: what is it", 10)]
)
def test_a_prompt_of_another_form_is_said(tmp_path: Path, text: str, alike: int) -> None:
    (finding,) = prompt(text, tmp_path, asked(alike)).findings
    assert finding.severity is WARNING
    assert "###" in finding.evidence[0]
    assert text[:2] in finding.evidence[1]


@leaves_alone("FT906")
@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("### Question: what is it", asked(10)),
        ("Q: what is it", asked(8)),
        ("Q: what is it", asked(10, masked=False)),
        ("Q: what is it", asked(10)[:3]),
    ],
)
def test_a_prompt_of_the_same_form_or_of_no_form_is_left_alone(
    tmp_path: Path, text: str, given: list[dict[str, Any]]
) -> None:
    assert prompt(text, tmp_path, given).findings == ()


@leaves_alone("FT906")
def test_a_prompt_that_shares_two_of_three_tokens_is_left_alone(tmp_path: Path) -> None:
    first = tokenizer().decode(tokenizer()("### Question: ")["input_ids"][:2])
    assert prompt(first + "!!", tmp_path, asked(10)).findings == ()
