"""FT428: which metrics are better when they are lower, and which when higher."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.coverage import catches, leaves_alone
from tests.checks.toys import found, rows, trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


@catches("FT428")
@leaves_alone("FT428")
@pytest.mark.parametrize(
    ("metric", "greater", "said"),
    [
        ("eval_loss", True, ["lower"]),
        ("perplexity", None, ["lower"]),  # the library takes it for the greater the better
        ("eval_f1", False, ["higher"]),
        ("eval_loss", None, []),
        ("accuracy", None, []),
        ("exact_match", False, []),  # nothing is known of it
        ("loss_accuracy", False, []),
    ],
)
def test_a_best_checkpoint_that_is_the_worst_is_said(
    tmp_path: Path, metric: str, greater: bool | None, said: list[str]
) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    more = {"metric_for_best_model": metric, "greater_is_better": greater, **best}
    findings = found(trainer(tmp_path, evaluation=rows()[:8], arguments=more), "FT428")
    assert [one.sentence.split()[6].strip(",") for one in findings] == said
