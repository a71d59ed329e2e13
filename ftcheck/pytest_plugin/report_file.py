"""`--ftcheck-report FILE`: what all tests told, as JSON or Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ftcheck import environment
from ftcheck.files import write_text

__all__ = ["check_name", "write"]

_SCHEMA = 1


def check_name(name: str, folder: Path) -> Path:
    """The file of a report.

    Args:
        name: As given.
        folder: That a relative name starts from.

    Raises:
        pytest.UsageError: Its suffix is none that can be written, or its folder is not there.
    """
    file = folder / name
    if file.suffix not in (".json", ".md"):
        raise pytest.UsageError(f"--ftcheck-report: got {name!r}, expected a .json or .md file")
    if not file.parent.is_dir():
        raise pytest.UsageError(f"--ftcheck-report: there is no folder {file.parent}")
    return file


def write(file: Path, told: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a report.

    Args:
        file: A `.json` or `.md` file; it is replaced.
        told: Test to what it told.

    Raises:
        DiskError: The operating system refused.
    """
    if file.suffix == ".md":
        write_text(file, "\n".join(_markdown(told)) + "\n")
        return
    here = environment.current().to_dict()
    content = {"schema": _SCHEMA, "environment": here, "tests": told}
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _markdown(told: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    statuses = Counter(facts.get("status", "measured") for facts in told.values())
    yield "# ftcheck"
    yield ""
    yield ", ".join(f"{count} {status}" for status, count in statuses.items()) or "nothing ran"
    found = [finding for facts in told.values() for finding in facts.get("findings", ())]
    if found:
        yield ""
        yield "| severity | check | where | what | what to do |"
        yield "| --- | --- | --- | --- | --- |"
        yield from map(_row, found)
    failed = {
        test: facts["reason"]
        for test, facts in told.items()
        if facts.get("status") == "failed" and "property" in facts
    }
    if failed:
        yield ""
        yield "Properties that do not hold:"
        yield ""
        yield from (f"- `{test}`: {' '.join(text.split())}" for test, text in failed.items())
    missing = {test: facts for test, facts in told.items() if facts.get("status") == "unmeasured"}
    if missing:
        yield ""
        yield "Not measured:"
        yield ""
        yield from (f"- `{test}`: {facts.get('reason', '')}" for test, facts in missing.items())


def _row(finding: Mapping[str, Any]) -> str:
    severity = "accepted" if finding["accepted"] else finding["severity"]
    cells = (
        severity,
        f"{finding['code']} {finding['slug']}",
        f"`{finding['place']}`" if finding["place"] else "",
        finding["sentence"],
        finding["accepted"] or finding["fix"]["text"],
    )
    return (
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    )
