"""Memory over a run as a picture, a page, a snapshot or the trace."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ftcheck.allocator.caching import AllocatorSettings
from ftcheck.allocator.replay import replay
from ftcheck.allocator.snapshot import trace_from_snapshot
from ftcheck.allocator.trace import NO_TAGS, Tags, Trace, TraceRecorder
from ftcheck.errors import DiskError, InputError
from ftcheck.report.timeline import TIMELINE_SUFFIXES, write_timeline
from ftcheck.report.timeline.png import timeline_png
from ftcheck.report.timeline.series import COLOURS, PARTS, Band, Series, ticks
from ftcheck.report.timeline.svg import Frame, labelled, timeline_svg

MIB = 1024**2
GIB = 1024**3
SVG = "{http://www.w3.org/2000/svg}"
WEIGHTS = Tags(phase="load", category="base weights", op="aten::empty", module="wte.weight")
SAVED = Tags(phase="step 1", category="saved activations", op="aten::gelu", module="h.0.mlp.act")
NASTY = Tags(phase="<b>step</b> 2", category="</script>", op="a<b&c", module='x"></script><i>')


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


def series(trace: Trace, budget_bytes: int | None = None, capacity: int | None = None) -> Series:
    return Series.of(
        trace, replay(trace, capacity, points=500), title="mine", budget_bytes=budget_bytes
    )


def elements(svg: str, name: str, kind: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}{name}")
    return [each for each in found if kind in (each.get("class") or "").split() or not kind]


def areas(svg: str) -> dict[str, str]:
    """Path by category, in the order of painting."""
    return {
        str(each.findtext(f"{SVG}title")): str(each.get("d"))
        for each in elements(svg, "path")
        if each.get("fill")
    }


# What is drawn.


def test_sizes_by_hand() -> None:
    drawn = series(run())
    assert drawn.categories == ("base weights", "saved activations", "other")
    assert [[size // MIB for size in moment.sizes_bytes] for moment in drawn.moments] == [
        [100, 0, 0],
        [100, 60, 0],
        [100, 100, 0],
        [100, 40, 0],
        [100, 40, 30],
        [100, 0, 30],
        [100, 0, 0],
    ]
    # Segments of 100, 60, 40 and, for the 30, the cached 60: not split, since 30 is over 1 MiB.
    reserved = [moment.reserved_bytes for moment in drawn.moments]
    assert reserved == [100 * MIB, 160 * MIB, *[200 * MIB] * 5]
    assert drawn.peak is not None
    assert (drawn.peak.index, drawn.peak_bytes) == (2, 200 * MIB)
    assert [block.size_bytes // MIB for block in drawn.blocks] == [100, 60, 40]
    assert drawn.bands == (
        Band("load", 0, 1),
        Band("step 1", 1, 4),
        Band("<b>step</b> 2", 4, 7),
    )


def test_events_without_a_phase_belong_to_the_one_before() -> None:
    recorder = TraceRecorder()
    for block, phase in enumerate(("", "a", "", "a", "b", "")):
        recorder.allocate(block, MIB, Tags(phase=phase))
    assert series(recorder.finish()).bands == (Band("", 0, 1), Band("a", 1, 4), Band("b", 4, 6))


def test_the_stack_has_the_order_of_the_colours() -> None:
    recorder = TraceRecorder()
    for number, name in enumerate(reversed(COLOURS)):
        recorder.allocate(number, MIB, Tags(category=name))
    assert series(recorder.finish()).categories == tuple(COLOURS)
    assert len(set(COLOURS.values())) == 10


@pytest.mark.parametrize("events", [PARTS - 2, PARTS, PARTS + 2, 5000])
def test_thinning_keeps_the_peak_of_one_event(events: int) -> None:
    trace = long_run(events)
    drawn = series(trace)
    assert len(drawn.moments) == min(len(trace), PARTS)
    assert drawn.peak is not None
    assert drawn.peak_bytes == trace.requested_peak_bytes == 500 * MIB
    assert drawn.peak.index == trace.requested_peak_index
    ends = [moment.end for moment in drawn.moments]
    assert [moment.start for moment in drawn.moments] == [0, *ends[:-1]]
    assert ends[-1] == len(trace)
    assert all(each.start <= each.index < each.end for each in drawn.moments)
    assert max(each.reserved_bytes or 0 for each in drawn.moments) == drawn.peak_reserved_bytes


def test_the_reserved_peak_is_kept_where_the_timeline_lacks_it() -> None:
    recorder = TraceRecorder()
    recorder.allocate(1, 100 * MIB)
    recorder.free(1)
    recorder.allocate(2, 12 * MIB, Tags(stream=7))
    trace = recorder.finish()
    replayed = replay(trace, points=1)
    assert [point.reserved_bytes for point in replayed.timeline] == [100 * MIB]
    drawn = Series.of(trace, replayed, title="mine")
    assert [moment.reserved_bytes for moment in drawn.moments] == [100 * MIB, 100 * MIB, 112 * MIB]


def test_nothing_is_reserved_behind_a_failure() -> None:
    trace = run()
    drawn = series(trace, 170 * MIB, 170 * MIB)
    assert drawn.failed_index == 2
    assert drawn.failed == trace[2]
    assert [moment.reserved_bytes for moment in drawn.moments[1:]] == [160 * MIB] * 2 + [None] * 4
    assert drawn.peak_reserved_bytes == 160 * MIB


def test_without_a_replay_nothing_is_reserved() -> None:
    drawn = Series.of(run(), title="mine")
    assert drawn.peak_reserved_bytes is None
    assert {moment.reserved_bytes for moment in drawn.moments} == {None}
    assert "allocator" not in drawn.subtitle
    assert elements(timeline_svg(drawn), "path", "vt-reserved") == []


@pytest.mark.parametrize(
    ("budget", "is_drawn"), [(400 * MIB, True), (400 * MIB + 1, False), (10 * MIB, True)]
)
def test_a_budget_far_above_is_named_and_not_drawn(budget: int, is_drawn: bool) -> None:
    drawn = series(run(), budget)
    assert drawn.draws_budget == is_drawn
    svg = timeline_svg(drawn)
    lines = [path for path in elements(svg, "path", "vt-budget") if "H" in str(path.get("d"))]
    assert len(lines) == int(is_drawn)
    assert ("above this scale" in svg) == (not is_drawn)
    assert drawn.top_bytes == pytest.approx(
        1.09 * (max(200 * MIB, budget) if is_drawn else 200 * MIB), rel=1e-12, abs=0
    )


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
    assert [tick.label for tick in scale] == labels
    assert scale[-1].size_bytes <= top < scale[-1].size_bytes + scale[1].size_bytes * 1.001


def test_names_of_phases_do_not_overlap() -> None:
    frame = Frame(left=0, top=0, width=800, height=1, events=1000, top_bytes=1)
    bands = (Band("load", 0, 10), Band("wrap", 10, 12), Band("x", 12, 14), Band("step 1", 14, 1000))
    placed = labelled(bands, frame)
    assert [(name, row) for name, _, row in placed] == [("step 1", 0), ("load", 0), ("wrap", 1)]
    assert all(0 <= middle <= 800 for _, middle, _ in placed)


# The picture.


def test_areas_by_hand() -> None:
    drawn = series(run())
    painted = areas(timeline_svg(drawn))
    assert list(painted) == ["other", "saved activations", "base weights"]
    # 398 px high; 218 MiB to the top: 100 MiB are 182.6 px above the ground at 504.
    assert painted["base weights"] == "M72 504H72.0V321.4H898.0V504Z"
    # 826 px wide, 7 events: 118 px each.
    heights = {mib: f"{504 - 398 * mib / 218:.1f}" for mib in (100, 160, 200, 140)}
    assert painted["saved activations"] == (
        f"M72 504H72.0V{heights[100]}H190.0V{heights[160]}H308.0V{heights[200]}"
        f"H426.0V{heights[140]}H662.0V{heights[100]}H898.0V504Z"
    )


def test_the_picture_says_what_it_shows() -> None:
    svg = timeline_svg(series(run(), 300 * MIB))
    texts = [each.text for each in elements(svg, "text")]
    for text in (
        "mine",
        "load",
        "step 1",
        "<b>step</b> 2",
        "peak 200.00 MiB",
        "budget 300.00 MiB",
        "base weights",
        "100.00 MiB",
        "7",
        "reserved, most",
        "requested",
    ):
        assert text in texts
    legend = [text for text in texts if text in COLOURS]
    assert legend == ["other", "saved activations", "base weights"]
    dot = elements(svg, "circle", "vt-dot")[0]
    assert float(str(dot.get("cx"))) == pytest.approx(72 + 2.5 * 118, abs=0.05, rel=0)
    assert "prefers-color-scheme:dark" in svg
    assert "out of memory" in timeline_svg(series(run(), 170 * MIB, 170 * MIB))


def test_the_png_has_the_colours() -> None:
    from matplotlib.image import imread

    image = imread(io.BytesIO(timeline_png(series(run(), 300 * MIB))))
    assert image.shape[:2] == (855, 1800)
    pixels = (image[..., :3] * 255).round().astype(int)

    def share(name: str) -> float:
        colour = [int(COLOURS[name][at : at + 2], 16) for at in (1, 3, 5)]
        return float((pixels == colour).all(axis=2).mean())

    # Of the picture the plot takes 0.695 by 0.7, and 327 MiB are its height. The tolerance is for
    # lines, names and the edges of areas, which cover some of it, and for the legend.
    plot = 0.695 * 0.7 / (1.09 * 300)
    assert share("base weights") == pytest.approx(100 * plot, rel=0.03, abs=0)
    activations = (60 + 100 + 40 + 40) / 7
    assert share("saved activations") == pytest.approx(activations * plot, rel=0.06, abs=0)
    assert share("other") == pytest.approx(30 * 2 / 7 * plot, rel=0.12, abs=0)
    assert share("gradients") == 0
    # Each amount holds from its event on: 200 MiB are drawn over the third seventh of the width.
    for event, mib, name in (
        (1, 150, "saved activations"),
        (2, 190, "saved activations"),
        (3, 130, "saved activations"),
        (4, 160, "other"),
    ):
        x = round(1800 * (0.062 + 0.695 * (event + 0.3) / 7))
        y = round(855 * (0.895 - 0.7 * mib / 327))
        assert f"#{bytes(pixels[y, x].tolist()).hex()}" == COLOURS[name]


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
    write_timeline(
        file, trace, title="mine", budget_bytes=GIB, replayed=replay(trace, GIB, points=9)
    )
    content = file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    if suffix == ".png":
        assert content.startswith(b"\x89PNG")
    elif suffix in (".html", ".svg"):
        assert content.startswith(b"<!DOCTYPE html>" if suffix == ".html" else b"<svg ")
    elif suffix == ".pickle":
        assert trace_from_snapshot(pickle.loads(content)).requested_peak_bytes == (
            trace.requested_peak_bytes
        )
    else:
        assert Trace.load(file) == trace


def test_a_snapshot_is_taken_under_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "memory.pickle"
    write_timeline(str(file), run(), title="mine", budget_bytes=170 * MIB)
    events = pickle.loads(file.read_bytes())["device_traces"][0]
    assert events[-1]["action"] == "oom"


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
