"""Detector serialem against every trap of the acquisition notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.feed_reading import CONTEXT, codes, sightings_of
from plugins.series_files import ANGLES, mdoc, stack, write_series
from tiltd.daemon.core.model import Sighting
from tiltd.plugins.serialem import SerialEmDetector

DETECTOR = SerialEmDetector({}, CONTEXT)


def one(root: Path, opened: bool = True) -> Sighting:
    found = sightings_of(DETECTOR, root, lambda key: opened)
    assert len(found) == 1, [sighting.series_key for sighting in found]
    return found[0]


def test_a_whole_series(tmp_path: Path) -> None:
    write_series(tmp_path / "grid1")
    found = one(tmp_path)
    assert found.series_key == "grid1/g1_ts_001.mrc" and found.tilt_series_name == "g1_ts_001"
    assert not found.problems and found.not_series is None and not found.blockers
    series = found.series
    assert series is not None
    assert series.tilt_angles_deg == ANGLES and series.image_size == (8, 6) and series.mode == 1
    assert (series.pixel_spacing_angstrom, series.voltage_kv, series.tilt_axis_deg) == (2.5, 300, 85.3)
    assert series.input_paths == ("grid1/g1_ts_001.mrc", "grid1/g1_ts_001.mrc.mdoc")
    assert found.section_count == 5 and found.largest_gap_seconds == 60


def test_st_with_rawtlt(tmp_path: Path) -> None:
    write_series(tmp_path, "NAME.st")
    (tmp_path / "NAME.rawtlt").write_text("0\n")
    found = one(tmp_path)
    assert found.series is not None and found.series.rawtlt_path == "NAME.rawtlt"
    assert found.series.local_names()["NAME.rawtlt"] == "stack.rawtlt"


def test_growing_files_are_not_opened(tmp_path: Path) -> None:
    write_series(tmp_path)
    found = one(tmp_path, opened=False)
    assert found.series is None and found.section_count == 0 and not found.problems
    assert found.stat_signature == one(tmp_path).stat_signature


def test_any_change_of_size_or_time_changes_the_signature(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    before = one(tmp_path, opened=False).stat_signature
    Path(f"{path}.openTS").touch()
    assert one(tmp_path, opened=False).stat_signature != before


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("g1_tgt_001.mrc", "target_image"),
        ("g1_view.mrc", "view_image"),
        ("g1_tempref.mrc", "template_reference"),
        ("g1_anchor.mrc", "anchor_map"),
        ("g1_anchor_view2.mrc", "anchor_map"),
        ("g1_trial01.mrc", "trial_image"),
        ("CountRef_gain.mrc", "gain_reference"),
        ("g1_ts_001_unsorted.mrc", "unsorted_copy"),
        ("g1_ts_001_override.mrc", "override_copy"),
    ],
)
def test_names_that_are_no_tilt_series(tmp_path: Path, name: str, code: str) -> None:
    write_series(tmp_path, name)
    found = one(tmp_path, opened=False)
    assert found.not_series is not None and found.not_series.code == code


def test_a_name_that_ends_in_ts_number_is_never_excluded(tmp_path: Path) -> None:
    write_series(tmp_path, "again_trial_view_p02_ts_003.mrc")
    assert one(tmp_path).not_series is None


def test_trap_1_angles_shot_again_are_legal(tmp_path: Path) -> None:
    write_series(tmp_path, angles=(0, 3, 3, -3, -3, 6))
    found = one(tmp_path)
    assert not found.problems and found.series is not None and found.series.tilt_count == 6


def test_trap_2_angles_stand_in_the_order_of_sections(tmp_path: Path) -> None:
    angles = (0.0, 3.0, -3.0, -6.0, 6.0)
    write_series(tmp_path, angles=angles)
    found = one(tmp_path)
    assert found.series is not None and found.series.tilt_angles_deg == angles


def test_trap_3_leftovers_beside_the_real_files_are_not_taken(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    for suffix in ("~", ".mdoc~", ".bak"):
        Path(f"{path}{suffix}").write_bytes(mdoc((1, 2, 3)))
    found = one(tmp_path)
    assert found.series is not None and found.series.tilt_angles_deg == ANGLES


def test_trap_3_an_unsorted_mdoc_is_no_series_and_no_sign(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "g1_ts_001_unsorted.mrc.mdoc").write_bytes(mdoc())
    real, other = sorted(sightings_of(DETECTOR, tmp_path), key=lambda found: found.not_series is not None)
    assert not real.blockers and not real.positive_signs
    assert other.not_series is not None and other.not_series.code == "unsorted_copy"


def test_trap_3_frame_folders_and_frame_mdocs(tmp_path: Path) -> None:
    write_series(tmp_path / "frames", "f_001.mrc")
    assert not sightings_of(DETECTOR, tmp_path)
    path = write_series(tmp_path / "other", "f_002.mrc")
    Path(f"{path}.mdoc").write_bytes(b"T = x\n[FrameSet = 0]\nTiltAngle = 3\n")
    found = one(tmp_path)
    assert found.not_series is not None and found.not_series.code == "frame_set"


def test_trap_9_half_written_mdoc(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    Path(f"{path}.mdoc").write_bytes(mdoc()[:-30])
    assert "mdoc_half_written" in codes(one(tmp_path))


def test_trap_10_montage(tmp_path: Path) -> None:
    path = write_series(tmp_path, "map.mrc")
    Path(f"{path}.mdoc").write_bytes(mdoc(montage=True))
    found = one(tmp_path)
    assert found.not_series is not None and found.not_series.code == "montage"


@pytest.mark.parametrize(("angles", "code"), [((0, 3), "few_sections"), ((0, 0.2, 0.9, 0.5), "flat_angles")])
def test_trap_10_few_and_flat(tmp_path: Path, angles: tuple[float, ...], code: str) -> None:
    write_series(tmp_path, angles=angles)
    found = one(tmp_path)
    assert found.not_series is not None and found.not_series.code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda whole: whole[:-1], "size_short"),
        (lambda whole: whole + b"x", "size_long"),
        (lambda whole: whole[:1000], "header_truncated"),
        (lambda whole: b"\xff" * len(whole), "header_garbage"),
        (lambda whole: bytes(len(whole)), "header_empty"),
        (lambda whole: stack(4), "sections_mismatch"),
        (lambda whole: stack(5, nx=9), "image_size_mismatch"),
    ],
)
def test_contradictions_have_codes(tmp_path: Path, change: object, code: str) -> None:
    path = write_series(tmp_path)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    assert code in codes(one(tmp_path))


def test_in_flight_the_file_is_one_section_ahead(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(96))
    found = one(tmp_path)
    assert codes(found) == {"size_long"} and found.series is not None


def test_a_section_without_angle(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    Path(f"{path}.mdoc").write_bytes(mdoc().replace(b"TiltAngle = 3.0", b"TiltAngle = NaN"))
    found = one(tmp_path)
    assert codes(found) == {"angle_missing"} and found.series is None


def test_a_stack_without_mdoc_waits(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    Path(f"{path}.mdoc").unlink()
    for opened in (False, True):
        found = one(tmp_path, opened)
        assert codes(found) == {"mdoc_missing"} and found.series is None and found.not_series is None


@pytest.mark.parametrize(
    ("suffix", "blocker"),
    [
        (".openTS", "openTS"),
        ("-unsorted", "unsorted"),
        ("-unsorted.mdoc", "unsorted"),
        (".mdoc-unsorted", "unsorted"),
        ("-half1", "half1"),
    ],
)
def test_signs_that_acquisition_is_at_work(tmp_path: Path, suffix: str, blocker: str) -> None:
    path = write_series(tmp_path)
    Path(f"{path}{suffix}").touch()
    assert one(tmp_path).blockers == (blocker,)


def test_while_sorting_the_series_does_not_vanish(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    path.rename(f"{path}-unsorted")
    Path(f"{path}.mdoc").rename(f"{path}.mdoc-unsorted")
    found = one(tmp_path)
    assert found.blockers == ("unsorted",) and "stack_missing" in codes(found)


def test_a_stale_open_ts_alone_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.mrc.openTS").touch()
    assert not sightings_of(DETECTOR, tmp_path)


def test_a_sentinel_is_a_positive_sign(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    Path(f"{path}.done").touch()
    assert one(tmp_path).positive_signs == ("sentinel",)


def test_any_byte_of_mdoc_and_of_the_ends_of_the_stack_changes_the_digest(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    digests = set()
    for at in (1024 + 64, -1):
        whole = bytearray(stack())
        whole[at] ^= 1
        path.write_bytes(whole)
        digests.add(one(tmp_path).series.fingerprint.digest)  # type: ignore[union-attr]
    Path(f"{path}.mdoc").write_bytes(mdoc().replace(b"-2.25", b"-2.26"))
    digests.add(one(tmp_path).series.fingerprint.digest)  # type: ignore[union-attr]
    assert len(digests) == 3


@pytest.mark.parametrize("name", [b"a b'\"\n$(x)_ts_001.mrc", b"-rf_ts_1.mrc", b"\xff\xfe_ts_1.st"])
def test_hostile_names_stay_what_they_are(tmp_path: Path, name: bytes) -> None:
    write_series(tmp_path, name)
    found = one(tmp_path)
    assert found.series is not None and found.series_key.encode("utf-8", "surrogateescape") == name
    assert found.series.fingerprint.digest
