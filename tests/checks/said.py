"""What checks say, word by word: `said.txt` has every sentence, so that a change of one is meant.

Numbers are `#`, paths `PATH`, and of evidence only what stands before the tokens and names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ftcheck.checks.finding import Finding, Outcome

__all__ = ["FILE", "KNOWN", "heard", "words"]

FILE: Final = Path(__file__).with_suffix(".txt")
KNOWN: Final = frozenset(FILE.read_text(encoding="utf-8").splitlines())
_NUMBER: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?|\binf\b|\bnan\b")
_SET: Final = re.compile(r"\{([^{}:]+)\}")
_PATH: Final = re.compile(r"(?<![\w.])/[\w./-]+")


def heard(outcome: Outcome) -> Outcome:
    """The outcome, all of whose words are known."""
    new = [line for line in words(outcome) if line not in KNOWN]
    assert not new, f"{FILE.name} lacks, in its order:\n" + "\n".join(new)
    return outcome


def words(outcome: Outcome) -> Iterator[str]:
    """A line for each finding of a check, or for why there is none."""
    for finding in outcome.findings:
        yield f"{outcome.code} {_of(finding)}"
    if outcome.reason:
        yield f"{outcome.code} {outcome.status.value}: {_plain(outcome.reason)}"


def _of(finding: Finding) -> str:
    parts = [f"{finding.severity.value} {finding.key or '-'}: {finding.sentence}"]
    if finding.fix.text:
        parts.append(f"-> {finding.fix.text}")
    if finding.fix.change:
        parts.append(str(finding.fix.change))
    labels = [re.split(r"['\"\[(]", line)[0].rstrip() for line in finding.evidence]
    if labels:
        parts.append(f"({'; '.join(dict.fromkeys(labels))})")
    return _plain(" ".join(parts))


def _plain(text: str) -> str:
    text = _SET.sub(_sorted, " ".join(text.split()))
    return _NUMBER.sub("#", _PATH.sub("PATH", text))


def _sorted(names: re.Match[str]) -> str:
    """Names of a set, which Python prints in any order."""
    return f"{{{', '.join(sorted(names[1].split(', ')))}}}"
