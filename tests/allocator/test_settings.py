"""`PYTORCH_ALLOC_CONF`: what is read, what is refused, and whether torch agrees."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftcheck.allocator import settings as allocator_settings
from ftcheck.allocator.conf import conf_from_environ, format_conf, parse_conf
from ftcheck.allocator.settings import AllocatorSettings
from ftcheck.errors import InputError

KIB, MIB, GIB = 1024, 1024**2, 1024**3
DIVISIONS = st.sampled_from([0, 1, 2, 4, 8, 16, 64])
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True, allow_nan=False)


@st.composite
def settings(draw: st.DrawFn) -> AllocatorSettings:
    large = draw(st.integers(11, 64)) * MIB
    size = st.none() | st.integers(large // MIB, 4096).map(lambda mib: mib * MIB)
    return AllocatorSettings(
        expandable_segments=draw(st.booleans()),
        large_segment_bytes=large,
        max_split_size_bytes=draw(size),
        max_non_split_rounding_bytes=draw(size),
        garbage_collection_threshold=draw(st.just(0.0) | FRACTIONS),
        per_process_memory_fraction=draw(st.floats(0, 1)),
        roundup_power2_divisions=tuple(draw(st.lists(DIVISIONS, min_size=16, max_size=16))),
    )


@given(settings())
def test_round_trip(made: AllocatorSettings) -> None:
    assert parse_conf(format_conf(made)) == made


def test_defaults_need_no_text() -> None:
    assert format_conf(AllocatorSettings()) == ""
    assert parse_conf("") == AllocatorSettings()


def test_every_key_by_hand() -> None:
    read = parse_conf(
        "max_split_size_mb: 128, expandable_segments:True,garbage_collection_threshold:0.8,"
        "per_process_memory_fraction:0.5,max_non_split_rounding_mb:30,large_segment_size_mb:24,"
        "roundup_power2_divisions:[256:1,512:2,>:4],backend:native,pinned_use_background_threads:True"
    )
    assert read == AllocatorSettings(
        max_split_size_bytes=128 * MIB,
        expandable_segments=True,
        garbage_collection_threshold=0.8,
        per_process_memory_fraction=0.5,
        max_non_split_rounding_bytes=30 * MIB,
        large_segment_bytes=24 * MIB,
        # 256 MiB is interval 8 and, as the first one, holds for all below it; 512 MiB is 9.
        roundup_power2_divisions=(1,) * 9 + (2,) + (4,) * 6,
    )
    assert read.collects_garbage
    assert not parse_conf("expandable_segments:False").expandable_segments


def test_a_boundary_beyond_the_last_interval_is_of_the_last_one() -> None:
    for mib in (2**15, 2**16, 2**20):
        read = parse_conf(f"roundup_power2_divisions:[1:4,{mib}:2]")
        assert read.roundup_power2_divisions == (4, *(0,) * 14, 2)


def test_a_size_beyond_all_measure_is_cut() -> None:
    read = parse_conf(f"max_split_size_mb:{10**20}")
    assert read.max_split_size_bytes == (2**64 - 1) // MIB * MIB


def test_the_threshold_alone_collects_nothing() -> None:
    # CUDACachingAllocator.cpp:1758 asks for a memory limit too.
    assert not AllocatorSettings(garbage_collection_threshold=0.8).collects_garbage


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_split_size:128", "max_split_size: unknown key, .* Did you mean max_split_size_mb"),
        ("max_split_size_mb:19", "max_split_size_mb: got 19, expected whole MiB, 20 or more"),
        ("max_split_size_mb:128abc", "max_split_size_mb: got '128abc', expected a whole number"),
        ("max_split_size_mb:-1", "max_split_size_mb: got '-1', expected a whole number of MiB"),
        ("max_split_size_mb", "max_split_size_mb: got no value, expected max_split_size_mb:value"),
        ("max_split_size_mb:", "max_split_size_mb: got no value"),
        (":128", ":128: got no value, expected key:value"),
        ("max_split_size_mb:30,large_segment_size_mb:40", "max_split_size_mb: got 30, .* 40 or"),
        ("large_segment_size_mb:10", "large_segment_size_mb: got 10, .* 11 or more"),
        ("max_non_split_rounding_mb:19", "max_non_split_rounding_mb: got 19, .* 20 or more"),
        ("expandable_segments:true", "expandable_segments: got 'true', expected True or False"),
        ("garbage_collection_threshold:0", "garbage_collection_threshold: got '0', .* above 0"),
        ("garbage_collection_threshold:1", "garbage_collection_threshold: got '1', .* below 1"),
        ("garbage_collection_threshold:nan", "garbage_collection_threshold: got 'nan'"),
        ("garbage_collection_threshold:x", "garbage_collection_threshold: got 'x'"),
        (
            "per_process_memory_fraction:1.5",
            "^per_process_memory_fraction: got '1.5', expected a number from 0 to 1$",
        ),
        ("roundup_power2_divisions:3", "roundup_power2_divisions: got '3', expected a power of 2"),
        ("roundup_power2_divisions:0", "roundup_power2_divisions: got '0', expected a power of 2"),
        ("roundup_power2_divisions:[256:3]", "roundup_power2_divisions: got '3', expected a power"),
        ("roundup_power2_divisions:[255:2]", "roundup_power2_divisions: got '255'"),
        ("roundup_power2_divisions:[256:2", "roundup_power2_divisions: got .*, expected a closing"),
        ("roundup_power2_divisions:[256]", "roundup_power2_divisions: got '256', expected MiB:div"),
        ("roundup_power2_divisions:[1:2]x", r"divisions: got '\[1:2\]x', expected a comma"),
        ("backend:cudaMallocAsync", "backend: got 'cudaMallocAsync', expected native"),
        ("[", r"\[: got no value, expected key:value"),
        ("]", "got ']', expected key:value"),
    ],
)
def test_bad_text_names_the_key_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_conf(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_split_size_bytes": 20 * MIB + 1}, "max_split_size_mb: got 20971521 bytes, expected"),
        ({"garbage_collection_threshold": -0.5}, "garbage_collection_threshold: got -0.5"),
        (
            {"garbage_collection_threshold": 1.0},
            "^garbage_collection_threshold: got 1.0, expected a number between 0 and 1$",
        ),
        ({"per_process_memory_fraction": float("nan")}, "per_process_memory_fraction: got nan"),
        (
            {"roundup_power2_divisions": (2,)},
            "roundup_power2_divisions: got .* expected 16 numbers",
        ),
        (
            {"roundup_power2_divisions": (3,) * 16},
            "roundup_power2_divisions: got 3, expected a pow",
        ),
    ],
)
def test_bad_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AllocatorSettings(**values)  # type: ignore[arg-type]


def test_the_first_variable_that_is_set_counts_alone() -> None:
    both = {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64",
    }
    read = conf_from_environ(both)
    assert read is not None
    assert (read.expandable_segments, read.max_split_size_bytes) == (False, 64 * MIB)
    assert conf_from_environ({}) is None
    with pytest.raises(InputError, match="PYTORCH_ALLOC_CONF: nope: unknown key"):
        conf_from_environ({"PYTORCH_ALLOC_CONF": "nope:1"})


@pytest.mark.parametrize(
    ("size", "divisions", "rounded"),
    [
        (1, 0, 512),
        (511, 0, 512),
        (512, 0, 512),
        (513, 0, 1024),
        # 8 divisions count above 512 * 8 bytes only.
        (4096, 8, 4096),
        (4097, 8, 4096 + 512),
        # 4 divisions of 1 MiB..2 MiB are steps of 256 KiB.
        (MIB + 1, 4, MIB + 256 * KIB),
        (MIB + 256 * KIB, 4, MIB + 256 * KIB),
        (MIB, 4, MIB),
        # 2 divisions of 64 GiB..128 GiB, beyond the last interval.
        (65 * GIB, 2, 96 * GIB),
        # A divisor of 1 is as none.
        (MIB + 1, 1, MIB + 512),
    ],
)
def test_rounding(size: int, divisions: int, rounded: int) -> None:
    made = AllocatorSettings(roundup_power2_divisions=(divisions,) * 16)
    assert made.round_size(size) == rounded


def test_each_power_of_two_has_its_own_divisions() -> None:
    made = AllocatorSettings(roundup_power2_divisions=(2, 4, 8, *(0,) * 12, 2))
    for size, rounded in (
        (512 * KIB + 1, 768 * KIB),  # below 1 MiB the first holds
        (MIB + 1, MIB + 512 * KIB),
        (2 * MIB + 1, 2 * MIB + 512 * KIB),
        (4 * MIB + 1, 4 * MIB + 512 * KIB),
        (8 * MIB + 1, 8 * MIB + 512),
        (32 * GIB + 1, 48 * GIB),
        (64 * GIB + 1, 96 * GIB),  # above 64 GiB the last
    ):
        assert made.round_size(size) == rounded


@pytest.mark.parametrize(
    ("rounded", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
    ],
)
def test_segments(rounded: int, segment: int) -> None:
    assert AllocatorSettings().segment_size(rounded) == segment


def torch_include() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torch is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "include" / "c10"


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"kMinBlockSize = (\d+)", "MIN_BLOCK_BYTES"),
        (r"kSmallSize = (\d+)", "SMALL_ALLOCATION_BYTES"),
        (r"kSmallBuffer = (\d+)", "SMALL_SEGMENT_BYTES"),
        (r"kMinLargeAlloc = (\d+)", "MIN_LARGE_ALLOCATION_BYTES"),
        (r"kRoundLarge = (\d+)", "ROUND_LARGE_BYTES"),
        (r"large_segment_size_\{(\d+)\}", "DEFAULT_LARGE_SEGMENT_BYTES"),
    ],
)
def test_constants_are_those_of_the_installed_torch(pattern: str, name: str) -> None:
    header = torch_include() / "core" / "AllocatorConfig.h"
    if not header.exists():
        pytest.skip("this torch has no c10/core/AllocatorConfig.h")
    found = re.search(pattern, header.read_text(encoding="utf-8"))
    if found is None:
        pytest.skip(f"{header.name} of this torch does not say {pattern}")
    assert int(found[1]) == getattr(allocator_settings, name)


ASK_TORCH = """
import json, sys
import torch
read = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
answers = []
for text in json.loads(sys.argv[1]) if read else []:
    read("large_segment_size_mb:20")
    try:
        read(text)
        answers.append(True)
    except (ValueError, IndexError, RuntimeError):
        answers.append(False)
print(json.dumps(answers))
"""


def test_the_parser_of_the_installed_torch_agrees() -> None:
    """Keys of `AcceleratorAllocatorConfig` only: CUDA's own need a CUDA build."""
    texts = [
        "max_split_size_mb:19",
        "max_split_size_mb:20",
        "max_split_size_mb: 21 ",
        "max_split_size_mb",
        "max_split_size_mb:",
        "max_split_size_mb:abc",
        "max_split_size_mb:20,",
        "max_split_size_mb:20,max_split_size_mb:30",
        "max_split_size_mb:30,large_segment_size_mb:40",
        "large_segment_size_mb:10",
        "large_segment_size_mb:11,max_split_size_mb:11",
        "large_segment_size_mb:12",
        "max_non_split_rounding_mb:19",
        "max_non_split_rounding_mb:20",
        "garbage_collection_threshold:0",
        "garbage_collection_threshold:1",
        "garbage_collection_threshold:0.8",
        "garbage_collection_threshold:nan",
        "expandable_segments:true",
        "expandable_segments:True",
        "expandable_segments:1",
        "roundup_power2_divisions:3",
        "roundup_power2_divisions:0",
        "roundup_power2_divisions:1",
        "roundup_power2_divisions:[256:1,512:2,>:4]",
        "roundup_power2_divisions:[256:0]",
        "roundup_power2_divisions:[256:3]",
        "roundup_power2_divisions:[255:1]",
        "roundup_power2_divisions:[256:1",
        "roundup_power2_divisions:[]",
        "roundup_power2_divisions:[>:4]",
        "roundup_power2_divisions:[>:4,256:2]",
        "pinned_use_background_threads:True",
        "",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK_TORCH, json.dumps(texts)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"torch could not be asked: {done.stderr[-200:]}")
    theirs = json.loads(done.stdout)
    if not theirs:
        pytest.skip("this torch has no torch._C._accelerator_setAllocatorSettings")
    assert dict(zip(texts, map(accepts, texts), strict=True)) == dict(
        zip(texts, theirs, strict=True)
    )


def accepts(text: str) -> bool:
    try:
        parse_conf(text)
    except ValueError:
        return False
    return True
