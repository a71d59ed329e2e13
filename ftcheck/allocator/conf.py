"""The grammar of `PYTORCH_ALLOC_CONF`: `key:value` pairs and `key:[a:1,b:2]` lists.

Mirrors `ConfigTokenizer` (`c10/core/AllocatorConfig.h`) and the `parse...` functions of
`c10/core/AllocatorConfig.cpp` and `c10/cuda/CUDAAllocatorConfig.cpp`, torch 2.13.0.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, Final

__all__ = ["INTERVALS", "MAX_MIB", "MIB", "parse"]

MIB: Final = 1024**2
INTERVALS: Final = 16
"""Powers of two from 1 MiB to 64 GiB that can have divisions of their own (AllocatorConfig.cpp)."""
MAX_MIB: Final = (2**64 - 1) // MIB
"""`std::numeric_limits<size_t>::max() / kMB`: larger values are cut to it, as torch does."""

_SIZES: Final = {
    "max_split_size_mb": "max_split_size_bytes",
    "max_non_split_rounding_mb": "max_non_split_rounding_bytes",
    "large_segment_size_mb": "large_segment_bytes",
}
_FRACTIONS: Final = ("garbage_collection_threshold", "per_process_memory_fraction")
_IGNORED: Final = (
    "graph_capture_record_stream_reuse",
    "pinned_free_catch_all",
    "pinned_max_cached_size_mb",
    "pinned_max_round_threshold_mb",
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "pinned_use_background_threads",
    "pinned_use_cuda_host_register",
    "pinned_use_hip_host_register",
    "release_lock_on_cudamalloc",
    "release_lock_on_hipmalloc",
    "throw_on_cudamalloc_oom",
)
"""Keys of torch 2.13 about host memory, locks and graphs: no effect on a step's device memory."""
_KNOWN: Final = (
    *_SIZES,
    *_FRACTIONS,
    *_IGNORED,
    "backend",
    "expandable_segments",
    "roundup_power2_divisions",
)
_PAIR: Final = re.compile(r"(?P<key>[^,:\[\]]*)(?P<colon>:?)(?P<value>\[[^\[\]]*\]?|[^,\[\]]*)")


def parse(text: str) -> dict[str, Any]:
    """Read the text into keyword arguments of `AllocatorSettings`; a later key wins.

    Raises:
        ValueError: With the key, what was found and what was expected.
    """
    fields: dict[str, Any] = {}
    for key, value in _pairs("".join(text.split())):
        if key in _SIZES:
            fields[_SIZES[key]] = min(_whole(key, value), MAX_MIB) * MIB
        elif key in _FRACTIONS:
            fields[key] = _fraction(key, value)
        elif key == "expandable_segments":
            if value not in ("True", "False"):
                raise _wrong(key, value, "True or False")
            fields[key] = value == "True"
        elif key == "roundup_power2_divisions":
            fields[key] = _divisions(key, value)
        elif key == "backend":
            if value != "native":
                raise _wrong(key, value, "native, the only backend that is simulated")
        elif key not in _IGNORED:
            nearest = difflib.get_close_matches(key, _KNOWN, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{key}: unknown key, expected one of {', '.join(_KNOWN)}.{hint}")
    return fields


def _pairs(text: str) -> list[tuple[str, str]]:
    """Cut `a:1,b:[2:3,4:5]` at the commas that are outside of brackets."""
    pairs = []
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        assert match is not None  # every part of the pattern may be empty
        key, value = match["key"], match["value"]
        position = match.end()
        if not key and not value and not match["colon"]:
            if text[position] != ",":
                raise ValueError(f"got {text[position:]!r}, expected key:value")
        elif not key or not value:
            raise ValueError(f"{key or match[0]}: got no value, expected {key or 'key'}:value")
        else:
            pairs.append((key, value))
            if position < len(text) and text[position] != ",":
                raise _wrong(key, value + text[position:], "a comma before the next key")
        position += 1
    return pairs


def _whole(key: str, value: str) -> int:
    if not re.fullmatch(r"\d+", value, re.ASCII):
        raise _wrong(key, value, "a whole number of MiB")
    return int(value)


def _fraction(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    # 0 is how the settings say "off"; the text has no such word, and torch refuses it there.
    low_enough = number < 1 if key == "garbage_collection_threshold" else number <= 1
    high_enough = number > 0 if key == "garbage_collection_threshold" else number >= 0
    if not (low_enough and high_enough):
        between = "above 0 and below 1" if key == _FRACTIONS[0] else "from 0 to 1"
        raise _wrong(key, value, f"a number {between}")
    return number


def _divisions(key: str, value: str) -> tuple[int, ...]:
    """`parseRoundUpPower2Divisions` (AllocatorConfig.cpp): one number, or a list by MiB."""
    if not value.startswith("["):
        return (_power_of_two(key, value),) * INTERVALS
    if not value.endswith("]"):
        raise _wrong(key, value, "a closing bracket ]")
    divisions = [0] * INTERVALS
    last: int | None = None
    for entry in filter(None, value[1:-1].split(",")):
        boundary, colon, amount = entry.partition(":")
        if not colon:
            raise _wrong(key, entry, "MiB:divisions, such as 256:4")
        number = 0 if amount == "0" else _power_of_two(key, amount)
        if boundary == ">":
            # Before any boundary torch starts after the first interval: last_index is 0 there.
            start = (last or 0) + 1
            divisions[start:] = [number] * (INTERVALS - start)
            continue
        index = min(_power_of_two(key, boundary).bit_length() - 1, INTERVALS - 1)
        if last is None:
            divisions[:index] = [number] * index
        divisions[index] = number
        last = index
    return tuple(divisions)


def _power_of_two(key: str, value: str) -> int:
    number = int(value) if re.fullmatch(r"\d{1,19}", value, re.ASCII) else 0
    if number <= 0 or number & (number - 1):
        raise _wrong(key, value, "a power of 2")
    return number


def _wrong(key: str, got: str, expected: str) -> ValueError:
    return ValueError(f"{key}: got {got!r}, expected {expected}")
