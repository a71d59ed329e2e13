"""Where a script finds models and puts files, while it is checked.

Names are answered by stand-ins; what it saves goes beside, so that nothing of the user's is written
over; `cuda` means the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftcheck.sources.stand_ins import StandIns
from ftcheck.subjects.files import look_beside
from ftcheck.subjects.services import leave_out

__all__ = ["Places"]


class Places:
    """Answers names, and keeps what is saved.

    Attributes:
        stand_ins: What answers names on the hub.
        off: Whether paths are left as they are, as while the trainer is looked at.

    Args:
        folder: Empty, for what is saved and for stand-ins.
        stand_ins: Names on the hub to folders or files.
        assume: Told what stands in for what.
        loaded_adapter: Told the base that an adapter is loaded on.
        device: Where models go that are loaded with a map.
    """

    def __init__(
        self,
        folder: Path,
        stand_ins: Mapping[str, str],
        assume: Callable[[str], None],
        loaded_adapter: Callable[[Any], None],
        *,
        device: str = "cpu",
    ) -> None:
        self._folder, self._device = folder, device
        self._assume, self._loaded_adapter = assume, loaded_adapter
        self.stand_ins = StandIns(folder / "stand-ins", stand_ins, assume)
        self.off = False

    def install(self) -> None:
        """Patch the libraries of this process."""
        import datasets
        import peft
        import transformers
        from transformers.models.auto.auto_factory import _BaseAutoModelClass

        for kind in (
            transformers.PreTrainedModel,
            transformers.PreTrainedTokenizerBase,
            transformers.PretrainedConfig,
            transformers.AutoTokenizer,
            transformers.AutoConfig,
            transformers.GenerationConfig,
            *_with_their_own(_BaseAutoModelClass, "from_pretrained"),
            peft.PeftModel,
            peft.PeftConfig,
        ):
            self._loads(kind, "from_pretrained")
        for kind in (
            transformers.PreTrainedModel,
            transformers.PreTrainedTokenizerBase,
            peft.PeftModel,
            transformers.PretrainedConfig,
            transformers.GenerationConfig,
            peft.PeftConfig,
        ):
            self._saves(kind, "save_pretrained")
        self._saves(transformers.Trainer, "save_model")
        self._data(datasets)
        look_beside(self._where_it_is)
        leave_out(self._assume, self._once, cpu=self._device == "cpu")
        if self._device == "cpu":
            _cuda_is_the_cpu()

    def beside(self, path: Any) -> str:
        """The folder that stands for one that the script writes to."""
        if str(path).startswith(str(self._folder)):
            return str(path)
        plain = Path(str(path)).expanduser().absolute()
        return str(self._folder / "saved" / plain.relative_to(plain.anchor))

    def _where_it_is(self, path: str) -> str:
        """Where a path that is not there is, or is to be made: beside, or where it says."""
        other = path if self.off else self.beside(path)
        made = not Path(path).absolute().parent.exists() and Path(other).parent.exists()
        return other if made or os.path.lexists(other) else path

    def _loads(self, kind: Any, name: str) -> None:
        inner = getattr(kind, name).__func__
        of_adapter = kind.__name__ == "PeftModel"

        @functools.wraps(inner)
        def patched(cls: Any, *arguments: Any, **named: Any) -> Any:
            arguments = tuple(
                self._found(one) if isinstance(one, (str, Path)) else one for one in arguments
            )
            for key in ("pretrained_model_name_or_path", "model_id"):
                if isinstance(named.get(key), (str, Path)):
                    named[key] = self._found(named[key])
            if named.get("device_map") is not None:
                named["device_map"] = {"": self._device}
            if of_adapter and not self.off:
                self._loaded_adapter(arguments[0] if arguments else named["model"])
            return inner(cls, *arguments, **named)

        setattr(kind, name, classmethod(patched))

    def _saves(self, kind: Any, name: str) -> None:
        inner = getattr(kind, name)

        @functools.wraps(inner)
        def patched(own: Any, *arguments: Any, **named: Any) -> Any:
            keys = ("save_directory", "output_dir")
            if arguments and isinstance(arguments[0], (str, Path)):
                arguments = (self._once(arguments[0]), *arguments[1:])
            for key in keys:
                if isinstance(named.get(key), (str, Path)):
                    named[key] = self._once(named[key])
            named.pop("push_to_hub", None)
            return inner(own, *arguments, **named)

        setattr(kind, name, patched)

    def _once(self, path: Any) -> str:
        """Beside, while the script itself runs."""
        return str(path) if self.off else self.beside(path)

    def _found(self, name: Any) -> str:
        """Where a name is answered: what the script saved, a stand-in, or itself."""
        text = str(name)
        saved = Path(self.beside(name))
        if saved.is_dir() and not self.off:
            return str(saved)
        return self.stand_ins.model(text)

    def _data(self, datasets: Any) -> None:
        inner = datasets.load_dataset

        @functools.wraps(inner)
        def patched(path: str, name: str | None = None, *rest: Any, **how: Any) -> Any:
            given = self.stand_ins.answers(path)
            if not given:
                try:
                    return inner(path, name, *rest, **how)
                except (
                    ConnectionError,
                    OSError,
                    ValueError,
                    datasets.exceptions.DatasetNotFoundError,
                ):
                    if Path(path).exists() or how.get("data_files"):
                        raise
                    rows = self.stand_ins.data(inner, path, name, how)
                    if rows is None:
                        raise
                    return rows
            return self.stand_ins.data(inner, path, name, how)

        datasets.load_dataset = patched


def _with_their_own(kind: Any, name: str) -> list[Any]:
    """A class and those below it that have a method of their own, which transformers copies."""
    below = [one for sub in kind.__subclasses__() for one in _with_their_own(sub, name)]
    return [kind, *below] if name in vars(kind) else below


def _cuda_is_the_cpu() -> None:
    """Let tensors that are put on `cuda` stay where they are."""
    import torch
    from torch.overrides import TorchFunctionMode

    def plain(value: Any) -> Any:
        name = str(value) if isinstance(value, (str, torch.device)) else ""
        return "cpu" if name.partition(":")[0] == "cuda" else value

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            named = dict(kwargs or {})
            if func is torch.Tensor.cuda:
                return args[0]
            if func is torch.Tensor.to:
                places = ("cpu" if type(value) is int else plain(value) for value in args[1:])
                args = (args[0], *places)
            if "device" in named:
                named["device"] = plain(named["device"])
            return func(*args, **named)

    if not torch.cuda.is_available():
        mode = Mode()
        mode.__enter__()  # type: ignore[no-untyped-call] # as torch has it
        _entered.append(mode)
        torch.cuda.empty_cache = lambda: None
        for name in ("_exchange_device", "_maybe_exchange_device"):  # `with torch.cuda.device(...)`
            setattr(torch.cuda, name, lambda _: -1)
        with contextlib.suppress(AttributeError):
            torch.cuda.synchronize = lambda *_: None


_entered: list[Any] = []
