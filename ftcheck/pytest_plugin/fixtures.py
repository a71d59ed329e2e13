"""The fixtures: a recipe, step by step, and the card.

What is the same for all tests of a recipe is made once a session: tokenizer, rows, adapter, the
model that was loaded again. Tests must not change those. What training changes (`ft_base_model`,
`ft_lora_model`, `ft_trainer`) is made anew for each test. Each takes those before it, so that a
conftest that overrides one changes all that follow.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from ftcheck.checks.finding import CheckReport
    from ftcheck.pipeline import RawData, TokenizedData
    from ftcheck.pytest_plugin.devices import Gpu
    from ftcheck.pytest_plugin.meter import Vram
    from ftcheck.pytest_plugin.vram_benchmark import VramBenchmark
    from ftcheck.recipe import Recipe

__all__ = [
    "FtCheck",
    "FtGenerate",
    "ft_adapter",
    "ft_base_model",
    "ft_check",
    "ft_dataset",
    "ft_generate",
    "ft_lora_model",
    "ft_raw_dataset",
    "ft_recipe",
    "ft_reloaded_model",
    "ft_tokenizer",
    "ft_trainer",
    "ftcheck_gpu",
    "gpu",
    "vram",
    "vram_benchmark",
]

FtGenerate = Callable[..., tuple[str, ...]]
"""`ft_generate("a prompt", "another")` gives a text for each; without prompts, those of the
recipe."""


class FtCheck(Protocol):
    """`ft_check(subject)` checks a recipe or a trainer and fails the test where it finds
    anything."""

    def __call__(
        self,
        subject: Recipe | Trainer | str | Path,
        *,
        level: str | None = None,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        accept: Mapping[str, str] | None = None,
    ) -> CheckReport: ...


@contextlib.contextmanager
def _library_warnings_ignored() -> Iterator[None]:
    """Deprecations among the libraries are not the test's, whose filters may make them errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def ft_recipe(request: pytest.FixtureRequest) -> Recipe:
    """The recipe of the marker `recipe`, else of `--ftcheck-recipe`, else `quickstart`.

    For an item that was collected from a recipe file it is that recipe.

    Raises:
        RecipeError: With all that is wrong with it.
    """
    from ftcheck.pytest_plugin.state import RECIPE_IN_TURN, SETTINGS
    from ftcheck.recipe import load_recipe

    in_turn = request.config.stash.get(RECIPE_IN_TURN, None)
    if in_turn is not None:
        return in_turn
    settings = request.config.stash[SETTINGS]
    named = getattr(request, "param", None) or settings["recipe"]
    return load_recipe(_from_root(request.config, named))


def _from_root(config: pytest.Config, named: str) -> str:
    """A recipe file as named from the working directory, else from the root of the tests."""
    inside = config.rootpath / named
    return str(inside) if not Path(named).is_file() and inside.is_file() else named


@pytest.fixture(scope="session")
def ft_tokenizer(ft_recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of `ft_recipe`, with its pad token set."""
    from ftcheck.pipeline import load_tokenizer

    with _library_warnings_ignored():
        return load_tokenizer(ft_recipe)


@pytest.fixture(scope="session")
def ft_raw_dataset(ft_recipe: Recipe) -> RawData:
    """The rows of text: `train`, and `evaluation` (`None` where the recipe names none), each a
    `datasets.Dataset` with the one column `text_column`."""
    from ftcheck.pipeline import load_data

    with _library_warnings_ignored():
        return load_data(ft_recipe)


@pytest.fixture(scope="session")
def ft_dataset(
    ft_recipe: Recipe, ft_raw_dataset: RawData, ft_tokenizer: PreTrainedTokenizerBase
) -> TokenizedData:
    """The tokenized rows: `train` and `evaluation`, each a `datasets.Dataset` with `input_ids`,
    `attention_mask` and `labels`, lists of int."""
    from ftcheck.pipeline import tokenize

    with _library_warnings_ignored():
        return tokenize(ft_raw_dataset, ft_tokenizer, ft_recipe)


@pytest.fixture
def ft_base_model(ft_recipe: Recipe, ft_tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The base model of `ft_recipe`, quantized as it says, on the device that it says."""
    from ftcheck.pipeline import load_base

    with _library_warnings_ignored():
        return load_base(ft_recipe, ft_tokenizer)


@pytest.fixture
def ft_lora_model(ft_recipe: Recipe, ft_base_model: PreTrainedModel) -> Any:
    """`ft_base_model` with the adapter of the recipe, not trained; the model itself where the
    recipe has no `[lora]`."""
    from ftcheck.pipeline import wrap

    with _library_warnings_ignored():
        return wrap(ft_base_model, ft_recipe)


@pytest.fixture
def ft_trainer(
    ft_recipe: Recipe,
    ft_lora_model: Any,
    ft_dataset: TokenizedData,
    ft_tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> Trainer:
    """A `Trainer` that is ready to train; its checkpoints go below `tmp_path`."""
    from ftcheck.pipeline import build_trainer

    with _library_warnings_ignored():
        return build_trainer(
            ft_lora_model, ft_dataset, ft_tokenizer, ft_recipe, tmp_path / "checkpoints"
        )


@pytest.fixture(scope="session")
def ft_adapter(request: pytest.FixtureRequest, ft_recipe: Recipe) -> Path:
    """Folder of the adapter (of the model, without `[lora]`) that a run of `ft_recipe` saved.

    The whole recipe is run, once a session, in a process of its own; workers of xdist share it.

    Raises:
        BuildFailed: The run failed; the message says why.
    """
    from ftcheck.pytest_plugin.cache import SessionCache
    from ftcheck.pytest_plugin.child import call_apart

    key = ("adapter", ft_recipe, ft_recipe.source and ft_recipe.source.folder)
    folder: Path = SessionCache.of(request).get(
        key, lambda place: call_apart(place, _trained, ft_recipe, place / "run")
    )
    return folder


def _trained(recipe: Recipe, folder: Path) -> Path:
    from ftcheck.pipeline import RunFolder, run

    place = RunFolder.at(folder)
    run(recipe, place)
    return place.adapter


@pytest.fixture(scope="session")
def ft_reloaded_model(ft_recipe: Recipe, ft_adapter: Path) -> Any:
    """The trained model, loaded again from `ft_adapter` as the recipe says, in evaluation mode."""
    from ftcheck.pipeline import reload

    with _library_warnings_ignored():
        model, _ = reload(ft_recipe, ft_adapter)
    return model.eval()


@pytest.fixture(scope="session")
def ft_generate(
    ft_recipe: Recipe, ft_reloaded_model: Any, ft_tokenizer: PreTrainedTokenizerBase
) -> FtGenerate:
    """A function that lets `ft_reloaded_model` continue prompts, as `[generation]` says."""
    from ftcheck.pipeline import generate

    def continued(*prompts: str) -> tuple[str, ...]:
        with _library_warnings_ignored():
            return generate(ft_reloaded_model, ft_tokenizer, ft_recipe, prompts)

    return continued


@pytest.fixture
def ft_check(pytestconfig: pytest.Config) -> FtCheck:
    """A function that checks a recipe or a trainer and fails the test in words.

    Its level is `--ftcheck-level` (a trainer's at most `roundtrip`) where the call names none.
    """
    from ftcheck.pytest_plugin.state import SETTINGS

    def checked(
        subject: Recipe | Trainer | str | Path,
        *,
        level: str | None = None,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        accept: Mapping[str, str] | None = None,
    ) -> CheckReport:
        __tracebackhide__ = True
        from ftcheck.pytest_plugin.words import FindingsFailed, words_of

        wanted = level or pytestconfig.stash[SETTINGS]["level"]
        with _library_warnings_ignored():
            report = _report(subject, wanted, select=select, ignore=ignore, accept=accept)
        failing = [words_of(found) for found in report.findings if found.fails]
        if failing:
            raise FindingsFailed("\n\n".join(failing))
        return report

    return checked


def _report(subject: Any, level: str, **how: Any) -> CheckReport:
    from ftcheck.checks.finding import Level
    from ftcheck.recipe import Recipe
    from ftcheck.subjects.check import check

    if isinstance(subject, (Recipe, str, Path)):
        return check(subject, levels=Level(level).up_to(), **how)
    return check(subject, level="roundtrip" if level == "memory" else level, **how)


@pytest.fixture(scope="session")
def ftcheck_gpu(pytestconfig: pytest.Config) -> Gpu:
    """The card of GPU tests, real or virtual: its name, figures, `device` and memory counters."""
    from ftcheck.pytest_plugin.gpu_tests import handle_of

    return handle_of(pytestconfig)


@pytest.fixture(scope="session")
def gpu(ftcheck_gpu: Gpu) -> Gpu:
    """The same, where a suite has no fixture of its own by this name."""
    return ftcheck_gpu


@pytest.fixture
def vram(ftcheck_gpu: Gpu, request: pytest.FixtureRequest) -> Vram:
    """Measures VRAM: `with vram.measure() as m: …`, `with vram.limit("8 GiB"): …`."""
    from ftcheck.pytest_plugin.meter import Vram

    return Vram(ftcheck_gpu, request.node)


@pytest.fixture
def vram_benchmark(vram: Vram, request: pytest.FixtureRequest) -> VramBenchmark:
    """Peak VRAM and time of a function, for the table, the gate and the baseline:
    `vram_benchmark(step, batch)`."""
    from ftcheck.pytest_plugin.vram_benchmark import VramBenchmark

    return VramBenchmark(vram, request)
