"""Findings in words, for the report of a failing test."""

from __future__ import annotations

from ftcheck.checks.finding import Finding

__all__ = ["FindingsFailed", "words_of"]


class FindingsFailed(AssertionError):
    """A check holds something against the subject; the words are for people."""


def words_of(found: Finding) -> str:
    """A finding for people: the place, what was found, the evidence, what to do."""
    severity = "accepted" if found.accepted else found.severity.value
    place = f"{found.place}: " if found.place else ""
    lines = [f"{place}{severity}: {found.code} {found.slug}", f"  {found.sentence}"]
    lines += [f"    {line}" for line in found.evidence]
    if found.accepted:
        lines.append(f"  accepted: {found.accepted}")
    elif found.fix.text:
        lines.append(f"  → {found.fix.text}")
    lines.append(f"  ftcheck explain {found.code} says more.")
    return "\n".join(lines)
