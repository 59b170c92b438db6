"""The synthetic microscope, with mrcfile and mdocfile as oracles, at every step of every scenario."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from mdocfile.data_models import Mdoc

from shell.acquired import angles, header, section_numbers, sections_in_file
from tiltd.daemon.microscope import (
    HOSTILE_NAMES,
    SCENARIOS,
    Action,
    Optics,
    Phantom,
    Session,
    Step,
    dose_symmetric,
    play,
    scenario_paths,
    together,
)
from tiltd.daemon.microscope.stack import float_as_shorts

OPTICS = Optics(width_px=24, height_px=20)
STACK_SCENARIOS = sorted(set(SCENARIOS) - {"tomo5", "mixed"})


def session(folder: Path, **changes: Any) -> Session:
    small: dict[str, Any] = {"optics": OPTICS, "tilt_count": 9, "targets": 2}
    return Session(folder=folder, **(small | changes))


def run(steps: Any) -> list[Step]:
    done = []
    for step in steps:
        step.action()
        done.append(step)
    return done


@pytest.mark.parametrize("scenario", STACK_SCENARIOS)
def test_header_size_and_mdoc_run_ahead_of_each_other_by_one_at_most(scenario: str, tmp_path: Path) -> None:
    extended: dict[Path, int] = {}
    for _, action in SCENARIOS[scenario](session(tmp_path, sort_in_place=True)):
        action()
        if action.what == "truncate":
            continue
        for stack in tmp_path.glob("*.mrc"):
            head, mdoc = header(stack), stack.with_name(stack.name + ".mdoc")
            assert sections_in_file(stack) - head["nz"] in (0, 1), action
            assert extended.setdefault(stack, head["next"]) == head["next"], "next stays as it is"
            aside = any(
                stack.with_name(stack.name + tail).exists() for tail in ("-unsorted.mdoc", "-half1.mdoc")
            )
            if mdoc.exists() or not aside:  # else it is between its two renames
                numbers = section_numbers(mdoc)
                assert head["nz"] - len(numbers) in (0, 1), action
                assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("scenario", sorted(set(STACK_SCENARIOS) - {"truncated", "crashed"}))
def test_at_rest_the_oracles_find_nothing_wrong(scenario: str, tmp_path: Path) -> None:
    run(SCENARIOS[scenario](session(tmp_path, sort_in_place=True)))
    for stack in tmp_path.glob("*.mrc"):
        assert mrcfile.validate(stack, print_file=open(os.devnull, "w")), stack  # noqa: SIM115
        with mrcfile.open(stack) as mrc:
            assert mrc.header.mode == 1
            assert bytes(mrc.header.map) == b"MAP "
            assert mrc.voxel_size.x == pytest.approx(OPTICS.pixel_spacing_angstrom, rel=1e-5)
            assert int(mrc.header.dmin) <= int(mrc.data.min()) <= int(mrc.data.max()) <= int(mrc.header.dmax)
            assert mrc.header.nlabl == 2
            assert b"Tilt axis angle = 85.3" in bytes(mrc.header.label[1])
            count = mrc.data.shape[0] if mrc.data.ndim == 3 else 1
        document = Mdoc.from_file(str(stack) + ".mdoc")
        assert [section.ZValue for section in document.section_data] == list(range(count))
        assert document.global_data.ImageFile == Path(stack.name)
        assert document.global_data.ImageSize == (24, 20)
        assert "Tilt axis angle = 85.3," in document.titles[1]
        first = document.section_data[0]
        assert first.RotationAngle == pytest.approx(175.3)
        assert first.ExposureDose == 3.0 and first.PixelSpacing == 13.4
        assert first.StagePosition is not None and len(first.StagePosition) == 2
        assert re.fullmatch(r"\d\d-[A-Z][a-z]{2}-\d{4}  \d\d:\d\d:\d\d", first.DateTime or "")


def test_each_image_is_pixels_header_extended_header_and_mdoc_last(tmp_path: Path) -> None:
    steps = SCENARIOS["serialem"](session(tmp_path, interval_seconds=7.0))
    stack, mdoc = tmp_path / "TS_01.mrc", tmp_path / "TS_01.mrc.mdoc"
    run(itertools.islice(steps, 1))
    assert header(stack)["nz"] == 0 and sections_in_file(stack) == 0 and not mdoc.exists()
    delay, action = next(steps)
    action()
    assert (delay, action.what) == (7.0, "pixels")
    assert header(stack)["nz"] == 0 and sections_in_file(stack) == 1, "one section ahead of nz"
    run(itertools.islice(steps, 1))
    assert header(stack)["nz"] == 1 and not mdoc.exists(), "nz one ahead of the mdoc"
    assert [step.action.what for step in run(itertools.islice(steps, 2))] == ["extended", "mdoc"]
    assert section_numbers(mdoc) == [0]
    assert struct.unpack_from("<7h", stack.read_bytes(), 1024)[0] == -6000


def test_nothing_is_written_before_an_action_is_called(tmp_path: Path) -> None:
    next(SCENARIOS["pace"](session(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_dose_symmetric_is_put_in_order_through_an_unsorted_pair(tmp_path: Path) -> None:
    seen, restarted_from_one, shot = set(), False, []
    for _, action in SCENARIOS["dose-symmetric"](session(tmp_path)):
        action()
        names = frozenset(path.name for path in tmp_path.iterdir())
        seen.add(names)
        if "TS_01.mrc-unsorted" not in names:
            shot = angles(tmp_path / "TS_01.mrc.mdoc") if "TS_01.mrc.mdoc" in names else []
            if len(shot) == 9 and shot != sorted(shot):
                assert shot == dose_symmetric(shot)
        elif "TS_01.mrc" in names:
            restarted_from_one |= header(tmp_path / "TS_01.mrc")["nz"] == 1
            if header(tmp_path / "TS_01.mrc")["nz"] < 9:
                assert "TS_01.mrc.openTS" in names or header(tmp_path / "TS_01.mrc")["nz"] == 0
    assert restarted_from_one
    pair = {"TS_01.mrc-unsorted", "TS_01.mrc-unsorted.mdoc"}
    assert any(pair | {"TS_01.mrc", "TS_01.mrc.mdoc", "TS_01.mrc.openTS"} <= names for names in seen)
    assert names == {"TS_01.mrc", "TS_01.mrc.mdoc"}
    whole = tmp_path / "TS_01.mrc"
    assert angles(tmp_path / "TS_01.mrc.mdoc") == session(tmp_path).angles_deg()
    phantom = Phantom(1, OPTICS)
    with mrcfile.open(whole) as mrc:
        for section, angle in zip(mrc.data, session(tmp_path).angles_deg(), strict=True):
            assert np.array_equal(section, phantom.image(angle)), "pixels moved with their section"


def test_the_marker_and_the_mdoc_go_before_the_unsorted_stack_is_renamed(tmp_path: Path) -> None:
    """The state that fools a rule which trusts a vanished marker: a whole stack, no marker, no mdoc."""
    states = []
    for _, action in SCENARIOS["dose-symmetric"](session(tmp_path)):
        action()
        names = {path.name for path in tmp_path.iterdir()}
        if names == {"TS_01.mrc", "TS_01.mrc-unsorted.mdoc"}:
            states.append(header(tmp_path / "TS_01.mrc")["nz"])
    assert states == [9]


def test_bidirectional_goes_through_a_first_half(tmp_path: Path) -> None:
    halves = set()
    for _, action in SCENARIOS["bidirectional"](session(tmp_path)):
        action()
        half = tmp_path / "TS_01.mrc-half1"
        if half.exists():
            halves.add(header(half)["nz"])
    assert halves == {5}
    assert angles(tmp_path / "TS_01.mrc.mdoc") == session(tmp_path).angles_deg()
    assert {path.name for path in tmp_path.iterdir()} == {"TS_01.mrc", "TS_01.mrc.mdoc"}


def test_pace_targets_grow_in_step_and_are_closed_between_tilts(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    for _, action in SCENARIOS["pace"](session(tmp_path)):
        action()
        stacks = [tmp_path / f"TS_01_ts_00{number}.mrc" for number in (1, 2)]
        if all(stack.exists() for stack in stacks):
            counts.append((header(stacks[0])["nz"], header(stacks[1])["nz"]))
        assert not any("_ts_" in name for name in open_files())
    assert counts[-1] == (9, 9)
    assert all(first - second in (0, 1) for first, second in counts)
    assert (tmp_path / "TS_01_tgt_001.mrc").exists() and (tmp_path / "TS_01_tgt_002_view.mrc").exists()
    assert not list(tmp_path.glob("*.openTS"))
    assert scenario_paths("pace", session(tmp_path)) == stacks


def open_files() -> list[str]:
    """What this process holds open."""
    links = [Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    return [os.fspath(link.readlink()) for link in links if link.is_symlink()]


def test_pace_sorts_in_place_after_its_unsorted_mdoc_appeared(tmp_path: Path) -> None:
    wanted = session(tmp_path, sort_in_place=True, targets=1)
    before_sorting = None
    for _, action in SCENARIOS["pace"](wanted):
        action()
        aside = tmp_path / "TS_01_ts_001_unsorted.mrc.mdoc"
        if aside.exists() and before_sorting is None:
            before_sorting = angles(tmp_path / "TS_01_ts_001.mrc.mdoc")
    assert before_sorting == dose_symmetric(wanted.angles_deg()) == angles(aside)
    assert angles(tmp_path / "TS_01_ts_001.mrc.mdoc") == wanted.angles_deg()
    phantom = Phantom(1001, OPTICS)
    with mrcfile.open(tmp_path / "TS_01_ts_001.mrc") as mrc:
        assert np.array_equal(mrc.data[0], phantom.image(-60.0))


def test_an_aborted_series_is_whole_as_far_as_it_goes(tmp_path: Path) -> None:
    run(SCENARIOS["aborted"](session(tmp_path, stop_after=4)))
    assert header(tmp_path / "TS_01.mrc")["nz"] == 4 == sections_in_file(tmp_path / "TS_01.mrc")
    assert len(angles(tmp_path / "TS_01.mrc.mdoc")) == 4


def test_a_crash_leaves_one_section_ahead_and_a_stale_marker(tmp_path: Path) -> None:
    run(SCENARIOS["crashed"](session(tmp_path, stop_after=4)))
    assert header(tmp_path / "TS_01.mrc")["nz"] == 3 and sections_in_file(tmp_path / "TS_01.mrc") == 4
    assert (tmp_path / "TS_01.mrc.openTS").exists()


def test_a_restart_truncates_and_keeps_the_old_mdoc_with_another_identity(tmp_path: Path) -> None:
    emptied = False
    for _, action in SCENARIOS["restarted"](session(tmp_path, stop_after=4, interval_seconds=30.0)):
        action()
        old = tmp_path / "TS_01.mrc.mdoc~"
        emptied |= old.exists() and header(tmp_path / "TS_01.mrc")["nz"] == 0
    assert emptied
    assert len(angles(old)) == 4 and len(angles(tmp_path / "TS_01.mrc.mdoc")) == 9
    for key in (rb"DateTime = .*", rb"StagePosition = .*"):
        first, second = (re.search(key, path.read_bytes()) for path in (old, tmp_path / "TS_01.mrc.mdoc"))
        assert first and second and first.group() != second.group()


def test_angles_are_shot_again(tmp_path: Path) -> None:
    run(SCENARIOS["reshot"](session(tmp_path)))
    shot = angles(tmp_path / "TS_01.mrc.mdoc")
    assert len(shot) == 11 and len(set(shot)) == 9
    with mrcfile.open(tmp_path / "TS_01.mrc") as mrc:
        assert not np.array_equal(mrc.data[2], mrc.data[3]), "the second exposure is another image"


def test_a_montage_says_so_and_stays_at_one_angle(tmp_path: Path) -> None:
    run(SCENARIOS["montage"](session(tmp_path)))
    document = Mdoc.from_file(str(tmp_path / "TS_01_LMM.mrc.mdoc"))
    assert document.global_data.Montage
    assert {section.TiltAngle for section in document.section_data} == {0.0}
    assert document.section_data[1].PieceCoordinates == (24, 0, 0)


def test_a_truncated_stack_is_shorter_than_its_header_says(tmp_path: Path) -> None:
    run(SCENARIOS["truncated"](session(tmp_path)))
    assert header(tmp_path / "TS_01.mrc")["nz"] == 9 and sections_in_file(tmp_path / "TS_01.mrc") == 8.5


def test_tomo5_writes_the_mdoc_before_the_frames_and_an_override_beside_it(tmp_path: Path) -> None:
    lag = set()
    wanted = session(tmp_path, name="Position_10_3", interval_seconds=20.0)
    for _, action in SCENARIOS["tomo5"](wanted):
        action()
        lag.add(
            len(section_numbers(tmp_path / "Position_10_3.mdoc"))
            - len(list(tmp_path.glob("*_Fractions.mrc")))
        )
    assert lag == {0, 1}
    text = (tmp_path / "Position_10_3.mdoc").read_bytes()
    frames = [name.decode() for name in re.findall(rb"(?m)^SubFramePath = .*\\(\S+)$", text)]
    assert sorted(frames) == sorted(path.name for path in tmp_path.glob("*_Fractions.mrc"))
    assert frames[0] == "Position_10_3_001_0.00_20260302_090020_Fractions.mrc"
    assert section_numbers(tmp_path / "Position_10_3_override.mdoc") == list(range(9))
    with mrcfile.open(tmp_path / frames[0]) as mrc:
        assert mrc.data.shape == (4, 20, 24)
    assert {"Session.dm", "BatchPositionsList.xml", "SearchMap.xml"} <= {p.name for p in tmp_path.iterdir()}


def test_the_mixed_session_has_every_kind(tmp_path: Path) -> None:
    run(SCENARIOS["mixed"](session(tmp_path)))
    names = {path.name for path in tmp_path.glob("*.mrc")}
    assert {"TS_01_LMM.mrc", "TS_01a.mrc", "TS_01d.mrc", "TS_01g_ts_002.mrc"} <= names


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("scenario", ["dose-symmetric", "tomo5"])
def test_hostile_names_are_written_as_they_are(name: str, scenario: str, tmp_path: Path) -> None:
    wanted = session(tmp_path, name=name, rawtlt=True)
    run(SCENARIOS[scenario](wanted))
    (path,) = scenario_paths(scenario, wanted)
    mdoc = path if scenario == "tomo5" else path.with_name(path.name + ".mdoc")
    assert os.fsencode(mdoc.name) in os.listdir(os.fsencode(tmp_path))
    assert len(section_numbers(mdoc)) == 9


def test_options_st_rawtlt_and_marker(tmp_path: Path) -> None:
    wanted = session(tmp_path, extension=".st", rawtlt=True, open_marker=True)
    marked = False
    for _, action in SCENARIOS["serialem"](wanted):
        action()
        marked |= (tmp_path / "TS_01.st.openTS").exists()
    assert marked
    assert {path.name for path in tmp_path.iterdir()} == {"TS_01.st", "TS_01.st.mdoc", "TS_01.rawtlt"}
    assert [float(x) for x in (tmp_path / "TS_01.rawtlt").read_text().split()] == wanted.angles_deg()


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(SCENARIOS["restarted"](session(tmp_path / folder, seed=seed)))
    for name in ("TS_01.mrc", "TS_01.mrc.mdoc"):
        a, b, c = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert a == b and a != c


def test_intervals_rates_and_the_mdocs_clock(tmp_path: Path) -> None:
    steps = list(SCENARIOS["serialem"](session(tmp_path, interval_seconds=0.5, bytes_per_second=960.0)))
    assert sum(step.delay_seconds for step in steps) == pytest.approx(9.0), "24 x 20 x 2 bytes take 1 s"
    run(SCENARIOS["serialem"](session(tmp_path, interval_seconds=0.5, clock_step_seconds=90.0)))
    times = re.findall(rb"DateTime = .*  (\d\d:\d\d:\d\d)", (tmp_path / "TS_01.mrc.mdoc").read_bytes())
    assert times[:2] == [b"09:01:30", b"09:03:00"]


def test_streams_are_merged_by_time() -> None:
    def stream(name: str, delays: list[float]) -> Any:
        for delay in delays:
            yield Step(delay, Action(name, Path(), lambda: None))

    merged = list(together([stream("a", [1.0, 1.0, 1.0]), stream("b", [1.5, 1.5])]))
    assert [step.action.what for step in merged] == ["a", "b", "a", "a", "b"]
    assert [step.delay_seconds for step in merged] == [1.0, 0.5, 0.5, 1.0, 0.0]


def test_play_keeps_the_schedule_and_does_not_wait_for_what_is_late() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def slow() -> None:
        now[0] += 1.5

    steps = [Step(1.0, Action("x", Path(), slow)) for _ in range(3)]
    assert len(list(play(iter(steps), now=lambda: now[0], sleep=sleep))) == 3
    assert slept == [1.0], "the second and third were late"
    assert list(play(iter(steps), now=lambda: now[0], sleep=lambda seconds: True)) == []


def test_projections_are_those_of_the_volume() -> None:
    optics = Optics(width_px=64, height_px=64, tilt_axis_deg=0.0, max_shift_px=0.0)
    phantom = Phantom(3, optics)
    flat = phantom.volume(64).sum(axis=0)
    seen = phantom.projection(0.0)
    assert np.corrcoef(flat.ravel(), seen.ravel())[0, 1] > 0.999


def test_the_axis_stands_counterclockwise_from_y_and_points_move_across_it() -> None:
    optics = Optics(width_px=65, height_px=65, tilt_axis_deg=30.0, max_shift_px=0.0)
    phantom = Phantom(0, optics, blob_count=1, bead_count=0)
    phantom.__dict__["points"] = np.array([[0.0, 0.0, 20.0, 2.0, 100.0]])
    y, x = np.unravel_index(np.argmin(phantom.projection(30.0)), (65, 65))
    assert (x - 32, y - 32) == (9, 5), "20 sin 30 = 10 px along (cos 30, sin 30)"


def test_shifts_are_the_truth_of_the_images() -> None:
    shifted = Phantom(5, Optics(width_px=128, height_px=128))
    still = Phantom(5, dataclasses.replace(shifted.optics, max_shift_px=0.0))
    a, b = (np.fft.fft2(phantom.projection(24.0)) for phantom in (shifted, still))
    correlation = np.fft.ifft2(a * b.conj()).real
    y, x = np.unravel_index(np.argmax(correlation), correlation.shape)
    dx, dy = shifted.shift_px(24.0)
    assert abs((x + 64) % 128 - 64 - dx) <= 1 and abs((y + 64) % 128 - 64 - dy) <= 1
    assert (dx, dy) != (0.0, 0.0) and shifted.shift_px(0.0) == (0.0, 0.0)


def test_packed_doses() -> None:
    for value in (3.0, 0.37, 119.5, 2.5e6, 9.9e6):
        high, low = float_as_shorts(value)
        exponent = abs(low) // 100 * (1 if low > 0 else -1)
        assert (high * 100 + abs(low) % 100) * 10.0**exponent == pytest.approx(value, rel=1e-5)
        assert -32768 <= high <= 32767
