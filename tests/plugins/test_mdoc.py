"""The mdoc parser, against mdocfile as an oracle and against the traps of real files."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.series_files import ANGLES, mdoc, section
from tiltd.plugins import mdoc as mdocs


def test_agrees_with_mdocfile(tmp_path: Path) -> None:
    from mdocfile.data_models import Mdoc as Oracle

    path = tmp_path / "x.mdoc"
    path.write_bytes(mdoc())
    oracle = Oracle.from_file(path)
    found = mdocs.parse(mdoc())
    assert [image.figure("TiltAngle") for image in found.images] == [
        block.TiltAngle for block in oracle.section_data
    ]
    assert mdocs.global_or_common(found, "Voltage") == oracle.global_data.Voltage
    assert len(found.titles) == len(oracle.titles)


def test_titles_globals_and_figures() -> None:
    found = mdocs.parse(mdoc())
    assert found.whole and not found.problems
    assert mdocs.tilt_axis_deg(found) == 85.3
    assert mdocs.image_size(found.entries) == (8, 6)
    assert mdocs.total_dose_e_per_a2(found.images) == 15
    assert mdocs.first_acquired(found.images) == "12-Oct-2024  10:00:00"
    assert mdocs.largest_recent_gap_seconds(found.images) == 60


def test_without_the_title_the_axis_is_90_degrees_from_rotation_angle() -> None:
    found = mdocs.parse(mdoc().replace(b"Tilt axis angle", b"Something else"))
    assert mdocs.tilt_axis_deg(found) == pytest.approx(85.3)


def test_keys_in_any_order_blanks_empty_nan_crlf_and_latin1() -> None:
    text = (
        b"Voltage=300\r\n\r\n[ZValue = 0]\r\nDateTime =\r\n  TiltAngle   =   3.5  \r\nDefocus = NaN\r\n"
        b"Note = 5 \xb5m\r\n[ ZValue = 1 ]\r\nTiltAngle = nan\r\nStageZ = -1.#IND\r\n"
    )
    found = mdocs.parse(text)
    first, second = found.images
    assert first.figure("TiltAngle") == 3.5
    assert first.figure("Defocus") is None and first.entries["DateTime"] == ""
    assert first.entries["Note"] == "5 µm"
    assert second.number == 1 and second.figure("TiltAngle") is None and second.figure("StageZ") is None
    assert not found.problems and found.whole


def test_what_stands_before_the_equals_sign_is_a_key_on_every_line_anew() -> None:
    """The same key may come with and without blanks and value; without the sign it is noise."""
    text = b"[ZValue = 0]\nTilt = 1\nTilt\nTilt= 2 = 3\n9x = 4\n9x = 5\n= 6\nTilt  \t=7\n" + b"Tilt\n" * 16
    assert mdocs.parse(text).images[0].entries == {"Tilt": "7"}
    assert mdocs.parse(text + b"9x = 8\n").problems[0].code == "mdoc_noise", "the 21st line of noise"
    assert mdocs.seconds_of("12-Oct-2024 10:00:00" + " " * 100) == mdocs.seconds_of("12-Oct-2024 10:00:00")


def test_no_section_is_lost_whatever_the_order_of_keys() -> None:
    rng = random.Random(5)
    blocks = []
    for number in range(41):
        heading, *lines = section(number, number, number).strip().split("\n")
        rng.shuffle(lines)
        blocks.append("\n".join([heading, *lines]))
    found = mdocs.parse("\n".join(blocks).encode() + b"\n")
    assert [image.figure("TiltAngle") for image in found.images] == list(range(41))


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_a_half_written_mdoc_is_not_whole(cut: int) -> None:
    found = mdocs.parse(mdoc().rstrip(b"\n")[:-cut])
    assert not found.whole
    assert len(found.images) == len(ANGLES)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"[ZValue = 2]", b"[ZValue = 7]", "zvalue_gap"),
        (b"[ZValue = 2]", b"[ZValue = 1]", "zvalue_twice"),
        (b"[ZValue = 2]", b"[ZValue = two]", "zvalue_unreadable"),
    ],
)
def test_numbering_faults_have_codes(old: bytes, new: bytes, code: str) -> None:
    assert [problem.code for problem in mdocs.parse(mdoc().replace(old, new)).problems] == [code]


def test_montage_and_frame_set() -> None:
    assert mdocs.parse(mdoc(montage=True)).is_montage
    assert mdocs.parse(b"T = x\n[FrameSet = 0]\nTiltAngle = 3\n").is_frame_set
    assert not mdocs.parse(mdoc()).is_montage and not mdocs.parse(mdoc()).is_frame_set


@pytest.mark.parametrize(
    "text",
    [
        "12-Oct-2024  14:22:31",
        "12-Oct-2024 14:22:31",
        "12-Oct-24  14:22:31",
        "2024-Oct-12 14:22:31",
        "2024-10-12 14:22:31",
        "12-OCT-2024  14:22:31",
    ],
)
def test_every_way_to_write_a_date_is_the_same_instant(text: str) -> None:
    assert mdocs.seconds_of(text) == mdocs.seconds_of("12-Oct-2024 14:22:31") == 1728742951


@pytest.mark.parametrize(
    "text",
    ["", " ", "NaN", "12-Foo-2024 10:00:00", "99-Oct-2024 10:00:00", "12-Oct-0000 10:00:00", "10:00:00"],
)
def test_an_unreadable_date_is_none(text: str) -> None:
    assert mdocs.seconds_of(text) is None


def test_gaps_do_not_depend_on_the_order_of_sections() -> None:
    blocks = [section(n, a, s) for n, (a, s) in enumerate([(0, 0), (-3, 400), (3, 30), (6, 60)])]
    assert mdocs.largest_recent_gap_seconds(mdocs.parse("".join(blocks).encode()).images) == 340


def test_only_recent_gaps_count() -> None:
    times = [0, 4000, *range(4010, 4200, 10)]
    blocks = "".join(section(n, n, time_) for n, time_ in enumerate(times))
    assert mdocs.largest_recent_gap_seconds(mdocs.parse(blocks.encode()).images) == 10


def test_ten_megabytes_of_noise_are_refused_quickly() -> None:
    noise = random.Random(1).randbytes(10_000_000)
    started = time.process_time()
    assert [problem.code for problem in mdocs.parse(noise).problems] == ["mdoc_too_large"]
    assert [problem.code for problem in mdocs.parse(noise[:7_000_000]).problems] == ["mdoc_noise"]
    assert [problem.code for problem in mdocs.parse(b"[ZValue = 1]\n" * 600_000).problems] == ["mdoc_noise"]
    assert mdocs.parse(b"a" * 8_000_000).images == ()
    assert time.process_time() - started < 5


@given(st.binary(max_size=3000))
def test_never_raises(data: bytes) -> None:
    found = mdocs.parse(data)
    mdocs.tilt_axis_deg(found)
    mdocs.total_dose_e_per_a2(found.images)
    mdocs.largest_recent_gap_seconds(found.images)


@given(st.text(max_size=40))
def test_no_date_raises(text: str) -> None:
    mdocs.seconds_of(text)


def test_last_part_of_a_windows_path() -> None:
    assert mdocs.last_part(r"\\cam\X\frames\a b_001.eer ") == "a b_001.eer"
    assert mdocs.last_part("D:/frames/a.eer") == "a.eer"
