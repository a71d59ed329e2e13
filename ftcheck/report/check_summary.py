"""The report of `ftcheck check`: text, Markdown and JUnit."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ftcheck.checks.finding import CheckReport, Finding, Severity, Status
from ftcheck.units import format_seconds

__all__ = ["check_junit", "check_markdown", "check_summary"]


def check_summary(report: CheckReport, *, verbose: bool = False) -> str:
    """One line a finding, the worst first; with `verbose`, evidence and what was not measured."""
    blocks = [_verdict(report)]
    findings = report.findings
    if findings:
        blocks.append("\n".join(line for one in findings for line in _lines(one, verbose=verbose)))
    broke = [f"  {one.code} {one.slug}: {one.reason}" for one in report.with_status(Status.ERROR)]
    if broke:
        blocks.append("These checks broke; please report them\n" + "\n".join(broke))
    if report.assumptions:
        blocks.append("Assumed\n" + "\n".join(f"  {line}" for line in report.assumptions))
    if verbose:
        blocks += _others(report)
    elif any(not one.accepted for one in findings):
        blocks.append("More of each: ftcheck explain CODE, and -v for the evidence.")
    return "\n\n".join(blocks)


def _verdict(report: CheckReport) -> str:
    said = _counted(report)
    statuses = Counter(outcome.status for outcome in report.outcomes)
    passed = statuses[Status.PASSED]
    rest = ", ".join(
        f"{statuses[status]} {word}"
        for status, word in ((Status.SKIPPED, "do not apply"), (Status.UNMEASURED, "not measured"))
        if statuses[status]
    )
    tail = f"{passed} checks passed" + (f", {rest}" if rest else "")
    return f"{report.subject}: {said} ({tail}; {format_seconds(report.seconds)})"


def _counted(report: CheckReport) -> str:
    open_ones = [one for one in report.findings if not one.accepted]
    counts = Counter(one.severity for one in open_ones)
    words = [
        f"{counts[severity]} {severity.value}{'s' if counts[severity] > 1 else ''}"
        for severity in Severity
        if counts[severity]
    ]
    accepted = len(report.findings) - len(open_ones)
    words += [f"{accepted} accepted"] if accepted else []
    found = ", ".join(words)
    if report.ok:
        return f"OK, {found}" if found else "OK, nothing found"
    return found or "a check broke"


def _lines(one: Finding, *, verbose: bool) -> Iterator[str]:
    kind = "accepted" if one.accepted else one.severity.value
    place = f"{_short(one.place)}: " if one.place else ""
    fix = f" → {one.fix.text}" if one.fix.text and not one.accepted else ""
    reason = f" (accepted: {one.accepted})" if one.accepted else ""
    yield f"{kind:<8} {one.code} {place}{one.sentence}{reason}{fix}"
    if verbose:
        yield f"{'':<9}{one.slug}"
        yield from (f"{'':<11}{line}" for line in one.evidence)


def _short(place: str) -> str:
    """A path below the working directory, relative to it."""
    file, colon, rest = place.partition(":")
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return f"{path.relative_to(Path.cwd())}{colon}{rest}"
    return place


def _others(report: CheckReport) -> Iterator[str]:
    for status, title in ((Status.UNMEASURED, "Not measured"), (Status.SKIPPED, "Does not apply")):
        lines = [f"  {one.code} {one.slug}: {one.reason}" for one in report.with_status(status)]
        if lines:
            yield f"{title}\n" + "\n".join(lines)


def check_markdown(report: CheckReport) -> str:
    """For a comment on a change."""
    lines = [f"### {_verdict(report)}", ""]
    if report.findings:
        lines += ["| | code | place | finding | fix |", "| --- | --- | --- | --- | --- |"]
    for one in report.findings:
        kind = f"accepted: {one.accepted}" if one.accepted else one.severity.value
        cells = (kind, f"{one.code} `{one.slug}`", _short(one.place), one.sentence, one.fix.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if report.assumptions:
        lines += ["", *(f"- assumed: {line}" for line in report.assumptions)]
    return "\n".join(lines)


def check_junit(report: CheckReport) -> str:
    """One test case a check; a failing one has a failure, one that was not measured is skipped."""
    suite = ET.Element("testsuite", name=f"ftcheck {report.subject}", time=f"{report.seconds:.3f}")
    counts = Counter(outcome.status for outcome in report.outcomes)
    suite.set("tests", str(len(report.outcomes)))
    suite.set("failures", str(counts[Status.FAILED]))
    suite.set("errors", str(counts[Status.ERROR]))
    suite.set("skipped", str(counts[Status.SKIPPED] + counts[Status.UNMEASURED]))
    for outcome in report.outcomes:
        name = f"{outcome.code} {outcome.slug}"
        case = ET.SubElement(suite, "testcase", classname=report.subject, name=name, time="0")
        text = "\n".join(line for one in outcome.findings for line in _lines(one, verbose=True))
        if outcome.status is Status.FAILED:
            failing = next(one for one in outcome.findings if one.fails)
            ET.SubElement(case, "failure", message=failing.sentence).text = text
        elif outcome.status is Status.ERROR:
            ET.SubElement(case, "error", message=outcome.reason)
        elif outcome.status in (Status.SKIPPED, Status.UNMEASURED):
            ET.SubElement(case, "skipped", message=f"{outcome.status.value}: {outcome.reason}")
        elif text:
            ET.SubElement(case, "system-out").text = text
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)
