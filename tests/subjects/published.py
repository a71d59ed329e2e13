"""Scripts as people publish them: run as they are, or with one line changed for the worse."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftcheck.assets import model_dir
from ftcheck.checks.finding import CheckReport, Level, Status
from ftcheck.subjects.script import check_script

__all__ = ["SCRIPTS", "Published", "broken", "checked", "codes", "toy_models", "wrong"]

SCRIPTS = Path(__file__).parent / "scripts"
ROUNDTRIP = Level.ROUNDTRIP.up_to()
DATA = (Level.STATIC, Level.DATA)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A script with its arguments.

    Attributes:
        name: Of the file.
        arguments: Of the script.
        change: A part of its text, and what stands there instead; none for a sound one.
        codes: Of the errors and warnings that are to be found.
        levels: To look at.
        through: Whether to go on behind training.
    """

    name: str
    arguments: Sequence[str] = ()
    change: tuple[str, str] | None = None
    codes: frozenset[str] = field(default_factory=frozenset)
    levels: tuple[Level, ...] = ROUNDTRIP
    through: bool = False


def broken(name: str, old: str, new: str, *found: str, **how: object) -> Published:
    """A script with one part changed, and what is to be found in it."""
    return Published(name=name, change=(old, new), codes=frozenset(found), **how)  # type: ignore[arg-type] # by name


def codes(report: CheckReport) -> set[str]:
    """Of errors and warnings."""
    return {one.code for one in report.findings if one.fails}


def wrong(report: CheckReport) -> list[str]:
    """What a sound script must have none of: errors, warnings, and checks that broke."""
    said = [f"{one.code} {one.sentence}" for one in report.findings if one.fails]
    return said + [f"{one.code} {one.reason}" for one in report.with_status(Status.ERROR)]


def checked(one: Published, folder: Path, stand_ins: Mapping[str, str]) -> CheckReport:
    """The report on a script, which is copied to a folder first."""
    for file in SCRIPTS.iterdir():
        if file.is_dir() and file.name != "__pycache__":
            shutil.copytree(file, folder / file.name)
    script = folder / one.name
    text = (SCRIPTS / one.name).read_text(encoding="utf-8")
    if one.change is not None:
        old, new = one.change
        places = [script, *folder.glob("hydra_conf/**/*.yaml")]
        script.write_text(text, encoding="utf-8")
        having = [file for file in places if old in file.read_text(encoding="utf-8")]
        assert len(having) == 1, f"{old!r} is in {len(having)} files of {one.name}"
        changed = having[0].read_text(encoding="utf-8").replace(old, new)
        having[0].write_text(changed, encoding="utf-8")
    else:
        script.write_text(text, encoding="utf-8")
    return check_script(
        script, one.arguments, levels=one.levels, through=one.through, stand_ins=stand_ins
    )


def toy_models(folder: Path) -> dict[str, str]:
    """Stand-ins for models that are no causal language models: names to folders."""
    from transformers import (
        AutoTokenizer,
        DistilBertConfig,
        DistilBertForMaskedLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    tokenizer = AutoTokenizer.from_pretrained(str(model_dir()))
    end, size = tokenizer.eos_token_id, len(tokenizer)
    t5 = T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=end,
        decoder_start_token_id=0,
    )
    bert = DistilBertConfig(
        vocab_size=size,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=256,
        pad_token_id=end,
    )
    made = {
        "google-t5/t5-small": (T5ForConditionalGeneration(t5), 0),
        "distilbert-base-uncased": (DistilBertForMaskedLM(bert), end),
    }
    for name, (model, pad) in made.items():
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
        tokenizer.save_pretrained(folder / name)
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}
