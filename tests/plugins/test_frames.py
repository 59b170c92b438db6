"""Frames to a stack: the step, what it is refused for, and a whole run of Tomography 5's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.policy_scene import Scene, sighting
from plugins.conformance_pipelines import CONTEXT, PLACEMENT, make_series
from plugins.feed_reading import codes, sightings_of
from plugins.series_files import ANGLES, mdoc, write_series
from shell.runner_site import RunnerSite
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import FilePrint, Fingerprint, Options, Outcome, State, TiltSeries
from tiltd.daemon.jobfile import check_steps, input_files
from tiltd.daemon.microscope import SCENARIOS, Optics, Session
from tiltd.plugins.api import Permanent, takes
from tiltd.plugins.command import CommandPipeline
from tiltd.plugins.frames import OPTIONS, FramesStep, frames_step, takes_frames
from tiltd.plugins.options import read_options
from tiltd.plugins.serialem import SerialEmDetector, SerialEmFramesDetector
from tiltd.plugins.tomo5 import Tomo5Detector
from tiltd.plugins.wbp import WbpPipeline

TEMPLATE = "alignframes -list {frames_list} -tilt {angles} -output {stack} -gpu 0"
STANDIN = Path(__file__).parents[1] / "standin" / "alignframes.py"
USING = SerialEmFramesDetector({}, CONTEXT)


def of_frames(angles: tuple[float, ...] = (0.0, 3.0, -3.0, -6.0, 6.0), **changes: Any) -> TiltSeries:
    """Shot from the middle outwards, by names that tell nothing."""
    paths = tuple(f"g/{'abcdefgh'[number]} $(x).eer" for number in range(len(angles)))
    prints = tuple(
        FilePrint(relative_path=path, size_bytes=1000, piece_bytes=65536, head_sha256="a" * 64)
        for path in ("g/P.mdoc", *paths)
    )
    known: dict[str, Any] = {
        "kind": "frames",
        "stack_path": "",
        "mdoc_path": "g/P.mdoc",
        "frame_paths": paths,
        "tilt_angles_deg": angles,
        "fingerprint": Fingerprint(files=prints),
        "image_size": (4096, 2048),
        "pixel_spacing_angstrom": 1.5,
    }
    return make_series(**(known | changes))


def step_of(series: TiltSeries, options: Options | None = None) -> FramesStep:
    return frames_step("p", series, read_options("p", OPTIONS, {"frames": TEMPLATE}, options or {}))


def test_frames_are_listed_by_rising_angle() -> None:
    made = step_of(of_frames())
    texts = {file.name: file.text for file in made.files}
    assert texts["frames.tlt"] == "-6.0\n-3.0\n0.0\n3.0\n6.0\n"
    numbers = [line.removeprefix("input/frames/") for line in texts["frames.txt"].splitlines()]
    assert numbers == ["0004.eer", "0003.eer", "0001.eer", "0002.eer", "0005.eer"]
    assert made.step.argv == (
        *("alignframes", "-list", "{input}/frames.txt", "-tilt", "{input}/frames.tlt"),
        *("-output", "{input}/stack.mrc", "-gpu", "0"),
    )
    assert made.series.kind == "stack" and made.series.tilt_angles_deg == (-6.0, -3.0, 0.0, 3.0, 6.0)
    assert made.stack_bytes == 1024 + 5 * 4096 * 2048 * 4


def test_tilts_that_were_shot_again_stay_in_their_order() -> None:
    made = step_of(of_frames((3.0, 0.0, 3.0, -3.0, 0.0)))
    numbers = [line[-8:-4] for line in made.files[0].text.splitlines()]
    assert numbers == ["0004", "0002", "0005", "0001", "0003"]


def test_binning_changes_the_stack() -> None:
    made = step_of(of_frames(), {"frames": "f {binning} {stack}", "frames_binning": 2, "frames_mode": 1})
    assert made.step.argv[1] == "2"
    assert made.series.image_size == (2048, 1024) and made.series.pixel_spacing_angstrom == 3.0
    assert made.series.mode == 1 and made.stack_bytes == 1024 + 5 * 2048 * 1024 * 2


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({"frames": ""}, {}, "option frames is empty"),
        ({"frames": "a 'b"}, {}, "cannot be split into words"),
        ({"frames": "a {stak}"}, {}, "unknown field {stak}; known are frames_list"),
        ({"frames": "a {tilt_axis_deg}"}, {"tilt_axis_deg": None}, "no tilt_axis_deg, which the option"),
        ({"frames_mode": 3}, {}, "option frames_mode is 3; MRC modes of stacks are 0, 1, 2"),
        ({}, {"image_size": (0, 0)}, "has no ImageSize"),
        ({}, {"frame_paths": ("g/a.eer",)}, "5 tilt angles and 1 files of frames"),
    ],
)
def test_what_is_refused(options: Options, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Permanent, match=words):
        step_of(of_frames(**changes), options)


def test_only_a_pipeline_with_a_program_takes_frames() -> None:
    wbp = WbpPipeline({}, CONTEXT)
    assert takes(wbp, "stack", {}) and not takes(wbp, "frames", {}) and takes(wbp, "frames", {"frames": "x"})
    assert takes(WbpPipeline({"frames": "x"}, CONTEXT), "frames", {})
    assert not takes(CommandPipeline({}, CONTEXT), "frames", {"frames": "x"})
    assert not takes_frames({"frames": "x"}, {"frames": " "}), "a feed can take it back"


class TakesFrames:
    def takes_frames(self, options: Options) -> bool:
        return bool(options.get("frames"))


def test_frames_are_held_until_a_program_is_given() -> None:
    scene = Scene()
    scene.pipelines["p"].takes_frames = TakesFrames().takes_frames  # type: ignore[attr-defined]
    seen = sighting("TS", 10**9, "1", {})
    assert seen.series is not None
    seen = replace(seen, kind="frames", series=replace(seen.series, kind="frames"))
    scene.step(o.FilesObserved, feed="f", up=True, sightings=(seen,), gone=())
    scene.wait(3.0)
    held = scene.of("TS")
    assert [hold.cause for hold in held.holds] == ["no_pipeline"]
    assert "takes stacks, unless its option frames names a program" in held.holds[0].detail
    scene.adopt('[[rule]]\nname = "r"\nset = { options = { frames = "alignframes" } }')
    assert scene.state("TS") is State.RESERVED and not scene.of("TS").holds


def test_wbp_asks_for_the_room_of_the_stack_that_is_made() -> None:
    frames, stack = of_frames(), make_series(tilt_angles_deg=(-6.0, -3.0, 0.0, 3.0, 6.0))
    options: Options = {"frames": TEMPLATE}
    wbp = WbpPipeline({}, CONTEXT)
    asked = wbp.request(frames, options)
    made = step_of(frames)
    as_stack = replace(made.series, stack_path="s.mrc", fingerprint=stack.fingerprint)
    plain = wbp.request(as_stack, {})
    grown = frames.total_bytes + made.stack_bytes - stack.total_bytes
    assert asked.scratch_bytes - plain.scratch_bytes == pytest.approx(grown, abs=1e6)
    steps = wbp.steps(frames, options, PLACEMENT)
    check_steps(steps)
    assert [step.name for step in steps.steps] == ["frames", "reconstruct"]
    assert "{input}/stack.mrc" in steps.steps[1].argv


def test_tomography_5_from_the_microscope_to_the_tomogram(tmp_path: Path) -> None:
    """The synthetic microscope's files, the detector, the pipeline, the real runner, a stand-in program."""
    site = RunnerSite(tmp_path)
    optics = Optics(width_px=64, height_px=64, noise_counts=2.0, max_shift_px=1.0)
    session = Session(folder=site.feed, name="Position_10_3", optics=optics, tilt_count=21)
    for _, action in SCENARIOS["tomo5"](session):
        action()
    found = [s for s in sightings_of(Tomo5Detector({}, CONTEXT), site.feed) if s.series is not None]
    assert len(found) == 1 and found[0].series is not None
    series = found[0].series
    assert series.tilt_angles_deg[0] == 0.0, "shot from the middle outwards"

    wbp = WbpPipeline({}, CONTEXT)
    words = "-list {frames_list} -tilt {angles} -output {stack} -binning {binning}"
    options: Options = {"frames": f"{{python}} '{STANDIN}' {words}"}
    asked = wbp.request(series, options)
    steps = wbp.steps(series, options, replace(PLACEMENT, memory_bytes=asked.memory_bytes))
    plain: dict[str, Any] = msgspec.to_builtins(steps)
    for step in plain["steps"]:
        step["environment"] = {"PYTHONPATH": str(Path(__file__).parents[1] / "_path")}
    before = {path: path.read_bytes() for path in site.feed.iterdir()}
    site.prepare(
        *plain["steps"],
        texts=plain["files"],
        memory_bytes=asked.memory_bytes,
        scratch={"path": str(site.scratch), "bytes": asked.scratch_bytes, "ballast": True},
        input={"root": str(site.feed), "files": input_files(series)},
        output=site.document()["output"] | {"results": plain["results"]},
    )
    site.run()
    end = site.seen().end
    assert end is not None and end.outcome == "success", (end, end and end.log_tail)
    assert wbp.judge(Outcome(end=end)).verdict == "good"
    assert set(end.measured.step_seconds) >= {"frames", "reconstruct"}
    tilts = [view["tilt_deg"] for view in json.loads((site.staging / "alignment.json").read_text())["views"]]
    assert tilts == sorted(series.tilt_angles_deg)
    curves = json.loads((site.staging / "curves.json").read_text())["curves"]
    assert [len(curve["points"]) for curve in curves] == [21, 21]
    assert before == {path: path.read_bytes() for path in site.feed.iterdir()}, "the feed is only read"
    assert end.measured.peak_scratch_bytes <= asked.scratch_bytes


# -- SerialEM's frames ------------------------------------------------------------------------------------


def write_frames(folder: Path, count: int = len(ANGLES)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"f_{number}.eer").write_bytes(bytes([number]) * 100)


def test_serialem_frames_with_and_without_a_stack(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    write_frames(tmp_path / "s" / "frames")
    (with_stack,) = sightings_of(USING, tmp_path)
    (tmp_path / "s" / "g1_ts_001.mrc").unlink()
    (without,) = sightings_of(USING, tmp_path)
    for found in (with_stack, without):
        assert (found.series_key, found.kind, found.tilt_series_name) == (
            "s/g1_ts_001.mrc",
            "frames",
            "g1_ts_001",
        )
        assert found.series is not None and not found.problems
        assert found.series.frame_paths == tuple(f"s/frames/f_{n}.eer" for n in range(5))
        assert found.series.tilt_angles_deg == ANGLES and found.series.image_size == (8, 6)
        assert "s/g1_ts_001.mrc" not in found.series.input_paths


def test_serialem_frames_that_are_late_are_waited_for(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_frames(tmp_path / "frames", 3)
    (found,) = sightings_of(USING, tmp_path)
    assert codes(found) == {"frames_missing"} and found.series is None


def test_serialem_frames_of_this_series_change_its_signature(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "frames").mkdir()
    (before,) = sightings_of(USING, tmp_path, lambda key: False)
    (tmp_path / "frames" / "g1_ts_001_001_0.0.tif").write_bytes(b"frames")
    (after,) = sightings_of(USING, tmp_path, lambda key: False)
    (tmp_path / "frames" / "g1_ts_0011_001_0.0.tif").write_bytes(b"another series")
    (other,) = sightings_of(USING, tmp_path, lambda key: False)
    assert before.stat_signature != after.stat_signature == other.stat_signature


def test_serialem_frames_are_no_series_of_their_own(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(tmp_path / "frames", "f_0.mrc")
    Path(f"{tmp_path}/g1_ts_001.mrc.openTS").touch()
    (found,) = sightings_of(USING, tmp_path)
    assert found.series_key == "g1_ts_001.mrc" and found.blockers == ("openTS",)


def test_the_detector_of_stacks_takes_the_stack(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_frames(tmp_path / "frames")
    (found,) = sightings_of(SerialEmDetector({}, CONTEXT), tmp_path)
    assert found.kind == "stack" and found.series is not None and found.series.stack_path


def test_maps_are_no_series_of_frames(tmp_path: Path) -> None:
    write_series(tmp_path, "g1_view.mrc")
    (tmp_path / "map.mrc.mdoc").write_bytes(mdoc(montage=True))
    found = {s.series_key: s.not_series for s in sightings_of(USING, tmp_path)}
    assert {key: problem.code for key, problem in found.items() if problem} == {
        "g1_view.mrc": "view_image",
        "map.mrc": "montage",
    }
