"""`pytest train.py --ftcheck`: a script under test, unmodified and never imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pytest_plugin.test_recipe_items import PLAIN

pytest_plugins = ["pytester"]

SCRIPT = """
import sys
from pathlib import Path

Path("trained").touch()
assert len(sys.argv) == 2, sys.argv
alpha = int(sys.argv[1])

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from ftcheck.assets import model_dir

tokenizer = AutoTokenizer.from_pretrained(model_dir())
tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(model_dir())
model = get_peft_model(
    model,
    LoraConfig(r=8, lora_alpha=alpha, target_modules=["attn.c_attn"], task_type="CAUSAL_LM"),
)
texts = [f"def number_{n}(value):\\n    return value + {n}" for n in range(40)]

def encode(text):
    ids = tokenizer(text + tokenizer.eos_token)["input_ids"]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(ids)}

rows = Dataset.from_list([encode(text) for text in texts])
arguments = TrainingArguments("out", per_device_train_batch_size=1, report_to="none", max_steps=20)
Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer).train()
"""


@pytest.fixture
def script(pytester: pytest.Pytester) -> str:
    """A training script that takes one argument."""
    (pytester.path / "train.py").write_text(SCRIPT, encoding="utf-8")
    return "train.py"


def test_nothing_runs_while_collecting(pytester: pytest.Pytester, script: str) -> None:
    found = pytester.runpytest_inprocess(*PLAIN, script, "--ftcheck", "--collect-only", "-q")
    assert found.ret == 0
    found.stdout.fnmatch_lines([f"{script}::labels::FT203-labels-all-ignored"])
    assert not (pytester.path / "trained").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "failed"), [(16, 0), (0, 1)])
def test_a_script_is_checked(
    pytester: pytest.Pytester, script: str, alpha: int, failed: int
) -> None:
    found = pytester.runpytest_subprocess(
        *PLAIN,
        script,
        "--ftcheck",
        f"--ftcheck-arguments={alpha}",
        "--ftcheck-level=static",
        "-k",
        "adapter",
    )
    outcomes = found.parseoutcomes()
    assert outcomes.get("failed", 0) == failed
    assert outcomes["passed"] > 5
    if failed:
        found.stdout.fnmatch_lines(["train.py:*: error: FT304 adapter-scaled-to-nothing"])
    assert (pytester.path / "trained").exists()
    assert not Path(pytester.path / "out" / "checkpoint-20").exists()


@pytest.mark.slow
def test_a_script_that_does_not_train_fails(pytester: pytest.Pytester, script: str) -> None:
    found = pytester.runpytest_subprocess(
        *PLAIN, script, "--ftcheck", "--ftcheck-level=static", "-k", "FT304"
    )
    found.assert_outcomes(failed=1)
    found.stdout.no_fnmatch_line("*pytest_plugin*")


def test_without_the_option_it_is_a_module_as_ever(pytester: pytest.Pytester) -> None:
    (pytester.path / "plain.py").write_text("def test_it(): pass\n", encoding="utf-8")
    pytester.runpytest_inprocess(*PLAIN, "plain.py").assert_outcomes(passed=1)


def test_test_modules_are_left_to_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_it(): pass\n")
    found = pytester.runpytest_inprocess(*PLAIN, "--ftcheck", "test_own.py")
    found.assert_outcomes(passed=1)
