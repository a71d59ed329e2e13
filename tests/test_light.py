"""`import ftcheck` and `ftcheck --help` bring in nothing heavy: proven in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "bitsandbytes", "numpy")
REPORT = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"


def heavy_after(code: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()[-1].split()


HELP = """
import contextlib, io
from ftcheck.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main(["--help"])
assert "Commands:" in out.getvalue()
"""
RECIPES = HELP.replace('["--help"]', '["recipes"]').replace("Commands:", "quickstart")
LOAD = "import ftcheck; ftcheck.load_recipe('gpt2-wikitext2')"


@pytest.mark.parametrize("code", ["import ftcheck", HELP, RECIPES, LOAD])
def test_nothing_heavy(code: str) -> None:
    assert heavy_after(code) == []


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in heavy_after("import ftcheck, numpy")


def test_public_names_resolve() -> None:
    import ftcheck

    for name in ftcheck.__all__:
        assert getattr(ftcheck, name) is not None
    assert set(ftcheck.__all__) <= set(dir(ftcheck))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ftcheck.nothing
