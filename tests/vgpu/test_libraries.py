"""Libraries are adapted as soon as they are imported, and not before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ftcheck.vgpu.libraries import on_import


def test_a_library_is_adapted_though_others_asked_before_whether_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_late_library.py").write_text("value = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", finders := [*sys.meta_path])
    before, adapted = list(finders), list[ModuleType]()
    on_import("a_late_library", adapted.append)
    for _ in range(2):  # as transformers and peft do for bitsandbytes
        assert importlib.util.find_spec("a_late_library") is not None
    assert adapted == []
    module = importlib.import_module("a_late_library")
    assert adapted == [module]
    assert module.value == 1
    assert finders == before
    monkeypatch.delitem(sys.modules, "a_late_library")
    importlib.import_module("a_late_library")
    assert adapted == [module]


def test_a_library_that_is_not_there_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    on_import("a_library_that_nobody_has", lambda module: pytest.fail(str(module)))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("a_library_that_nobody_has")
