"""Going on from a checkpoint: where from, whether that is exact, and what is read of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftcheck import environment
from ftcheck.errors import ResumeRefused
from ftcheck.pipeline.folder import Checkpoint, RunFolder
from ftcheck.pipeline.library_bugs import LibraryBug, mend_torch_load
from ftcheck.recipe import Recipe

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["changed_versions", "is_last", "load_weights", "place_to_go_on"]


def place_to_go_on(
    folder: RunFolder, bugs: Sequence[LibraryBug], *, inexact: bool
) -> Checkpoint | None:
    """The last complete checkpoint of a run; `None` where there is none.

    Args:
        folder: The run folder.
        bugs: Library bugs that are active.
        inexact: Accept a checkpoint from which the installed versions go on with other rows than
            the run without a stop had seen.

    Raises:
        ResumeRefused: Going on would not be exact, and `inexact` is false.
    """
    checkpoint = folder.last_checkpoint()
    if checkpoint is None:
        return None
    past_first_epoch = float(_state(checkpoint.folder).get("epoch") or 0) >= 1
    repeats = any(bug.slug == "resume-repeats-data" for bug in bugs)
    if past_first_epoch and repeats and not inexact:
        raise ResumeRefused(
            f"{checkpoint.folder} lies behind the first epoch, and the installed transformers "
            f"{environment.installed_version('transformers')} would go on with rows in another "
            "order (resume-repeats-data, huggingface/transformers#40691).",
            next_step="Upgrade to transformers 5, or accept another result with --inexact-resume.",
        )
    mend_torch_load()
    return checkpoint


def changed_versions(folder: RunFolder) -> list[str]:
    """`library old → new` for each library that is not as it was when the run was started."""
    then = (folder.read_json("environment.json") or {}).get("versions", {})
    now = environment.current().versions
    return [
        f"{name} {then[name]} → {now.get(name, 'none')}"
        for name in then
        if now.get(name) != then[name]
    ]


def is_last(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint was saved at the last step of its run."""
    return checkpoint.step >= int(_state(checkpoint.folder)["max_steps"])


def load_weights(trainer: Trainer, recipe: Recipe, folder: Path) -> None:
    """Take the trained weights and the state of a checkpoint (or of the best one, where asked)."""
    from safetensors.torch import load_file
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    best = trainer.state.best_model_checkpoint
    if trainer.args.load_best_model_at_end and best is not None:
        folder = Path(best)
    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(file))
    if recipe.lora is None:
        trainer.model.load_state_dict(weights, strict=False)  # tied weights are saved once
    else:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(trainer.model, weights)


def _state(folder: Path) -> dict[str, Any]:
    text = (folder / "trainer_state.json").read_text(encoding="utf-8")
    state: dict[str, Any] = json.loads(text)
    return state
