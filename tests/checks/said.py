"""What checks say, word by word: `said.txt` has every sentence, so that a change of one is meant.

Numbers are `#`, paths `PATH`, and of evidence only what stands before the tokens and names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ftcheck.checks.finding import Finding, Outcome

__all__ = ["heard", "words"]

FILE: Final = Path(__file__).with_suffix(".txt")
KNOWN: Final = frozenset(FILE.read_text(encoding="utf-8").splitlines())
_NUMBER: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?|\binf\b|\bnan\b")
_PATH: Final = re.compile(r"(?<![\w.])/[\w./-]+")


def heard(outcome: Outcome) -> Outcome:
    """The outcome, all of whose words are known."""
    new = [line for line in words(outcome) if line not in KNOWN]
    assert not new, f"{FILE.name} lacks, in its order:\n" + "\n".join(new)
    return outcome


def words(outcome: Outcome) -> Iterator[str]:
    """Lines for the findings of a check, or for why there are none."""
    for finding in outcome.findings:
        yield from (f"{outcome.code} {line}" for line in _of(finding))
    if outcome.reason:
        yield f"{outcome.code} {outcome.status.value}: {_plain(outcome.reason)}"


def _of(finding: Finding) -> Iterator[str]:
    yield f"{finding.severity.value} {finding.key or '-'}: {_plain(finding.sentence)}"
    if finding.fix.text:
        yield f"fix: {_plain(finding.fix.text)}"
    if finding.fix.change:
        yield f"change: {_plain(str(finding.fix.change))}"
    for line in finding.evidence:
        label = re.split(r"['\"\[(]", line)[0].rstrip()
        if label:
            yield f"evidence: {_plain(label)}"


def _plain(text: str) -> str:
    return _NUMBER.sub("#", _PATH.sub("PATH", " ".join(text.split())))
