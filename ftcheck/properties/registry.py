"""Properties by name, how to try one, and how one that does not hold is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, Final, Literal

from ftcheck.errors import InputError
from ftcheck.pipeline.tokens import load_tokenizer
from ftcheck.properties.subject import PropertyFailed, Subject
from ftcheck.recipe import Recipe, load_recipe
from ftcheck.recipe.values import did_you_mean

__all__ = ["PROPERTIES", "Property", "find", "hold", "register"]

Judge = Callable[[Subject, list[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """Something that holds for any text.

    Attributes:
        name: Its slug.
        key: `section.key` of the recipe that decides it.
        texts: Whether it is about any texts, about those with a lone surrogate, or about none.
        judge: Raises `PropertyFailed` where it does not hold for a batch of texts.
        not_for: Why it does not apply to a recipe; an empty text where it does.
    """

    name: str
    key: str
    texts: Literal["any", "broken", "none"]
    judge: Judge
    not_for: Callable[[Recipe], str]

    @property
    def contract(self) -> str:
        """What holds, in a sentence."""
        return (self.judge.__doc__ or "").strip().partition("\n")[0]

    def hold(self, subject: Subject, texts: list[str], *, call: str = "") -> None:
        """Try it on one batch.

        Args:
            subject: The recipe and its tokenizer.
            texts: One or more.
            call: More arguments of the call that is printed, such as `tokenizer=mine`.

        Raises:
            PropertyFailed: It does not hold; the message ends in one call that shows it again.
        """
        try:
            self.judge(subject, texts)
        except PropertyFailed as failed:
            sentence = words(self, subject.recipe, texts, failed, call)
            raise PropertyFailed(sentence) from failed.__cause__


PROPERTIES: Final[dict[str, Property]] = {}
"""All of them by name."""


def find(name: str) -> Property:
    """The property of a name.

    Raises:
        InputError: There is none.
    """
    if name not in PROPERTIES:
        raise InputError(
            f"there is no property {name!r}.",
            next_step=did_you_mean(name, PROPERTIES) or f"There are {', '.join(PROPERTIES)}.",
        )
    return PROPERTIES[name]


def hold(
    name: str, texts: Sequence[str], recipe: Recipe | str | PathLike[str], *, tokenizer: Any = None
) -> None:
    """Try one property on one batch of texts.

    Args:
        name: Of the property, such as `length-is-max-length`.
        texts: The batch.
        recipe: A recipe, its file, or the name of a built-in one.
        tokenizer: In place of the recipe's own.

    Raises:
        PropertyFailed: It does not hold.
        InputError: There is no such property, or the recipe or its tokenizer cannot be had.
    """
    wanted = find(name)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(fspath(recipe))
    if tokenizer is None and wanted.texts != "none":
        tokenizer = load_tokenizer(recipe)
    call = "" if tokenizer is None else "tokenizer=tokenizer"
    wanted.hold(Subject(recipe=recipe, tokenizer=tokenizer), list(texts), call=call)


def words(
    wanted: Property, recipe: Recipe, texts: list[str], failed: PropertyFailed, call: str
) -> str:
    """A failure for people: the place, what was found, the evidence, one call that shows it."""
    source = recipe.source
    named = source is not None and not source.file.startswith((f"{recipe.name} (", "<"))
    shown = ", ".join(
        [
            repr(wanted.name).replace("'", '"'),
            f"[{', '.join(map(shown_text, texts))}]",
            f'"{source.file}"' if source is not None and named else f'"{recipe.name}"',
            *([call] if call else []),
        ]
    )
    return "\n".join(
        [
            f"{recipe.place(wanted.key)}: {wanted.name} does not hold: {wanted.contract}",
            f"  {failed.sentence}",
            *(f"    {line}" for line in failed.evidence),
            f"  reproduce: ftcheck.properties.hold({shown})",
        ]
    )


def shown_text(text: str) -> str:
    """Python that makes a text; a long repetition as a product."""
    period = (text + text).find(text, 1)
    if len(repr(text)) > 40 and len(text) >= 3 * period:
        return f"{text[:period]!r} * {len(text) // period}"
    return repr(text)


def _always_applies(_: Recipe) -> str:
    return ""


def register(
    key: str,
    *,
    texts: Literal["any", "broken", "none"] = "any",
    not_for: Callable[[Recipe], str] = _always_applies,
) -> Callable[[Judge], Judge]:
    """Make a property of a function; the arguments are those of `Property`."""

    def registered(judge: Judge) -> Judge:
        name = judge.__name__.replace("_", "-")
        PROPERTIES[name] = Property(name=name, key=key, texts=texts, judge=judge, not_for=not_for)
        return judge

    return registered
