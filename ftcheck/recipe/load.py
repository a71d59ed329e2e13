"""From TOML to a `Recipe`, or to one `RecipeError` that holds every problem."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftcheck.errors import DiskError, InputError, Problem, RecipeError
from ftcheck.recipe import schema
from ftcheck.recipe.hf_fields import SECTION_CLASSES, fields
from ftcheck.recipe.lines import key_lines, parse
from ftcheck.recipe.renames import translate
from ftcheck.recipe.rules import contradictions
from ftcheck.recipe.values import Fault, argument_faults, did_you_mean, range_faults, section_of

__all__ = ["builtin_names", "load_recipe", "parse_recipe"]

_BUILTIN = Path(__file__).parent / "builtin"
_SECTIONS = (*schema.OWN_SECTIONS, *SECTION_CLASSES)
_REQUIRED = ("model", "data")
_LARGEST_FILE_BYTES = 4 * 1024**2  # a recipe is a page; more is a wrong file


def builtin_names() -> tuple[str, ...]:
    """Names of the built-in recipes, `quickstart` first."""
    names = sorted(path.stem for path in _BUILTIN.glob("*.toml"))
    return tuple(sorted(names, key=lambda name: name != "quickstart"))


def load_recipe(recipe: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> schema.Recipe:
    """Read a recipe file or a built-in recipe.

    Args:
        recipe: A path that ends in `.toml`, or the name of a built-in recipe.
        overrides: `section.key=value` each, with the value in TOML; a text needs no quotes.

    Raises:
        RecipeError: The recipe has problems: all of them are in the error.
        InputError: There is no such file or built-in recipe, or it cannot be read.
    """
    text, file, folder, name = _read(os.fspath(recipe))
    return parse_recipe(text, file=file, folder=folder, name=name, overrides=overrides)


def parse_recipe(
    text: str,
    *,
    file: str = "<text>",
    folder: Path | None = None,
    name: str = "recipe",
    overrides: Sequence[str] = (),
) -> schema.Recipe:
    """Make a recipe of TOML text; see `load_recipe`.

    Args:
        text: The TOML.
        file: Name for messages.
        folder: Folder that relative paths start from; the working directory where `None`.
        name: Name of the recipe.
        overrides: As in `load_recipe`.
    """
    document = _document(text, file)
    lines = dict(key_lines(text))
    _override(document, lines, overrides)
    source = schema.Source(file=file, folder=folder or Path(), lines=lines)
    built = _Builder(source, lines)
    made = built.recipe(document, name)
    faults = built.faults if made is None else list(contradictions(made))
    if made is None or faults:
        raise RecipeError([_problem(fault, source) for fault in faults])
    return made


def _read(recipe: str) -> tuple[str, str, Path, str]:
    """Text, file for messages, folder for relative paths, name."""
    builtin = _BUILTIN / f"{recipe}.toml"
    if recipe in builtin_names():
        return builtin.read_text(encoding="utf-8"), f"{recipe} (built in)", Path(), recipe
    path = Path(recipe).expanduser()
    if path.is_dir() and (path / "recipe.toml").is_file():
        path = path / "recipe.toml"
    if not path.is_file():
        raise _not_found(recipe, path)
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise InputError(f"{recipe}: is larger than 4 MiB, expected a recipe in TOML.")
        content = path.read_bytes()
    except OSError as error:
        raise DiskError(f"{recipe}: cannot be read: {error.strerror}.") from error
    return _decoded(content, recipe), recipe, path.parent, path.name.split(".")[0]


def _not_found(recipe: str, path: Path) -> InputError:
    near = did_you_mean(recipe, builtin_names())
    kind = "a folder without a recipe.toml" if path.is_dir() else "no such file"
    if path.exists() and not path.is_dir():
        kind = "not a regular file"
    return InputError(
        f"{recipe}: {kind}, and not the name of a built-in recipe. {near}".rstrip(),
        next_step="List the built-in ones with: ftcheck recipes",
    )


def _decoded(content: bytes, file: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{content[error.start]:02x} is not UTF-8, expected a text file in TOML."
        raise RecipeError([Problem(file=file, line=line, key="", text=text)]) from error
    # TOML ends lines with LF or CRLF, and knows no bare CR.
    return text.replace("\r\n", "\n")


def _document(text: str, file: str) -> dict[str, Any]:
    try:
        return parse(text)
    except RecursionError as error:
        problem = Problem(file=file, line=None, key="", text="is nested too deeply to be read.")
        raise RecipeError([problem]) from error
    except ValueError as error:
        raise RecipeError([_syntax_problem(text, file, error)]) from error


def _syntax_problem(text: str, file: str, error: ValueError) -> Problem:
    message, _, place = str(error).partition(" (at ")
    words = place.rstrip(")").replace(",", "").split()
    line = int(words[1]) if len(words) > 1 and words[1].isdigit() else text.count("\n") + 1
    return Problem(file=file, line=line, key="", text=f"not valid TOML: {message}.")


def _override(document: dict[str, Any], lines: dict[str, int], overrides: Iterable[str]) -> None:
    for override in overrides:
        key, equals, value = override.partition("=")
        parts = key.strip().split(".")
        if not equals or len(parts) < 2 or not all(parts):
            raise InputError(f"--set {override}: expected section.key=value.")
        table: Any = document
        for part in parts[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise InputError(f"--set {override}: {part} is a value, not a section.")
        table[parts[-1]] = _toml_value(value.strip())
        lines.pop(".".join(parts), None)


def _toml_value(text: str) -> Any:
    try:
        return parse(f"value = {text}")["value"]
    except ValueError:
        return text


def _problem(fault: Fault, source: schema.Source) -> Problem:
    line = source.line(fault.key) if fault.key else None
    return Problem(file=source.file, line=line, key=fault.key, text=fault.text, hint=fault.hint)


class _Builder:
    """Builds the sections one by one and keeps the faults of all of them."""

    def __init__(self, source: schema.Source, lines: dict[str, int]) -> None:
        self._source = source
        self._lines = lines
        self.faults: list[Fault] = []
        self._notices: list[str] = []

    def recipe(self, document: Mapping[str, Any], name: str) -> schema.Recipe | None:
        """A recipe, or `None` where `faults` is not empty."""
        sections = dict(document)
        description = sections.pop("description", "")
        if not isinstance(description, str):
            self._fault("description", f"got {description!r}, expected a text in quotes.")
        for key in [key for key in sections if key not in _SECTIONS]:
            sections.pop(key)
            self._fault(key, "unknown section.", did_you_mean(key, _SECTIONS))
        for key in [key for key, value in sections.items() if not isinstance(value, dict)]:
            self._fault(key, f"got a value, expected a section [{key}].")
            sections[key] = {}
        parts = {key: self._section(key, values) for key, values in sections.items()}
        for key in _REQUIRED:
            if key not in document:
                self._fault(key, f"the section [{key}] is missing.")
        if self.faults:
            return None
        return schema.Recipe(
            name=name,
            description=description,
            notices=tuple(self._notices),
            source=self._source,
            **parts,
        )

    def _fault(self, key: str, text: str, hint: str = "") -> None:
        self.faults.append(Fault(key=key, text=text, hint=hint))

    def _section(self, section: str, values: dict[str, Any]) -> Any:
        if section == "generation":
            return self._generation(values)
        if section in SECTION_CLASSES:
            return self._arguments(section, values)
        values = self._renamed(section, values)
        made, faults = section_of(schema.OWN_SECTIONS[section], values)
        for fault in faults:
            self._fault(f"{section}.{fault.key}", fault.text, fault.hint)
        return made

    def _renamed(self, section: str, values: dict[str, Any]) -> dict[str, Any]:
        """Old names of our own sections, carried over."""
        known = schema.OWN_SECTIONS[section].__dataclass_fields__
        kept: dict[str, Any] = {}
        for name, value in values.items():
            carried = self._carried(section, name, value, known)
            for twin in set(carried or ()) & set(values):
                self._fault(f"{section}.{name}", f"says the same as {section}.{twin}.")
            kept.update({name: value} if carried is None else carried)
        return kept

    def _generation(self, values: dict[str, Any]) -> schema.Generation:
        values = dict(values)
        prompts = values.pop("prompts", [])
        if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts):
            self._fault("generation.prompts", f"got {prompts!r}, expected an array of texts.")
            prompts = []
        return schema.Generation(
            prompts=tuple(prompts), arguments=self._arguments("generation", values)
        )

    def _arguments(self, section: Any, values: Mapping[str, Any]) -> schema.Arguments:
        known = fields(section)
        kept: dict[str, Any] = {}
        for name, value in values.items():
            if name in known:
                for fault in argument_faults(section, known[name], value):
                    self._fault(f"{section}.{fault.key}", fault.text, fault.hint)
                kept[name] = value
                continue
            carried = self._carried(section, name, value, known)
            if carried is None:
                names = [*known, "prompts"] if section == "generation" else list(known)
                text = f"unknown argument of {SECTION_CLASSES[section]} as installed."
                self._fault(f"{section}.{name}", text, did_you_mean(name, names))
            for twin in set(carried or ()) & set(values):
                self._fault(f"{section}.{name}", f"says the same as {section}.{twin}.")
            kept.update(carried or {})
        return schema.Arguments(kept)

    def _carried(
        self, section: str, name: str, value: Any, known: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        answer = translate(section, name, value, known)
        if answer is None:
            return None
        if faults := range_faults(section, name, value):
            self.faults += [Fault(key=f"{section}.{name}", text=faults[0].text)]
            return {}
        if isinstance(answer, str):
            self._fault(f"{section}.{name}", f"got {value!r}: {answer}.")
            return {}
        self._notices.append(answer[1])
        if line := self._lines.get(f"{section}.{name}"):
            self._lines |= {f"{section}.{new}": line for new in answer[0]}
        self.faults.extend(self._carried_faults(section, name, answer[0], known))
        return answer[0]

    def _carried_faults(
        self, section: str, name: str, carried: Mapping[str, Any], known: Mapping[str, Any]
    ) -> Iterator[Fault]:
        if section not in SECTION_CLASSES:
            return
        for new, value in carried.items():
            for fault in argument_faults(section, known[new], value):
                yield Fault(key=f"{section}.{name}", text=fault.text, hint=fault.hint)
