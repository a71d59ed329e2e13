"""Where a script finds models and puts files, while it is checked.

Names are answered by stand-ins; what it saves goes beside, so that nothing of the user's is written
over; `cuda` means the CPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftcheck.assets import eval_file, model_dir, train_file
from ftcheck.memory.published import published_model

__all__ = ["Places"]


class Places:
    """Answers names, and keeps what is saved.

    Attributes:
        stood_in: Whether a model, and whether data, was answered by a stand-in.
        off: Whether paths are left as they are, as while the trainer is looked at.

    Args:
        folder: Empty, for what is saved and for stand-ins.
        stand_ins: Names on the hub to folders.
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
        self._folder, self._stand_ins = folder, dict(stand_ins)
        self._assume, self._loaded_adapter = assume, loaded_adapter
        self._device = device
        self.stood_in = {"model": False, "data": False}
        self.off = False

    def install(self) -> None:
        """Patch the libraries of this process."""
        import datasets
        import peft
        import transformers
        from transformers.models.auto.auto_factory import _BaseAutoModelClass

        for kind in (
            transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase,
            transformers.PretrainedConfig, transformers.AutoTokenizer, transformers.AutoConfig,
            transformers.GenerationConfig, _BaseAutoModelClass, peft.PeftModel, peft.PeftConfig,
        ):  # fmt: skip
            self._loads(kind, "from_pretrained")
        for kind in (
            transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase, peft.PeftModel,
            transformers.PretrainedConfig, transformers.GenerationConfig, peft.PeftConfig,
        ):  # fmt: skip
            self._saves(kind, "save_pretrained")
        self._saves(transformers.Trainer, "save_model")
        transformers.Trainer.push_to_hub = lambda *_, **__: None
        self._data(datasets)
        if self._device == "cpu":
            _cuda_is_the_cpu()

    def beside(self, path: Any) -> str:
        """The folder that stands for one that the script writes to."""
        if str(path).startswith(str(self._folder)):
            return str(path)
        plain = Path(str(path)).expanduser().absolute()
        return str(self._folder / "saved" / plain.relative_to(plain.anchor))

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
        if self.off:
            return str(name)
        saved = Path(self.beside(name))
        if saved.is_dir():
            return str(saved)
        text = str(name)
        if text in self._stand_ins:
            self.stood_in["model"] = True
            self._assume(f"{text}: {self._stand_ins[text]} stands in for it")
            return self._stand_ins[text]
        if Path(text).exists() or not self._unreachable(text):
            return text
        published = published_model(text)
        if published is None or published.model_type != "gpt2":
            return text
        return self._published(text, published)

    def _unreachable(self, name: str) -> bool:
        from huggingface_hub import try_to_load_from_cache

        return not isinstance(try_to_load_from_cache(name, "config.json"), str)

    def _published(self, name: str, published: Any) -> str:
        """A small model of a published architecture, with the embedded tokenizer."""
        from transformers import AutoConfig

        from ftcheck.audit.shrunken import shrunken_checkpoint

        folder = self._folder / "stand-ins" / name.replace("/", "--")
        self.stood_in["model"] = True
        if not folder.exists():
            self._stand_ins[name] = str(folder)
            config = AutoConfig.for_model(published.model_type, **published.config)
            shrunken_checkpoint(config, folder, trust=False)
            for file in Path(model_dir()).glob("*token*"):
                (folder / file.name).write_bytes(file.read_bytes())
            self._assume(
                f"{name} is not on this machine: a small model of its architecture with random "
                "weights stands in for it, with the embedded tokenizer"
            )
        return str(folder)

    def _data(self, datasets: Any) -> None:
        inner = datasets.load_dataset

        @functools.wraps(inner)
        def patched(path: str, *arguments: Any, **named: Any) -> Any:
            try:
                return inner(path, *arguments, **named)
            except (
                ConnectionError,
                OSError,
                ValueError,
                datasets.exceptions.DatasetNotFoundError,
            ) as error:
                if Path(path).exists() or named.get("data_files"):
                    raise
                return self._text(inner, path, named.get("split"), error)

        datasets.load_dataset = patched

    def _text(self, load: Callable[..., Any], path: str, split: Any, error: Exception) -> Any:
        if not any(part in path for part in ("wikitext", "text", "corpus", "c4", "imdb", "books")):
            raise error
        self.stood_in["data"] = True
        self._assume(f"the data set {path} could not be had: the embedded text stands in for it")
        files = {
            "train": str(train_file()), "validation": str(eval_file()), "test": str(eval_file())
        }  # fmt: skip
        return load("json", data_files=files, split=split)


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
                args = (args[0], *(plain(value) for value in args[1:]))
            if "device" in named:
                named["device"] = plain(named["device"])
            return func(*args, **named)

    if not torch.cuda.is_available():
        mode = Mode()
        mode.__enter__()  # type: ignore[no-untyped-call] # as torch has it
        _entered.append(mode)
        torch.cuda.empty_cache = lambda: None
        with contextlib.suppress(AttributeError):
            torch.cuda.synchronize = lambda *_: None


_entered: list[Any] = []
