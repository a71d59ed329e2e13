"""Where a base model comes from: resolved once, then handed to every step that loads part of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck.assets import model_dir
from ftcheck.errors import InputError
from ftcheck.recipe import Recipe
from ftcheck.sources.hub import ask_for_model, hub_refusals, in_cache
from ftcheck.sources.published import published_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["EMBEDDED_MODEL", "BaseModel", "Configuration", "find_base_model"]

EMBEDDED_MODEL = "ftcheck:tiny-gpt2"
"""`model.name_or_path` of the embedded model."""

_KEY = "model.name_or_path"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The architecture of a model."""

    config: PretrainedConfig
    """As `AutoModel*.from_config` takes it."""
    dtype: str
    """Of the stored weights: `float32`, `float16` or `bfloat16`."""
    assumption: str = ""
    """What it rests on, where it is not the model's own configuration file."""


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """Where the base model of a recipe is, or what is loaded in its place."""

    name: str
    """`model.name_or_path` of the recipe, by which messages call it."""
    place: str
    """`file:line` of that key."""
    location: str
    """What `from_pretrained` takes: a folder, or a name on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; `None` is the main branch."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run here."""

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of every `from_pretrained` beside the location."""
        return {
            "revision": self.revision or "main",
            "trust_remote_code": self.trust_remote_code,
        }

    @cached_property
    def in_folder(self) -> bool:
        """Whether it is a folder, which no hub is asked for."""
        return Path(self.location).is_dir()

    @cached_property
    def has_tokenizer(self) -> bool:
        """Whether its tokenizer is on this machine."""
        return self.in_folder or self._cached(*_TOKENIZER_FILES)

    @cached_property
    def has_weights(self) -> bool:
        """Whether its weights are on this machine."""
        if self.in_folder:
            return any(Path(self.location).glob("*.safetensors"))
        return self._cached(*_WEIGHT_FILES)

    @cached_property
    def configuration(self) -> Configuration:
        """That of its folder, of the hub's cache on this machine, of the table of published sizes,
        or of the hub, whichever comes first.

        Raises:
            Unavailable: The hub does not have it.
        """
        from transformers import AutoConfig

        if not self.in_folder and not self._cached("config.json"):
            published = published_model(self.name)
            if published is not None:
                return Configuration(
                    config=AutoConfig.for_model(published.model_type, **published.config),
                    dtype=published.dtype,
                    assumption=f"model: the architecture of {self.name} as published; its weights "
                    "were not loaded",
                )
        with self.loading("configuration of"):
            config = AutoConfig.from_pretrained(self.location, **self.options)
        stored = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
        return Configuration(config=config, dtype=str(stored or "float32").removeprefix("torch."))

    @property
    def embedding_rows(self) -> int:
        """Rows of the stored input embedding.

        Raises:
            Unavailable: The hub does not have the configuration.
        """
        config = self.configuration.config
        text = getattr(config, "get_text_config", lambda: config)()  # since transformers 4.42
        return int(text.vocab_size)

    @contextlib.contextmanager
    def loading(self, part: str) -> Iterator[None]:
        """Turn what libraries raise while a part is loaded into one error under the user's name.

        Args:
            part: Such as `tokenizer of`.

        Raises:
            Unavailable: The hub or the network does not have it.
            InputError: What is there cannot be loaded.
        """
        ask = None if self.in_folder else ask_for_model(self.name, self.revision)
        try:
            with hub_refusals(f'{part} "{self.name}"', self.place, ask):
                yield
        except InputError as error:
            error.message = error.message.replace(self.location, self.name)
            raise

    def _cached(self, *files: str) -> bool:
        return any(in_cache(self.name, file, self.revision) for file in files)


def find_base_model(recipe: Recipe) -> BaseModel:
    """Find the base model that a recipe names.

    Raises:
        InputError: It names a folder that is not there, or that holds no base model.
    """
    name = recipe.model.name_or_path
    folder = model_dir() if name == EMBEDDED_MODEL else recipe.resolve(name)
    _check_folder(recipe, folder)
    return BaseModel(
        name=name,
        place=recipe.place(_KEY),
        location=str(folder) if folder.is_dir() else name,
        revision=recipe.model.revision,
        trust_remote_code=recipe.model.trust_remote_code,
    )


def _check_folder(recipe: Recipe, folder: Path) -> None:
    """Refuse folders that `from_pretrained` would take for something else."""
    name = recipe.model.name_or_path
    if folder.is_file() or (not folder.is_dir() and name.startswith((".", "/", "~"))):
        kind = "is a file" if folder.is_file() else "does not exist"
        raise recipe.fault(
            _KEY,
            f"{folder} {kind}, expected a folder with config.json and safetensors weights",
            "Give a folder, or a name on the hub.",
        )
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").is_file():
        raise recipe.fault(
            _KEY,
            f"{folder} is a LoRA adapter, expected a base model",
            "Name the model that the adapter was trained on "
            "(base_model_name_or_path in its adapter_config.json).",
        )
    if not (folder / "config.json").is_file():
        raise recipe.fault(
            _KEY,
            f"{folder} has no config.json, expected a model folder",
            "Give a folder that save_pretrained wrote, or a name on the hub.",
        )
