"""An unmodified script or notebook: run in a child process up to its training, and checked."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ftcheck.checks.finding import CheckReport, Level
from ftcheck.errors import FtcheckError, InputError
from ftcheck.subjects.on_card import see_devices
from ftcheck.subjects.trainer import LEVELS
from ftcheck.subjects.worker import Job, Outcome
from ftcheck.vgpu.child import python_path

__all__ = ["ScriptStopped", "check_script", "named_places"]

_SHOWN_LINES = 15


class ScriptStopped(FtcheckError):
    """A script could not be followed to its training."""

    exit_code = 3


def named_places(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Names on the hub to what answers for them.

    Args:
        pairs: Such as `gpt2=models/tiny`.
        option: Where they stand, for the message.

    Raises:
        InputError: A pair without an equals sign.
    """
    found = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not equals:
            raise InputError(
                f"{option}: got {pair!r}, expected NAME=PATH", next_step="As in gpt2=models/tiny."
            )
        found[name.strip()] = place.strip()
    return found


def check_script(
    script: str | Path,
    arguments: Sequence[str] = (),
    *,
    levels: Sequence[Level] = LEVELS,
    through: bool = False,
    stand_ins: Mapping[str, str] | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    accept: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
    verbose: bool = False,
) -> CheckReport:
    """Run a script up to `train()`, check its trainer, and stop.

    It runs in a process of its own, on the CPU, in the folder of this process. What it saves by the
    libraries goes to a folder that is deleted.

    Args:
        script: A `.py` file or a notebook.
        arguments: Of the script.
        levels: To look at; with `memory` and `through` it runs on the virtual GPU as well.
        through: Go on with five steps of training, to see what the script saves, loads and
            generates.
        stand_ins: Names on the hub, to what answers for them: the folder of a model, the folder or
            the file of a data set.
        select: As for `ftcheck.check`.
        ignore: As for `ftcheck.check`.
        accept: As for `ftcheck.check`.
        timeout_s: Seconds after which it is stopped.
        verbose: Let the script be heard.

    Raises:
        InputError: There is no such script, or no such stand-in.
        ScriptStopped: It took too long, died, or ended without training.
    """
    file = Path(script)
    if not file.is_file():
        raise InputError(f"there is no file {file}", next_step="Give a .py file or a notebook.")
    for name, place in (stand_ins or {}).items():
        if not Path(place).exists():
            raise InputError(
                f"--stand-in {name}={place}: there is no {place}",
                next_step="Give a folder with config.json and a tokenizer, or a file of rows.",
            )
    chosen = {name: str(Path(place).resolve()) for name, place in (stand_ins or {}).items()}
    on_card = None
    if through and Level.MEMORY in levels:
        on_card = see_devices(str(file), tuple(arguments), chosen, timeout_s)
    job = Job(
        script=str(file),
        arguments=tuple(arguments),
        levels=tuple(levels),
        through=through,
        stand_ins=chosen,
        select=tuple(select),
        ignore=tuple(ignore),
        accept=dict(accept or {}),
        on_card=on_card,
    )
    with tempfile.TemporaryDirectory(
        prefix="ftcheck-audit-",
        ignore_cleanup_errors=True,  # processes of the script may still be ending
    ) as place:
        folder = Path(place)
        (folder / "job").write_bytes(pickle.dumps(job))
        outcome = _run(folder, file.name, timeout_s, verbose=verbose)
    if outcome.report is None:
        raise ScriptStopped(outcome.error, next_step=outcome.next_step)
    report: CheckReport = outcome.report
    return report


def _run(folder: Path, name: str, timeout_s: float, *, verbose: bool) -> Outcome:
    said = folder / "said"
    hidden = {
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "disabled",
        "PYTHONPATH": python_path(),
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "Agg",
    }
    with said.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "ftcheck.subjects.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=None if verbose else output,
            stderr=None if verbose else output,
            env={**os.environ, **hidden},
            start_new_session=True,  # Ctrl-C reaches this process; the child is ours to end
        )
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ScriptStopped(
                f"{name} was stopped after {timeout_s:.0f} s: it had not come to its training, or "
                "the looks took longer",
                next_step="Give it more time (--timeout), or fewer levels (--level data).",
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    answer = folder / "report"
    if answer.is_file():
        outcome: Outcome = pickle.loads(answer.read_bytes())  # noqa: S301 - ours
        return outcome
    text = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = "\n".join(text[-_SHOWN_LINES:])
    raise ScriptStopped(
        f"{name}: its process ended with status {child.returncode} and no result:\n{last}",
        next_step="Run the script by itself first.",
    )
