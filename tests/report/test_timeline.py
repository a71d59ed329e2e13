"""Memory over a run as a picture, a page, a snapshot or the trace."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.recording import read_recording
from ftcheck.allocator.trace import NO_TAGS, Tags, Trace, TraceRecorder
from ftcheck.cards import Card, from_vram
from ftcheck.errors import DiskError, InputError
from ftcheck.report.timeline import TIMELINE_SUFFIXES, write_timeline
from ftcheck.report.timeline.drawing import (
    COLOURS,
    label_phases,
    ticks,
    timeline_png,
    timeline_svg,
)
from ftcheck.report.timeline.series import CATEGORIES, PARTS, Phase, Series

MIB = 1024**2
GIB = 1024**3
SVG = "{http://www.w3.org/2000/svg}"
WEIGHTS = Tags(phase="load", category="base weights", op="aten::empty", module="wte.weight")
SAVED = Tags(phase="step 1", category="saved activations", op="aten::gelu", module="h.0.mlp.act")
NASTY = Tags(
    phase="<b>step</b> $2$\x1b[31m",
    category="</script>",
    op="a<b&c\x00",
    module='x"></script><i>',
)
NASTY_PHASE = "<b>step</b> $2$\\x1b[31m"
"""As it is shown."""


def run() -> Trace:
    """100 MiB of weights, 60 and 40 of activations, 30 of something unknown; all but one freed."""
    recorder = TraceRecorder()
    recorder.allocate(1, 100 * MIB, WEIGHTS)
    recorder.allocate(2, 60 * MIB, SAVED)
    recorder.allocate(3, 40 * MIB, SAVED)
    recorder.free(2, Tags(phase="step 1", category="gradients"))
    recorder.allocate(4, 30 * MIB, NASTY)
    recorder.free(3, NO_TAGS)
    recorder.free(4, NO_TAGS)
    return recorder.finish()


def long_run(events: int) -> Trace:
    """Small blocks come and go; in the middle, 500 MiB for one event, and once more."""
    recorder = TraceRecorder()
    for number in range(events // 2):
        if number == events // 4 + 1:
            for _ in range(2):
                recorder.allocate(-1, 500 * MIB, SAVED)
                recorder.free(-1)
        recorder.allocate(number, MIB, WEIGHTS)
        recorder.free(number)
    return recorder.finish()


def budget(mib: int, context_mib: int = 20) -> Card:
    """A card that leaves the allocator so much."""
    return dataclasses.replace(
        from_vram(GIB),
        capacity_bytes=(mib + context_mib) * MIB,
        context_overhead_bytes=context_mib * MIB,
    )


def series(trace: Trace, mib: int | None = None) -> Series:
    return Series.of(trace, title="mine", card=None if mib is None else budget(mib))


def elements(svg: str, name: str, group: str = "") -> list[ElementTree.Element]:
    """Elements of a name, inside of groups whose id begins so."""
    groups = [
        each
        for each in ElementTree.fromstring(svg).iter(f"{SVG}g")
        if (each.get("id") or "").startswith(group)
    ]
    return [each for found in groups for each in found.iter(f"{SVG}{name}")]


def texts(svg: str) -> list[str | None]:
    return [each.text for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def corners(path: ElementTree.Element) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"[\d.]+", str(path.get("d")))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


# What is drawn.


def test_sizes_by_hand() -> None:
    drawn = series(run())
    sizes = {name: [size // MIB for size in column] for name, column in drawn.sizes.items()}
    assert sizes == {
        "base weights": [100] * 7,
        "saved activations": [0, 60, 100, 40, 40, 0, 0],
        "other": [0, 0, 0, 0, 30, 30, 0],
    }
    # Segments of 100, 60 and 40; the 30 are half of the cached 60.
    assert drawn.reserved == (100 * MIB, 160 * MIB, *[200 * MIB] * 5)
    assert (drawn.peak_index, drawn.peak_bytes) == (2, 200 * MIB)
    assert drawn.peak_event == run()[2]
    assert drawn.peak_sizes == {
        "base weights": 100 * MIB,
        "saved activations": 100 * MIB,
        "other": 0,
    }
    assert [block.size_bytes // MIB for block in drawn.blocks] == [100, 60, 40]
    assert drawn.phases == (Phase("load", 0, 1), Phase("step 1", 1, 4), Phase(NASTY.phase, 4, 7))


def test_events_without_a_phase_belong_to_the_one_before() -> None:
    recorder = TraceRecorder()
    for block, phase in enumerate(("", "a", "", "a", "b", "")):
        recorder.allocate(block, MIB, Tags(phase=phase))
    assert series(recorder.finish()).phases == (Phase("", 0, 1), Phase("a", 1, 4), Phase("b", 4, 6))


def test_the_stack_has_the_order_of_the_categories() -> None:
    recorder = TraceRecorder()
    for number, name in enumerate(reversed(CATEGORIES)):
        recorder.allocate(number, MIB, Tags(category=name))
    assert tuple(series(recorder.finish()).sizes) == CATEGORIES


@pytest.mark.parametrize("events", [PARTS - 2, PARTS, PARTS + 2, 5000])
def test_thinning_keeps_the_peak_of_one_event(events: int) -> None:
    trace = long_run(events)
    drawn = series(trace)
    totals = [sum(sizes) for sizes in zip(*drawn.sizes.values(), strict=True)]
    assert len(totals) == len(drawn.reserved) == len(drawn.edges) - 1 == min(len(trace), PARTS)
    assert max(totals) == drawn.peak_bytes == trace.requested_peak_bytes == 500 * MIB
    assert drawn.peak_index == trace.requested_peak_index
    part = totals.index(max(totals))
    assert drawn.edges[part] <= drawn.peak_index < drawn.edges[part + 1]
    assert (drawn.edges[0], drawn.edges[-1]) == (0, len(trace))
    assert list(drawn.edges) == sorted(set(drawn.edges))
    assert max(drawn.reserved) == drawn.replayed.peak_reserved_bytes


def test_reserved_ends_where_memory_runs_out() -> None:
    trace = run()
    drawn = series(trace, 170)
    assert (drawn.replayed.failed_index, drawn.failed) == (2, trace[2])
    assert drawn.reserved == (100 * MIB, 160 * MIB)
    assert drawn.replayed.peak_reserved_bytes == 160 * MIB
    line = corners(elements(timeline_svg(drawn), "path", "reserved")[0])
    assert max(x for x, _ in line) == pytest.approx(66 + 2 * 458 / 7, abs=0.01, rel=0)


def test_the_settings_decide_what_is_reserved() -> None:
    growing = AllocatorSettings(expandable_segments=True)
    drawn = Series.of(run(), title="mine", settings=growing)
    # Granules of 20: the 30 go where the 60 were.
    assert drawn.reserved == (100 * MIB, 160 * MIB, *[200 * MIB] * 5)
    assert drawn.replayed.peak_segments == 0


@pytest.mark.parametrize(
    ("top", "labels"),
    [
        (7.4 * GIB, ["0 GiB", "2 GiB", "4 GiB", "6 GiB"]),
        (1.2 * GIB, ["0 GiB", "0.25 GiB", "0.5 GiB", "0.75 GiB", "1 GiB"]),
        (1023 * MIB, ["0 MiB", "250 MiB", "500 MiB", "750 MiB", "1000 MiB"]),
        (80 * GIB, ["0 GiB", "20 GiB", "40 GiB", "60 GiB", "80 GiB"]),
        (1024, ["0 KiB", "0.2 KiB", "0.4 KiB", "0.6 KiB", "0.8 KiB", "1 KiB"]),
    ],
)
def test_the_scale_is_round(top: float, labels: list[str]) -> None:
    scale = ticks(top)
    assert [label for _, label in scale] == labels
    assert scale[-1][0] <= top < scale[-1][0] + scale[1][0] * 1.001


def test_names_of_phases_do_not_overlap() -> None:
    phases = [Phase("load", 0, 10), Phase("wrap", 10, 12), Phase("x", 12, 14), Phase("y", 14, 15)]
    placed = label_phases([*phases, Phase("step 1", 15, 1000)], 1000)
    assert [(name, row) for name, _, row in placed] == [
        ("step 1", 0),
        ("load", 0),
        ("wrap", 1),
        ("x", 2),
    ]
    assert all(0 <= middle <= 1000 for _, middle, _ in placed)
    assert label_phases([Phase("n" * 40, 0, 10)], 10)[0][0] == "n" * 29 + "…"


# The picture.


def test_areas_by_hand() -> None:
    svg = timeline_svg(series(run()))
    areas = [
        str(each.get("id"))
        for each in ElementTree.fromstring(svg).iter(f"{SVG}g")
        if (each.get("id") or "").startswith("area-")
    ]
    assert areas == ["area-other", "area-saved-activations", "area-base-weights"]
    weights = corners(elements(svg, "path", "area-base-weights")[0])
    ground = weights[0][1]
    # 250 high and 458 wide; 218 MiB to the top, and 7 events from 66 on.
    assert weights[1] == pytest.approx((66, ground - 250 * 100 / 218), abs=0.01, rel=0)
    assert weights[2] == pytest.approx((524, ground - 250 * 100 / 218), abs=0.01, rel=0)
    saved = corners(elements(svg, "path", "area-saved-activations")[0])
    steps = {(round((x - 66) * 7 / 458), round((ground - y) * 218 / 250)) for x, y in saved}
    assert steps == {
        *((0, 0), (0, 100), (1, 100), (1, 160), (2, 160), (2, 200), (3, 200)),
        *((3, 140), (5, 140), (5, 100), (7, 100), (7, 0)),
    }


def test_the_picture_says_what_it_shows() -> None:
    svg = timeline_svg(series(run(), 300))
    found = texts(svg)
    for text in (
        "mine",
        "Peak: 200.00\N{NO-BREAK SPACE}MiB requested in step 1, 200.00\N{NO-BREAK SPACE}MiB "
        "reserved.",
        "100.00\N{NO-BREAK SPACE}MiB below the budget.",
        "load",
        "step 1",
        NASTY_PHASE,
        "peak 200.00 MiB",
        "budget 300.00 MiB",
        "GPU 320.00 MiB",
        "base weights",
        "100.00 MiB",
        "7",
        "200 MiB",
        "reserved, at most",
        "requested at the peak",
    ):
        assert text in found
    legend = [text for text in found if text in COLOURS]
    assert legend == ["other", "saved activations", "base weights"]
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "mine"
    assert str(root.findtext(f"{SVG}desc")).startswith("Peak: 200.00 MiB requested in step 1")
    assert "prefers-color-scheme:dark" in svg
    full = texts(timeline_svg(series(run(), 170)))
    assert "out of memory" in full
    assert "Peak: 200.00\N{NO-BREAK SPACE}MiB requested in step 1." in full
    assert any(str(text).startswith("Out of memory on a request of 40.00") for text in full)


@pytest.mark.parametrize(("mib", "is_drawn"), [(400, True), (401, False), (205, True)])
def test_a_budget_far_above_is_named_and_not_drawn(mib: int, is_drawn: bool) -> None:
    svg = timeline_svg(series(run(), mib))
    assert ("above this scale" in svg) == (not is_drawn)
    assert (f"budget {mib}.00 MiB" in texts(svg)) == is_drawn
    top = 1.09 * (max(mib, mib + 20 if mib + 20 <= 400 else 0) if is_drawn else 200)
    weights = corners(elements(svg, "path", "area-base-weights")[0])
    assert weights[0][1] - weights[1][1] == pytest.approx(250 * 100 / top, abs=0.01, rel=0)


def test_pictures_are_the_same_every_time() -> None:
    drawn = series(run(), 300)
    for draw in (timeline_svg, timeline_png):
        assert draw(drawn) == draw(drawn)
    assert "dc:date" not in timeline_svg(drawn)
    assert "matplotlib.org" not in timeline_svg(drawn)
    assert b"matplotlib" not in timeline_png(drawn)


def test_the_style_of_the_user_changes_nothing() -> None:
    import matplotlib

    drawn = series(run(), 300)
    plain = timeline_svg(drawn), timeline_png(drawn)
    own: dict[Any, Any] = {"axes.facecolor": "#ff0000", "font.size": 3, "text.color": "#ff0000"}
    with matplotlib.rc_context(own):
        assert (timeline_svg(drawn), timeline_png(drawn)) == plain
        assert {name: matplotlib.rcParams[name] for name in own} == own


def test_letters_that_no_font_has_are_drawn() -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, MIB, Tags(phase="\N{HIRAGANA LETTER A}\N{GRINNING FACE}"))
    drawn = Series.of(recorder.finish(), title="\ud800\N{CJK UNIFIED IDEOGRAPH-6F22}")
    assert "\N{HIRAGANA LETTER A}\N{GRINNING FACE}" in texts(timeline_svg(drawn))
    assert "\\ud800\N{CJK UNIFIED IDEOGRAPH-6F22}" in texts(timeline_svg(drawn))
    assert timeline_png(drawn).startswith(b"\x89PNG")


def test_the_png_has_the_colours() -> None:
    from matplotlib.image import imread

    image = imread(io.BytesIO(timeline_png(series(run(), 300))))
    assert image.shape[1] == 1125
    pixels = (image[..., :3] * 255).round().astype(int)
    # Points at 150 to the inch; the plot is 458 by 250 of them, and 349 MiB high.
    plot = (458 * 150 / 72) * (250 * 150 / 72) / (1.09 * 320)

    def area(name: str) -> float:
        colour = [int(COLOURS[name][at : at + 2], 16) for at in (1, 3, 5)]
        return float((pixels == colour).all(axis=2).sum()) / plot

    # The tolerance is for lines, names and the edges of areas, which cover some of it, and for the
    # legend.
    assert area("base weights") == pytest.approx(100, rel=0.03, abs=0)
    assert area("saved activations") == pytest.approx((60 + 100 + 40 + 40) / 7, rel=0.06, abs=0)
    assert area("other") == pytest.approx(30 * 2 / 7, rel=0.12, abs=0)
    assert area("gradients") == 0
    # Each amount holds from its event on: 200 MiB are drawn over the third seventh of the width.
    ground = (
        250
        + next(y for y in range(image.shape[0]) if (pixels[y, :, 2] == 0xC7).sum() > 100) * 72 / 150
        - 250 * (1 - 100 / (1.09 * 320))
    )
    for event, mib, name in (
        (1, 150, "saved activations"),
        (2, 185, "saved activations"),
        (3, 130, "saved activations"),
        (4, 160, "other"),
    ):
        x = round(150 / 72 * (66 + 458 * (event + 0.3) / 7))
        y = round(150 / 72 * (ground - 250 * mib / (1.09 * 320)))
        assert f"#{bytes(pixels[y, x].tolist()).hex()}" == COLOURS[name]


BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""Linear RGB to what is seen of it: Machado, Oliveira and Fernandes 2009, at full severity."""


def lab(colour: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """CIE L*a*b* of what is seen of an sRGB colour, under D65."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    red, green, blue = (sum(a * b for a, b in zip(row, linear, strict=True)) for row in matrix)
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_differ_for_everybody(kind: str) -> None:
    """A difference of 2.3 can just be seen; 20 are another colour."""
    seen = {name: lab(colour, BLINDNESS[kind]) for name, colour in COLOURS.items()}
    assert len(seen) == len(CATEGORIES)
    for one, other in itertools.combinations(seen, 2):
        assert math.dist(seen[one], seen[other]) > 20, (one, other)


def test_drawing_leaves_nothing_behind(tmp_path: Path) -> None:
    """No pyplot, with its global figures; nothing heavy before there is something to draw."""
    program = (
        "import sys, pathlib\n"
        "from ftcheck.report.timeline import write_timeline\n"
        "from ftcheck.allocator.trace import TraceRecorder\n"
        "assert not {'matplotlib', 'torch', 'numpy'} & set(sys.modules)\n"
        "write_timeline(pathlib.Path(sys.argv[1]), TraceRecorder().finish(), title='x')\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "x.png"], check=True)


# Files.


@pytest.mark.parametrize("suffix", TIMELINE_SUFFIXES)
@pytest.mark.parametrize("trace", [run(), Trace.from_events([])], ids=["run", "empty"])
def test_every_suffix_is_written(tmp_path: Path, suffix: str, trace: Trace) -> None:
    file = tmp_path / f"memory{suffix.upper() if suffix == '.svg' else suffix}"
    write_timeline(file, trace, title="mine", card=budget(1024))
    content = file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    if suffix == ".png":
        assert content.startswith(b"\x89PNG")
    elif suffix in (".html", ".svg"):
        assert content.startswith(b"<!DOCTYPE html>" if suffix == ".html" else b"<svg ")
    elif suffix == ".pickle":
        events = pickle.loads(content)["device_traces"][0]
        assert sum(event["action"] == "alloc" for event in events) == (4 if len(trace) else 0)
    else:
        assert Trace.load(file) == trace


def test_a_snapshot_is_taken_under_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "memory.pickle"
    write_timeline(str(file), run(), title="mine", card=budget(170))
    snapshot = pickle.loads(file.read_bytes())
    assert snapshot["device_traces"][0][-1]["action"] == "oom"
    assert read_recording(snapshot).available_bytes == 170 * MIB


def test_a_snapshot_is_taken_with_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "memory.pickle"
    options = AllocatorSettings(expandable_segments=True)
    write_timeline(file, run(), title="mine", settings=options)
    segments = pickle.loads(file.read_bytes())["segments"]
    assert segments
    assert all(segment["is_expandable"] for segment in segments)


@pytest.mark.parametrize(
    ("name", "found"), [("m.jpg", "the suffix .jpg"), ("m", "no suffix"), ("m.svg.gz", ".gz")]
)
def test_other_suffixes_are_refused(tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(InputError, match=rf"got .*{re.escape(found)}.*\.html \(a page\)") as error:
        write_timeline(tmp_path / name, run(), title="mine")
    assert all(suffix in str(error.value) for suffix in TIMELINE_SUFFIXES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", TIMELINE_SUFFIXES)
def test_a_file_stays_as_it_was_where_writing_fails(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"memory{suffix}"
    file.write_text("before", encoding="utf-8")

    def refuse(*paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DiskError, match=r"memory\.\w+ cannot be written: No space left"):
        write_timeline(file, run(), title="mine")
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [
        (file.name, "before")
    ]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot be written: No such file or directory"):
        write_timeline(tmp_path / "no" / "memory.svg", run(), title="mine")
