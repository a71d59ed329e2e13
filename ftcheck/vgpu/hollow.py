"""Hollow checkpoints: safetensors files with a header and no contents.

A file whose data is a hole takes no room on the disk and none in memory until it is read, and
nothing on the virtual GPU reads it. So `from_pretrained` loads a model of any size by its real
path, and `save_pretrained` saves one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["hollow_checkpoint", "save_hollow"]


def save_hollow(
    tensors: Mapping[str, torch.Tensor],
    filename: str | Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the header of a safetensors file, and a hole where its data would be.

    The format is that of https://github.com/huggingface/safetensors: eight bytes of little-endian
    length, a JSON header, then the data. The signature is that of `safetensors.torch.save_file`.

    Args:
        tensors: Name to tensor, of any device; only shapes and dtypes are looked at.
        filename: The file.
        metadata: Goes into the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    end = 0
    for name, tensor in tensors.items():
        size_bytes = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + size_bytes],
        }
        end += size_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(filename).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


_SHARD_BYTES = 2 * 1024**3
"""Linux refuses one mapping of more than the memory of the host, and allows many smaller ones."""

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
"""Names of dtypes in the header of a safetensors file."""


def hollow_checkpoint(build: Callable[[], Any], folder: Path, dtype: torch.dtype) -> None:
    """Write config.json and hollow safetensors files into a folder, tied weights once.

    Args:
        build: Makes the model; called under `torch.device("meta")`.
        folder: Exists.
        dtype: Of the floating weights in the file.
    """
    import torch

    with torch.device("meta"):
        model = build()
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    kept: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            floats = tensor.is_floating_point()
            kept[name] = tensor.detach().to(dtype) if floats else tensor.detach()
    shards = list(_shards(kept))
    if len(shards) == 1:
        save_hollow(kept, folder / "model.safetensors")
        return
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_hollow(shard, folder / file)
        places.update(dict.fromkeys(shard, file))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _shards(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size_bytes = 0
    for name, tensor in tensors.items():
        added = tensor.numel() * tensor.element_size()
        if shard and size_bytes + added > _SHARD_BYTES:
            yield shard
            shard, size_bytes = {}, 0
        shard[name] = tensor
        size_bytes += added
    yield shard
