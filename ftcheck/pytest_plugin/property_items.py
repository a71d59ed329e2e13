"""Properties as tests: an item each below a recipe, which Hypothesis runs on many texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import pytest

from ftcheck.errors import Unavailable
from ftcheck.properties import PROPERTIES, Property, PropertyFailed, Subject
from ftcheck.pytest_plugin import fixtures
from ftcheck.pytest_plugin.state import RECIPE_IN_TURN, tell, unmeasured
from ftcheck.pytest_plugin.subject_items import SubjectItem
from ftcheck.recipe import Recipe
from ftcheck.strategies import SPECIAL_TOKENS, batches

__all__ = ["PropertyGroup", "PropertyItem"]

_LONGEST_TEXT: Final = 20_000
"""Characters; eight a token are some twice those of English in GPT-2's tokens."""

_PLAIN: Final = {"any": [""], "broken": ["\ud800"], "none": []}
"""What each kind of property is tried on first."""


class RecipeInTurn:
    """Lets `ft_recipe`, and all that follows from it, be of the file that the running item is of.

    It is made once a session for the tests of people's own, and made anew where files take turns.
    """

    NAME: Final = "ftcheck-recipe-in-turn"

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._made: dict[str, tuple[pytest.FixtureDef[Any], Any]] = {}

    @classmethod
    def of(cls, config: pytest.Config) -> RecipeInTurn:
        """That of the session; registered when the first asks for it."""
        found = config.pluginmanager.get_plugin(cls.NAME)
        if found is None:
            found = cls(config)
            config.pluginmanager.register(found, cls.NAME)
        assert isinstance(found, RecipeInTurn)
        return found

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> None:
        if fixturedef.argname in ("ft_recipe", "ft_tokenizer"):
            self._made[fixturedef.argname] = (fixturedef, request)

    def turn_to(self, recipe: Recipe | None) -> None:
        """Let it be the turn of a recipe; of none, when the tests are people's own."""
        if self.config.stash.get(RECIPE_IN_TURN, None) is recipe:
            return
        self.config.stash[RECIPE_IN_TURN] = recipe
        if "ft_recipe" in self._made:
            fixturedef, request = self._made.pop("ft_recipe")
            fixturedef.finish(request)

    def own_tokenizer(self) -> bool:
        """Whether the tokenizer is the recipe's, and not one of a conftest."""
        fixturedef, _ = self._made["ft_tokenizer"]
        return bool(fixturedef.func.__module__ == fixtures.__name__)


class PropertyGroup(pytest.Collector):
    """The properties of a recipe."""

    recipe: Recipe

    def collect(self) -> Iterator[pytest.Item]:
        """An item a property; one that says so where Hypothesis is not installed."""
        if find_spec("hypothesis") is None:
            yield SubjectItem.from_parent(self, name="needs-hypothesis", callobj=_not_installed)
            return
        RecipeInTurn.of(self.config)
        for wanted in PROPERTIES.values():
            test = _test(wanted, self.recipe, f"{self.nodeid}::{wanted.name}")
            item: PropertyItem = PropertyItem.from_parent(self, name=wanted.name, callobj=test)
            item.wanted, item.recipe = wanted, self.recipe
            yield item

    def teardown(self) -> None:
        """Leave `ft_recipe` to the tests that follow."""
        if find_spec("hypothesis") is not None:
            RecipeInTurn.of(self.config).turn_to(None)


class PropertyItem(SubjectItem):
    """One property of one recipe."""

    wanted: Property
    recipe: Recipe
    subject: Subject

    @property
    def ftcheck_place(self) -> tuple[Path, int]:
        """The key of the recipe that decides it."""
        source = self.recipe.source
        assert source is not None
        return self.subject_file.path, (source.line(self.wanted.key) or 1) - 1

    def setup(self) -> None:
        """Let `ft_recipe` be the recipe of this file."""
        RecipeInTurn.of(self.config).turn_to(self.recipe)
        super().setup()

    def runtest(self) -> None:
        """Try the property on the plainest text, and let Hypothesis go on."""
        request = self.funcargs["request"]
        assert isinstance(request, pytest.FixtureRequest)
        recipe = request.getfixturevalue("ft_recipe")
        if reason := self.wanted.not_for(recipe):
            pytest.skip(f"does not apply: {reason}")
        try:
            self.subject = self._subject(request, recipe)
            self.try_on(_PLAIN[self.wanted.texts])
            super().runtest()
        except Unavailable as error:
            unmeasured(self, self.words(error.message))
        except Exception as error:
            if failed := PropertyFailed.within(error):
                self.tell("failed", str(failed))
            raise
        self.tell("passed")

    def tell(self, status: str, reason: str = "") -> None:
        """Send what became of it to the controller."""
        tell(self, {"property": self.wanted.name, "status": status, "reason": self.words(reason)})

    def _subject(self, request: pytest.FixtureRequest, recipe: Recipe) -> Subject:
        if self.wanted.texts == "none":
            return Subject(recipe=recipe, tokenizer=None)
        return Subject(recipe=recipe, tokenizer=request.getfixturevalue("ft_tokenizer"))

    def try_on(self, texts: list[str]) -> None:
        """Try the property on one batch."""
        plain = self.wanted.texts == "none" or RecipeInTurn.of(self.config).own_tokenizer()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries; the filters may make them errors
            call = "" if plain else "tokenizer=ft_tokenizer"
            self.wanted.hold(self.subject, texts, call=call)

    def repr_failure(  # type: ignore[override]  # as pytest.Function has it
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> Any:
        """The words of what does not hold, for the smallest texts that show it."""
        failed = PropertyFailed.within(excinfo.value)
        if failed is not None:
            flaky = "" if failed is excinfo.value else "\n  With the same texts, it held again."
            return self.words(f"{failed}{flaky}")
        return super().repr_failure(excinfo)


def _not_installed() -> None:
    pytest.skip('hypothesis is not installed: pip install "pytest-ftcheck[properties]"')


def _test(wanted: Property, recipe: Recipe, name: str) -> Callable[..., None]:
    """The test function of a property.

    Args:
        wanted: The property.
        recipe: Its longest rows and its pad token are among the texts.
        name: Keeps its failing examples apart from those of other items.
    """
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    def test(request: pytest.FixtureRequest, texts: list[str]) -> None:
        request.node.try_on(texts)

    if wanted.texts == "none":
        return lambda request: None  # noqa: ARG005 - the plainest texts are all there are
    test.__annotations__["texts"] = Annotated[list[str], name]  # a part of the database's key
    test.__module__ = str(recipe.source and recipe.source.file)  # no patch for our own source
    default = settings.default
    assert default is not None
    settled = settings(
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[
            *default.suppress_health_check,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )
    tokenization = recipe.tokenization
    drawn = st.deferred(
        lambda: batches(
            longest=min(8 * tokenization.max_length, _LONGEST_TEXT),
            special_tokens=(*SPECIAL_TOKENS, tokenization.pad_token),
            lone_surrogates=wanted.texts == "broken",
        )
    )
    made: Callable[..., None] = settled(given(texts=drawn)(test))
    return made
