"""From what was seen to a report: every selected check, its place filled in, what is accepted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ftcheck.checks.finding import CheckReport, Finding, NotApplicable, NotMeasured, Outcome, Status
from ftcheck.checks.registry import Check
from ftcheck.checks.seen import Seen

__all__ = ["judge"]


def judge(
    seen: Seen,
    checks: Sequence[Check],
    *,
    accept: Mapping[str, str] | None = None,
    assumptions: Sequence[str] = (),
    seconds: float = 0.0,
) -> CheckReport:
    """Let checks judge what was seen.

    Args:
        seen: What was seen.
        checks: Those to run.
        accept: Code or slug of findings that are meant, to the reason.
        assumptions: For the report, before what was looked at in part.
        seconds: For the report.
    """
    outcomes = tuple(_outcome(one, seen, accept or {}) for one in checks)
    return CheckReport(
        subject=seen.name,
        outcomes=outcomes,
        assumptions=(*assumptions, *seen.in_part),
        seconds=seconds,
    )


def _outcome(one: Check, seen: Seen, accept: Mapping[str, str]) -> Outcome:
    def outcome(status: Status, reason: str = "", findings: Sequence[Finding] = ()) -> Outcome:
        return Outcome(
            code=one.code,
            slug=one.slug,
            level=one.level,
            status=status,
            reason=reason,
            findings=tuple(findings),
        )

    try:
        findings = [_complete(found, seen, accept) for found in one.look(seen)]
    except NotApplicable as reason:
        return outcome(Status.SKIPPED, str(reason))
    except NotMeasured as reason:
        return outcome(Status.UNMEASURED, str(reason))
    except Exception as error:  # noqa: BLE001 - a check that breaks is a result, and says so
        return outcome(Status.ERROR, f"{type(error).__name__}: {error}")
    failed = any(found.fails for found in findings)
    return outcome(Status.FAILED if failed else Status.PASSED, findings=findings)


def _complete(found: Finding, seen: Seen, accept: Mapping[str, str]) -> Finding:
    reason = accept.get(found.slug) or accept.get(found.code) or ""
    place = found.place or (seen.place(found.key) if found.key else "")
    return dataclasses.replace(found, accepted=reason, place=place)
