"""The `ft_` fixtures: one recipe, step by step."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
INSIDE = ("-p", "no:randomly", "-p", "no:cacheprovider")
"""In this process, where pytest warns that it cannot rewrite modules that are imported already."""
PLAIN = (*INSIDE, "-W", "error")

STEPS = """
import pytest

def test_tokens(ft_recipe, ft_tokenizer, ft_raw_dataset, ft_dataset):
    assert ft_tokenizer.pad_token == ft_tokenizer.eos_token
    text = ft_raw_dataset.train[0][ft_raw_dataset.text_column]
    ids = ft_dataset.train[0]["input_ids"]
    assert ft_tokenizer.decode(ids).startswith(text[:20])

def test_base_is_fresh(ft_base_model):
    assert not hasattr(ft_base_model, "spoilt")
    ft_base_model.spoilt = True

def test_base_is_fresh_again(ft_base_model):
    assert not hasattr(ft_base_model, "spoilt")

def test_trainer(ft_trainer, ft_lora_model, tmp_path):
    assert ft_trainer.model is ft_lora_model
    trainable = [name for name, p in ft_lora_model.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert str(tmp_path) in ft_trainer.args.output_dir

def test_check(ft_trainer, ft_check):
    report = ft_check(ft_trainer, level="data")
    assert report.outcomes

def test_check_fails_in_words(ft_recipe, ft_check):
    import dataclasses
    lora = ft_recipe.lora.replace(lora_alpha=0)
    ft_check(dataclasses.replace(ft_recipe, lora=lora), level="static", select=["FT3"])
"""


def test_each_step(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(STEPS)
    found = pytester.runpytest_subprocess(*PLAIN)
    found.assert_outcomes(passed=5, failed=1)
    found.stdout.fnmatch_lines(["*error: FT304 adapter-scaled-to-nothing", "*lora_alpha is 0*"])
    found.stdout.no_fnmatch_line("*pytest_plugin/fixtures.py*")


ADAPTER = """
import pytest

@pytest.mark.parametrize("_", range(3))
def test_adapter(ft_adapter, ft_reloaded_model, ft_generate, _, record_property):
    assert (ft_adapter / "adapter_model.safetensors").stat().st_size > 1000
    assert not ft_reloaded_model.training
    (text,) = ft_generate("def main")
    assert text.startswith("def main")
    record_property("adapter", str(ft_adapter))
"""


@pytest.mark.slow
def test_the_adapter_is_trained_once_for_all_workers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ADAPTER)
    found = pytester.runpytest_subprocess(
        *PLAIN, "-n", "2", "--junitxml=out.xml", "--ftcheck-recipe=quickstart"
    )
    found.assert_outcomes(passed=3)
    text = (pytester.path / "out.xml").read_text(encoding="utf-8")
    places = {part.partition('"')[0] for part in text.split('name="adapter" value="')[1:]}
    assert len(places) == 1


def test_a_test_runs_for_each_recipe_of_its_marker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.recipe("quickstart", "gpt2-wikitext2")
        def test_names(ft_recipe, request):
            assert ft_recipe.name in request.node.name
        """
    )
    found = pytester.runpytest_inprocess(*INSIDE, "-v")
    found.assert_outcomes(passed=2)
    found.stdout.fnmatch_lines(["*test_names?quickstart? PASSED*", "*?gpt2-wikitext2? PASSED*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("recipe()", "takes files or names of built-in recipes, got () {}"),
        ("recipe(1)", "takes files or names of built-in recipes, got (1,) {}"),
        ("recipe('a', name='b')", "takes files or names of built-in recipes"),
    ],
)
def test_a_wrong_marker_is_refused(pytester: pytest.Pytester, marker: str, said: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(ft_recipe): pass\n")
    found = pytester.runpytest_inprocess(*INSIDE)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines([f"*{said.replace('[', '?')}*"])


def test_a_marker_without_effect_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.recipe('quickstart')\ndef test_it(): pass\n")
    found = pytester.runpytest_inprocess(*INSIDE)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*has no effect on a test without an ft_ fixture"])


@pytest.mark.slow
def test_a_conftest_overrides_what_follows(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest, ftcheck

        @pytest.fixture(scope="session")
        def ft_recipe():
            return ftcheck.load_recipe("quickstart", overrides=["tokenization.pad_token=<own>"])
        """
    )
    pytester.makepyfile("def test_it(ft_tokenizer): assert ft_tokenizer.pad_token == '<own>'\n")
    pytester.runpytest_subprocess(*PLAIN).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("where", "expected"),
    [("line", "gpt2-wikitext2"), ("variable", "text-file"), ("ini", "own")],
)
def test_the_recipe_is_said_in_three_places(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: str, expected: str
) -> None:
    """The command line wins over the environment, and that over the ini file."""
    pytester.makeini("[pytest]\nftcheck_recipe = own.toml\n")
    (pytester.path / "own.toml").write_text(
        "[model]\nname_or_path = 'ftcheck:tiny-gpt2'\n[data]\npath = 'x.txt'\n", encoding="utf-8"
    )
    arguments = ["--ftcheck-recipe=gpt2-wikitext2"] if where == "line" else []
    if where != "ini":
        monkeypatch.setenv("FTCHECK_RECIPE", "text-file")
    pytester.makepyfile(f"def test_it(ft_recipe): assert ft_recipe.name == '{expected}'\n")
    pytester.runpytest_inprocess(*INSIDE, *arguments).assert_outcomes(passed=1)


@pytest.mark.parametrize("where", ["line", "variable", "ini"])
def test_a_wrong_value_is_refused_wherever_it_stands(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    arguments = ["--ftcheck-level=everything"] if where == "line" else []
    if where == "variable":
        monkeypatch.setenv("FTCHECK_LEVEL", "everything")
    if where == "ini":
        pytester.makeini("[pytest]\nftcheck_level = everything\n")
    found = pytester.runpytest_subprocess(*PLAIN, *arguments)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["*everything*static*"])
