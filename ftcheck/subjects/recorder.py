"""What a script does, noted while it runs: in a process of its own, whose libraries are patched."""

from __future__ import annotations

import functools
import inspect
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ftcheck.checks.facts import Call, Record
from ftcheck.checks.observe.batch import dropouts
from ftcheck.pipeline.adapter import unwrapped
from ftcheck.sources import stand_ins

__all__ = ["Recorder", "base_sample"]

_SAMPLED: Final = 64


class Recorder:
    """Notes calls of a script.

    Attributes:
        places: Section of a recipe to `file:line` of the object that stands for it.
        in_training: Whether `train()` is running; nothing is noted meanwhile.

    Args:
        root: Folder of the script: code below it is the user's.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._calls: list[Call] = []
        self._depth = 0
        self._began = time.time()
        self.places: dict[str, str] = {}
        self.trained = False
        self.in_training = False
        self.seeded = {"numpy": False, "random": False, "torch": False}
        self.base: dict[str, Any] = {}
        self.tokenizer: Any = None
        self.merged: set[int] = set()

    def record(self, *, through: bool, failure: Any = None) -> Record:
        """All that was noted so far."""
        return Record(calls=tuple(self._calls), through=through, failure=failure)

    def place(self) -> str:
        """`file:line` of the innermost frame of the user's code; empty where there is none.

        Empty, too, in the making of a stand-in, which is not the user's doing.
        """
        frame = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if file == stand_ins.__file__:
                return ""
            if file.startswith(self._root) and "site-packages" not in file:
                return f"{file}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment] # None ends it
        return ""

    def note(self, what: str, **facts: Any) -> None:
        """Note a call, unless it is one within another, or of training itself."""
        place = self.place()
        if self._depth <= 1 and not self.in_training and place:
            when = "after" if self.trained else "before"
            self._calls.append(Call(what=what, place=place, when=when, facts=facts))

    # ------------------------------------------------------------------ patches

    def install(self) -> None:
        """Patch the libraries of this process."""
        import datasets
        import numpy as np
        import peft
        import torch
        import transformers
        from transformers.generation.utils import GenerationMixin

        model, tokenizer = transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase
        self._where(peft.LoraConfig, "lora")
        self._where(transformers.TrainingArguments, "training", "__post_init__")
        self._where(transformers.BitsAndBytesConfig, "quantization")
        self._around(model, "save_pretrained", lambda own, *_, **__: self._saved(own))
        self._around(peft.PeftModel, "save_pretrained", lambda own, *_, **__: self._saved(own))
        self._around(
            transformers.Trainer, "save_model", lambda own, *_, **__: self._saved(own.model)
        )
        self._around(
            tokenizer, "save_pretrained", lambda *_, **__: self.note("save", kind="tokenizer")
        )
        for kind in (model, peft.PeftModel):
            self._around(kind, "push_to_hub", lambda own, *_, **__: self._saved(own))
        self._around(
            transformers.Trainer, "push_to_hub", lambda own, *_, **__: self._saved(own.model)
        )
        self._around(tokenizer, "push_to_hub", lambda *_, **__: self.note("save", kind="tokenizer"))
        self._around(GenerationMixin, "generate", self._generated)
        self._around(peft.PeftModel, "generate", self._generated)
        if hasattr(peft, "PeftModelForCausalLM"):
            self._around(peft.PeftModelForCausalLM, "generate", self._generated)
        self._around(torch.nn.Module, "load_state_dict", self._state_loaded, after=True)
        self._around(model, "resize_token_embeddings", self._resized)
        from peft.tuners.tuners_utils import BaseTuner

        if hasattr(BaseTuner, "merge_and_unload"):
            self._around(BaseTuner, "merge_and_unload", self._merged, after=True)
        for kind in (datasets.Dataset, datasets.DatasetDict, datasets.IterableDataset):
            self._around(kind, "shuffle", functools.partial(self._shuffled, "shuffle"))
        self._around(
            datasets.Dataset,
            "train_test_split",
            functools.partial(self._shuffled, "train_test_split"),
        )
        self._around(datasets.Dataset, "map", self._mapped, after=True)
        self._around(
            peft.PeftModel,
            "__init__",
            lambda *_, **__: self.note("wrap", seeded=self.seeded["torch"]),
        )
        self._seeds(torch, "torch", "manual_seed")
        self._seeds(np.random, "numpy")
        self._seeds(random, "random")
        inner = random.shuffle

        def shuffle(values: Any, *rest: Any) -> None:
            if not self.seeded["random"]:
                self.note("shuffle", method="random.shuffle", seeded=False)
            inner(values, *rest)

        random.shuffle = shuffle  # type: ignore[assignment] # the same, but for types

    def _where(self, kind: Any, section: str, method: str = "__init__") -> None:
        """Note where the user's code makes one; of a data class, by what its subclasses call."""
        inner = getattr(kind, method)

        @functools.wraps(inner)
        def init(own: Any, *arguments: Any, **named: Any) -> None:
            inner(own, *arguments, **named)
            place = self.place()
            if place and not self.in_training:
                self.places[section] = place

        setattr(kind, method, init)

    def _around(
        self, kind: Any, name: str, noted: Callable[..., None], *, after: bool = False
    ) -> None:
        inner = vars(kind).get(name) or getattr(kind, name)

        @functools.wraps(inner)
        def patched(own: Any, *arguments: Any, **named: Any) -> Any:
            self._depth += 1
            try:
                if not after:
                    noted(own, *arguments, **named)
                result = inner(own, *arguments, **named)
                if after:
                    noted(own, *arguments, _result=result, **named)
                return result
            finally:
                self._depth -= 1

        setattr(kind, name, patched)

    def _seeds(self, module: Any, name: str, function: str = "seed") -> None:
        inner = getattr(module, function)

        @functools.wraps(inner)
        def seed(*arguments: Any, **named: Any) -> Any:
            if self._depth == 0:
                self.seeded[name] = True
            return inner(*arguments, **named)

        setattr(module, function, seed)

    # ------------------------------------------------------------------ what is noted

    def _saved(self, model: Any) -> None:
        kind = "full"
        if hasattr(model, "get_base_model"):
            kind = "adapter"
        elif self.base:
            kind = "merged" if id(model) in self.merged else "base"
        self.note("save", kind=kind)

    def _merged(self, own: Any, *_: Any, _result: Any = None, **__: Any) -> None:
        self.merged.add(id(_result))
        quantized = getattr(_result, "is_loaded_in_8bit", False) or getattr(
            _result, "is_loaded_in_4bit", False
        )
        if quantized:
            self.note("merge")

    def _state_loaded(
        self, _: Any, state: Any = None, *rest: Any, _result: Any = None, **named: Any
    ) -> None:
        """Note weights of which a model takes none."""
        names = list(named["state_dict"] if state is None else state)
        unknown = set(getattr(_result, "unexpected_keys", ()))
        if names and unknown.issuperset(names):
            self.note("load-state", count=len(names), evidence=tuple(names[:2]))

    def _resized(self, own: Any, *_: Any, **__: Any) -> None:
        self.note("resize", old=int(own.get_input_embeddings().weight.shape[0]))

    def _shuffled(self, method: str, own: Any, *arguments: Any, **named: Any) -> None:
        if named.get("shuffle") is False:
            return
        seed = named.get("seed") or named.get("seeds") or named.get("generator")
        if method == "shuffle" and arguments:
            seed = arguments[0]
        given = seed is not None or named.get("seed") == 0
        self.note("shuffle", method=method, seeded=given or self.seeded["numpy"])

    def _generated(self, own: Any, *arguments: Any, **named: Any) -> None:
        import torch

        ids = arguments[0] if arguments else named.get("input_ids", named.get("inputs"))
        if not isinstance(ids, torch.Tensor) or ids.dim() != 2:
            return
        base = unwrapped(own)
        mask = named.get("attention_mask")
        config = named.get("generation_config") or getattr(base, "generation_config", None)
        pad = named.get("pad_token_id", getattr(config, "pad_token_id", None))
        if pad is None and self.tokenizer is not None:
            pad = self.tokenizer.pad_token_id
        ends = (ids[:, -1] == pad) if pad is not None else torch.zeros(len(ids), dtype=torch.bool)
        if mask is not None:
            ends = mask[:, -1] == 0
        new = named.get("max_new_tokens", getattr(config, "max_new_tokens", None))
        cache = named.get("use_cache", getattr(config, "use_cache", None))
        if cache is not False and getattr(base.config, "use_cache", True) is False:
            cache = False if named.get("use_cache") is None else cache
        self.note(
            "generate",
            dropouts_on=sum(module.training for _, module in dropouts(own)),
            mask=mask is not None,
            rows=len(ids),
            padded=pad is not None and bool((ids == pad).any()),
            right_padded=int(ends.sum()) if len(ids) > 1 or mask is not None else 0,
            cache=cache,
            length=ids.shape[1] + int(new) if new else None,
            context=getattr(base.config, "max_position_embeddings", None),
            ids=tuple(int(token) for token in ids[0].tolist()),
        )

    def loaded_adapter(self, base: Any) -> None:
        """Note an adapter that is loaded, and whether its base is the one it was trained on."""
        if not self.base or not self.trained:
            return
        now, wrong = base_sample(base), []
        for name, values in self.base.items():
            other = now.get(name)
            if other is not None and other.shape == values.shape and not _close(values, other):
                wrong.append(name)
        common = len(set(now) & set(self.base))
        self.note(
            "load-adapter",
            same_base=None if not common else len(wrong) <= 0.05 * common,
            evidence=tuple(wrong[:3]),
        )

    def _mapped(self, own: Any, *arguments: Any, _result: Any = None, **named: Any) -> None:
        """Whether rows from a cache are those that the function makes today."""
        function = arguments[0] if arguments else named.get("function")
        files = getattr(_result, "cache_files", None) or ()
        old = [Path(one["filename"]) for one in files]
        old = [one for one in old if one.exists() and one.stat().st_mtime < self._began]
        usual = {"batched", "remove_columns", "fn_kwargs", "num_proc", "desc", "batch_size"}
        if not old or not callable(function) or set(named) - usual - {"function"}:
            return
        fresh = _few_rows(
            own,
            function,
            batched=bool(named.get("batched")),
            arguments=named.get("fn_kwargs") or {},
        )
        if fresh is None:
            return
        served = {
            name: list(_result[: len(fresh[name])][name])
            for name in fresh
            if name in _result.features
        }
        wrong = [name for name, values in served.items() if list(values) != list(fresh[name])]
        self.note(
            "map",
            function=getattr(function, "__qualname__", "function"),
            stale=bool(wrong),
            evidence=tuple(
                f"{name}: cached {str(served[name][0])[:60]}, now {str(fresh[name][0])[:60]}"
                for name in wrong[:2]
            ),
        )


def _few_rows(
    rows: Any, function: Callable[..., Any], *, batched: bool, arguments: dict[str, Any]
) -> dict[str, list[Any]] | None:
    """What a function of `map` makes of two rows; `None` where it cannot be compared."""
    count = min(2, len(rows))
    if not count or len(inspect.signature(function).parameters) - len(arguments) > 1:
        return None

    def once() -> dict[str, list[Any]]:
        if batched:
            return {
                name: list(values) for name, values in function(rows[:count], **arguments).items()
            }
        made = [function(rows[number], **arguments) for number in range(count)]
        return {name: [one[name] for one in made] for name in made[0]}

    first, again = once(), once()
    if first != again or any(len(values) != count for values in first.values()):
        return None
    return first


def base_sample(model: Any) -> dict[str, Any]:
    """Some elements of each weight of a base model, by its name without what peft adds."""
    base = unwrapped(model)
    found: dict[str, Any] = {}
    for name, value in base.named_parameters():
        if "lora_" in name or "modules_to_save" in name or not value.is_floating_point():
            continue
        flat = value.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLED)
        plain = name.replace("base_layer.", "").replace("original_module.", "")
        found[plain] = flat[::step][:_SAMPLED].float().cpu().clone()
    return found


def _close(one: Any, other: Any) -> bool:
    """Whether both are the same weights, but for the rounding of a half-precision type."""
    import torch

    return bool(torch.allclose(one, other, rtol=2e-2, atol=1e-3))
