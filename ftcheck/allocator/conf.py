"""`PYTORCH_ALLOC_CONF`: `key:value` pairs and `key:[a:1,b:2]` lists, read and written.

Mirrors `ConfigTokenizer` (`c10/core/AllocatorConfig.h`) and the `parse...` functions of
`c10/core/AllocatorConfig.cpp` and `c10/cuda/CUDAAllocatorConfig.cpp`, torch 2.13.0.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ftcheck.allocator.settings import (
    INTERVALS,
    MAX_MIB,
    MIB,
    AllocatorSettings,
    bad_value,
    is_power_of_two,
)
from ftcheck.errors import InputError

__all__ = ["VARIABLES", "conf_from_environ", "format_conf", "parse_conf", "read_conf"]

VARIABLES: Final = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""In the order in which torch 2.13 looks; the first one that is set counts, alone."""

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
_PAIR: Final = re.compile(r"(?P<key>[^,:\[\]]*)(?P<colon>:?)(?P<value>\[[^\[\]]*\]?|[^,\[\]]*)")


def parse_conf(text: str) -> AllocatorSettings:
    """Read a value of `PYTORCH_ALLOC_CONF`, such as `max_split_size_mb:128`; a later key wins.

    Stricter than torch in one way: text that torch's parser would skip or cut off (`128abc`, a
    missing comma) is refused. Keys about pinned memory and locks are accepted and ignored.

    Raises:
        ValueError: A key is unknown, torch would refuse a value, or the text names a backend that
            is not simulated; with the key, what was found and what was expected.
    """
    values: dict[str, Any] = {}
    for key, value in _pairs("".join(text.split())):
        if key in _KEYS:
            field, read = _KEYS[key]
            values[field] = read(key, value)
        elif key == "backend":
            if value != "native":
                raise _bad_text(key, value, "native, the only backend that is simulated")
        elif key not in _IGNORED:
            known = (*_KEYS, *_IGNORED, "backend")
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{key}: unknown key, expected one of {', '.join(known)}.{hint}")
    return AllocatorSettings(**values)


def read_conf(text: str, place: str) -> AllocatorSettings:
    """`parse_conf` of what a user wrote.

    Args:
        text: Such as `expandable_segments:True`.
        place: Where it was written: a variable or an option.

    Raises:
        InputError: As for `parse_conf`, with the place in front.
    """
    try:
        return parse_conf(text)
    except ValueError as error:
        raise InputError(
            f"{place}: {error}", next_step="Write it as torch has it: expandable_segments:True."
        ) from error


def conf_from_environ(environ: Mapping[str, str]) -> AllocatorSettings | None:
    """Settings from environment variables, in torch 2.13's order of precedence.

    Returns:
        `None` where no variable is set.

    Raises:
        InputError: As for `read_conf`.
    """
    for name in VARIABLES:
        if name in environ:
            return read_conf(environ[name], name)
    return None


def format_conf(settings: AllocatorSettings) -> str:
    """The text that `parse_conf` reads back to equal settings; empty for the defaults."""
    defaults = AllocatorSettings()
    return ",".join(
        f"{key}:{_format_value(key, getattr(settings, field))}"
        for key, (field, _) in _KEYS.items()
        if getattr(settings, field) != getattr(defaults, field)
    )


def _format_value(key: str, value: Any) -> str:
    if key.endswith("_mb"):
        return str(value // MIB)
    if key == "roundup_power2_divisions":
        return f"[{','.join(f'{2**power}:{steps}' for power, steps in enumerate(value))}]"
    return repr(value)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Split `a:1,b:[2:3,4:5]` at the commas outside of brackets."""
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
                raise _bad_text(key, value + text[position:], "a comma before the next key")
        position += 1
    return pairs


def _flag(key: str, value: str) -> bool:
    if value not in ("True", "False"):
        raise _bad_text(key, value, "True or False")
    return value == "True"


def _mib(key: str, value: str) -> int:
    """Bytes of a number of MiB; values beyond the largest are cut to it, as torch does."""
    if not re.fullmatch(r"\d+", value, re.ASCII):
        raise _bad_text(key, value, "a whole number of MiB")
    return min(int(value), MAX_MIB) * MIB


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _threshold(key: str, value: str) -> float:
    # 0 is how the settings say "off"; the text has no such word, and torch refuses it there.
    if not 0 < _number(value) < 1:
        raise _bad_text(key, value, "a number above 0 and below 1")
    return _number(value)


def _fraction(key: str, value: str) -> float:
    if not 0 <= _number(value) <= 1:
        raise _bad_text(key, value, "a number from 0 to 1")
    return _number(value)


def _divisions(key: str, value: str) -> tuple[int, ...]:
    """`parseRoundUpPower2Divisions` (AllocatorConfig.cpp): one number, or a list by MiB."""
    if not value.startswith("["):
        return (_power_of_two(key, value),) * INTERVALS
    if not value.endswith("]"):
        raise _bad_text(key, value, "a closing bracket ]")
    divisions = [0] * INTERVALS
    last: int | None = None
    for entry in filter(None, value[1:-1].split(",")):
        boundary, colon, amount = entry.partition(":")
        if not colon:
            raise _bad_text(key, entry, "MiB:divisions, such as 256:4")
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
    if not is_power_of_two(number):
        raise _bad_text(key, value, "a power of 2")
    return number


def _bad_text(key: str, got: str, expected: str) -> ValueError:
    return bad_value(key, repr(got), expected)


_KEYS: Final[dict[str, tuple[str, Callable[[str, str], Any]]]] = {
    "expandable_segments": ("expandable_segments", _flag),
    "large_segment_size_mb": ("large_segment_bytes", _mib),
    "max_split_size_mb": ("max_split_size_bytes", _mib),
    "max_non_split_rounding_mb": ("max_non_split_rounding_bytes", _mib),
    "garbage_collection_threshold": ("garbage_collection_threshold", _threshold),
    "per_process_memory_fraction": ("per_process_memory_fraction", _fraction),
    "roundup_power2_divisions": ("roundup_power2_divisions", _divisions),
}
"""Key to field of `AllocatorSettings` and reader, in the order in which they are written."""
