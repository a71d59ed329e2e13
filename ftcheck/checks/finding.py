"""What a check says: findings, what became of each check, and the report of all of them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "CheckReport",
    "Finding",
    "Fix",
    "Level",
    "NotApplicable",
    "NotMeasured",
    "Outcome",
    "Severity",
    "Status",
]


class NotApplicable(Exception):
    """Raised by a check that has nothing to look at in this subject; the words say why."""


class NotMeasured(Exception):
    """Raised where a check applies and cannot be measured here; the words say why."""


class Level(enum.Enum):
    """What a check may cost, cheapest first."""

    STATIC = "static"
    """Arguments, configurations and names of modules."""
    DATA = "data"
    """Rows of the data set, and batches as the collator makes them."""
    STEP = "step"
    """A few real optimizer steps."""
    ROUNDTRIP = "roundtrip"
    """Saving and loading again; of a script, also its generation."""
    MEMORY = "memory"
    """The whole recipe on the virtual GPU."""

    def up_to(self) -> tuple[Level, ...]:
        """This level and those before it."""
        levels = tuple(Level)
        return levels[: levels.index(self) + 1]


class Severity(enum.Enum):
    """How bad a finding is. Errors and warnings fail, notes never do."""

    ERROR = "error"
    """The run is wrong, or will fail."""
    WARNING = "warning"
    """The run will waste time or mislead."""
    NOTE = "note"
    """A choice worth knowing."""


class Status(enum.Enum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not apply to the subject."""
    UNMEASURED = "unmeasured"
    """It applies, and could not be measured here."""
    ERROR = "error"
    """The check itself broke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What mends a finding.

    Attributes:
        text: What to do, one sentence.
        change: Recipe key to its new value, where the fix is mechanical; the value `None` takes
            the key out.
    """

    text: str
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a check holds against the subject.

    Attributes:
        code: Code of the check, such as `FT203`.
        slug: Its name, such as `labels-all-ignored`.
        severity: How bad it is.
        sentence: What was found, with the numbers.
        evidence: Rows, tokens, modules, numbers, a line each.
        place: `file:line` of the key or the object; empty where none is known.
        key: `section.key` of a recipe that it is about, such as `tokenization.labels`.
        fix: What mends it.
        accepted: Why the owner accepts it; empty where nobody does.
    """

    code: str
    slug: str
    severity: Severity
    sentence: str
    evidence: tuple[str, ...] = ()
    place: str = ""
    key: str = ""
    fix: Fix = field(default_factory=lambda: Fix(text=""))
    accepted: str = ""

    @property
    def fails(self) -> bool:
        """Whether it makes the report fail."""
        return self.severity is not Severity.NOTE and not self.accepted

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "code": self.code,
            "slug": self.slug,
            "severity": self.severity.value,
            "sentence": self.sentence,
            "evidence": list(self.evidence),
            "place": self.place,
            "key": self.key,
            "fix": {"text": self.fix.text, "change": self.fix.change},
            "accepted": self.accepted,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one check.

    Attributes:
        code: Of the check.
        slug: Of the check.
        level: Of the check.
        status: What became of it.
        reason: Why it was skipped, not measured, or broke.
        findings: What it found; empty unless it failed, except for notes and accepted findings.
    """

    code: str
    slug: str
    level: Level
    status: Status
    reason: str = ""
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "code": self.code,
            "slug": self.slug,
            "level": self.level.value,
            "status": self.status.value,
            "reason": self.reason,
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What all checks say of a subject.

    Attributes:
        subject: Its name.
        outcomes: One for each check that was selected, in the order of codes.
        assumptions: What was looked at in place of the real thing, a sentence each.
        seconds: How long it took.
    """

    subject: str
    outcomes: tuple[Outcome, ...]
    assumptions: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the worst first."""
        order = list(Severity)
        found = [finding for outcome in self.outcomes for finding in outcome.findings]
        return tuple(
            sorted(
                found,
                key=lambda one: (bool(one.accepted), order.index(one.severity), one.code),
            )
        )

    @property
    def ok(self) -> bool:
        """Whether no finding fails and no check broke."""
        broke = any(outcome.status is Status.ERROR for outcome in self.outcomes)
        return not broke and not any(finding.fails for finding in self.findings)

    def with_status(self, status: Status) -> Iterator[Outcome]:
        """Outcomes of one kind."""
        return (outcome for outcome in self.outcomes if outcome.status is status)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "assumptions": list(self.assumptions),
            "seconds": self.seconds,
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
        }
