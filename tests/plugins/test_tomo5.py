"""Detector tomo5: mdoc and frames recognised, the copies beside them not taken."""

from __future__ import annotations

from pathlib import Path

from plugins.feed_reading import CONTEXT, codes, sightings_of
from plugins.series_files import ANGLES, mdoc
from tiltd.plugins.tomo5 import Tomo5Detector

DETECTOR = Tomo5Detector({}, CONTEXT)


def frame_name(number: int, position: str = "Position_10_3") -> str:
    return f"{position}_{number + 1:03d}_{ANGLES[number]:.2f}_20241001_20490{number}_EER.eer"


def write_position(folder: Path, frames: Path, missing: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    frames.mkdir(parents=True, exist_ok=True)
    text = mdoc()
    for number in range(len(ANGLES)):
        text = text.replace(b"f_%d.eer" % number, frame_name(number).encode())
        if number < len(ANGLES) - missing:
            (frames / frame_name(number)).write_bytes(bytes([number]) * 100)
    (folder / "Position_10_3.mdoc").write_bytes(text)
    return folder / "Position_10_3.mdoc"


def test_a_series_of_frames(tmp_path: Path) -> None:
    write_position(tmp_path, tmp_path)
    (found,) = sightings_of(DETECTOR, tmp_path)
    assert found.kind == "frames" and found.series_key == "Position_10_3.mdoc"
    assert found.series is not None and not found.problems
    assert found.series.tilt_angles_deg == ANGLES and len(found.series.frame_paths) == 5
    assert found.series.local_names()[found.series.frame_paths[0]] == "frames/0001.eer"
    assert found.size_bytes == found.series.total_bytes


def test_frames_in_a_folder_beside(tmp_path: Path) -> None:
    write_position(tmp_path / "s", tmp_path / "s" / "frames")
    (found,) = sightings_of(DETECTOR, tmp_path)
    assert found.series is not None and found.series.frame_paths[0].startswith("s/frames/")


def test_frames_that_arrive_late_are_waited_for(tmp_path: Path) -> None:
    write_position(tmp_path, tmp_path, missing=2)
    (found,) = sightings_of(DETECTOR, tmp_path)
    assert codes(found) == {"frames_missing"} and found.series is None
    before = found.stat_signature
    write_position(tmp_path, tmp_path)
    (found,) = sightings_of(DETECTOR, tmp_path)
    assert found.series is not None and found.stat_signature != before


def test_empty_frames_are_not_there_yet(tmp_path: Path) -> None:
    write_position(tmp_path, tmp_path)
    (tmp_path / frame_name(1)).write_bytes(b"")
    (found,) = sightings_of(DETECTOR, tmp_path)
    assert codes(found) == {"frames_empty"} and found.series is None


def test_the_override_is_never_taken_for_the_series(tmp_path: Path) -> None:
    write_position(tmp_path, tmp_path)
    (tmp_path / "Position_10_3_override.mdoc").write_bytes(mdoc((50, 51, 52, 53, 54)))
    real, override = sightings_of(DETECTOR, tmp_path)
    assert real.series is not None and real.series.tilt_angles_deg == ANGLES
    assert override.not_series is not None and override.not_series.code == "override_copy"
    assert override.series is None


def test_files_of_the_session_and_mdocs_of_frames_are_ignored(tmp_path: Path) -> None:
    for name in ("Session.dm", "BatchPositionsList.xml", "SearchMap.xml", f"{frame_name(0)}.mdoc"):
        (tmp_path / name).write_bytes(b"[FrameSet = 0]\n")
    assert not sightings_of(DETECTOR, tmp_path)


def test_an_mdoc_without_frame_names_is_contradictory(tmp_path: Path) -> None:
    (tmp_path / "P.mdoc").write_bytes(mdoc().replace(b"SubFramePath", b"Other"))
    (found,) = sightings_of(DETECTOR, tmp_path)
    assert "frames_unnamed" in codes(found) and found.series is None
