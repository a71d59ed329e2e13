"""Recipes and scripts as tests: a file, its subject matters, and an item for each check."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from ftcheck.checks.finding import CheckReport, Level, Outcome, Status
from ftcheck.checks.registry import FAILS, Check, selected, within
from ftcheck.errors import FtcheckError, InputError
from ftcheck.pytest_plugin.cache import SessionCache
from ftcheck.pytest_plugin.reports import recipe_report, script_report
from ftcheck.pytest_plugin.state import SETTINGS, tell, unmeasured
from ftcheck.pytest_plugin.subject_items import SubjectFile, SubjectItem
from ftcheck.pytest_plugin.words import FindingsFailed, words_of
from ftcheck.recipe import Recipe, load_recipe

__all__ = ["CheckItem", "RecipeFile", "ScriptFile"]


class CheckedFile(SubjectFile):
    """A file that is collected as one item per check."""

    def levels(self) -> tuple[Level, ...]:
        """Those that were asked for."""
        return Level(self.config.stash[SETTINGS]["level"]).up_to()

    def line(self, check: Check) -> int:
        """0-based line that a check is about, before anything was found."""
        return 0

    @abstractmethod
    def look(self, folder: Path, codes: Sequence[str], levels: Sequence[Level]) -> CheckReport:
        """Check the file; the folder is empty, and stays for the session."""

    def groups(self, checks: Iterable[Check]) -> Iterator[Group]:
        """Collectors of the subject matters of some checks."""
        by_name: dict[str, list[Check]] = {}
        for check in checks:
            by_name.setdefault(check.subject_matter, []).append(check)
        for name, some in by_name.items():
            group: Group = Group.from_parent(self, name=name)
            group.checks = some
            yield group

    def running(self) -> list[CheckItem]:
        """Its items that the session runs."""
        return [
            item
            for item in self.session.items
            if isinstance(item, CheckItem) and item.subject_file.path == self.path
        ]

    def report(self, request: pytest.FixtureRequest) -> CheckReport:
        """The report of all checks of this file that the session runs, looked at once."""
        checks = [item.check for item in self.running()]
        codes = sorted({check.code for check in checks} | {FAILS})
        levels = sorted({check.level for check in checks}, key=list(Level).index)
        key = ("report", str(self.path), self.path.stat().st_mtime_ns, codes)
        report: CheckReport = SessionCache.of(request).get(
            key, lambda folder: self.look(folder, codes, levels)
        )
        return report


class RecipeFile(CheckedFile):
    """A recipe file."""

    recipe: Recipe

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """A `schema` item, and one a check where the recipe can be read."""
        try:
            self.recipe = load_recipe(self.path)
            checks = within(selected(self.recipe.checks.select), self.levels())
        except InputError as error:
            yield SchemaItem.from_parent(self, name="schema", callobj=_failing(error))
            return
        yield SchemaItem.from_parent(self, name="schema", callobj=_readable)
        yield from self.groups(checks)
        if Level.DATA in self.levels():
            from ftcheck.pytest_plugin.property_items import PropertyGroup

            properties: PropertyGroup = PropertyGroup.from_parent(self, name="properties")
            properties.recipe = self.recipe
            yield properties

    def line(self, check: Check) -> int:
        """Line of the section that its subject matter stands in."""
        assert self.recipe.source is not None
        line = self.recipe.source.line(_SECTIONS.get(check.subject_matter, "model"))
        return (line or 1) - 1

    def look(self, folder: Path, codes: Sequence[str], levels: Sequence[Level]) -> CheckReport:
        """Check the recipe."""
        return recipe_report(folder, self.path, codes, levels)


class ScriptFile(CheckedFile):
    """A training script or notebook that was named on the command line."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """An item a check."""
        yield from self.groups(within(selected(), self.levels()))

    def look(self, folder: Path, codes: Sequence[str], levels: Sequence[Level]) -> CheckReport:
        """Run the script up to its training and check the trainer."""
        return script_report(self.path, codes, levels, self.config.stash[SETTINGS])


_SECTIONS = {
    "data": "data",
    "labels": "tokenization",
    "adapter": "lora",
    "training": "training",
    "precision": "quantization",
    "memory": "budget",
    "saving": "training",
    "generation": "generation",
}
"""Subject matter to the section of a recipe that decides it."""


class Group(pytest.Collector):
    """Checks of one subject matter."""

    checks: list[Check]

    def collect(self) -> Iterator[pytest.Item]:
        """An item a check."""
        for check in self.checks:
            name = f"{check.code}-{check.slug}"
            item: CheckItem = CheckItem.from_parent(self, name=name, callobj=_judged)
            item.check = check
            yield item


class SchemaItem(SubjectItem):
    """Whether a recipe can be read."""


class CheckItem(SubjectItem):
    """One check of one file."""

    check: Check

    @property
    def subject_file(self) -> CheckedFile:
        """The file that it is about."""
        file = super().subject_file
        assert isinstance(file, CheckedFile)
        return file

    @property
    def ftcheck_place(self) -> tuple[Path, int]:
        """The section that it is about."""
        return self.subject_file.path, self.subject_file.line(self.check)


def _readable() -> None:
    """The recipe was read while it was collected."""


def _failing(error: InputError) -> Callable[[], None]:
    def refused() -> None:
        raise error

    return refused


def _judged(request: pytest.FixtureRequest) -> None:
    """Body of every check item."""
    item = request.node
    assert isinstance(item, CheckItem)
    report = item.subject_file.report(request)
    outcome = next(one for one in report.outcomes if one.code == item.check.code)
    tell(
        item,
        {
            "check": outcome.code,
            "status": outcome.status.value,
            "reason": outcome.reason,
            "findings": [found.to_dict() for found in outcome.findings],
        },
    )
    for found in outcome.findings:
        if not found.fails:
            item.add_report_section("call", "ftcheck", words_of(found))
    _conclude(item, outcome, report)


def _conclude(item: CheckItem, outcome: Outcome, report: CheckReport) -> None:
    if outcome.status is Status.FAILED:
        failing = [words_of(found) for found in outcome.findings if found.fails]
        raise FindingsFailed("\n\n".join(failing))
    if outcome.status is Status.ERROR:
        raise FtcheckError(
            f"the check itself broke: {outcome.reason}", next_step="It belongs into a bug report."
        )
    if outcome.status is Status.UNMEASURED:
        _fail_if_nobody_else_does(item, report)
        unmeasured(item, outcome.reason)
    if outcome.status is Status.SKIPPED:
        pytest.skip(f"does not apply: {outcome.reason}")


def _fail_if_nobody_else_does(item: CheckItem, report: CheckReport) -> None:
    """A subject that cannot be built or trained must not pass because that check was left out."""
    if any(other.check.code == FAILS for other in item.subject_file.running()):
        return
    failing = next(one for one in report.outcomes if one.code == FAILS)
    if failing.status is Status.FAILED:
        raise FindingsFailed("\n\n".join(map(words_of, failing.findings)))
