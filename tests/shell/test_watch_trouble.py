"""Looks at a feed in trouble: what vanishes, cannot be read, is no series, or has a hostile name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from plugins.series_files import mdoc, write_series
from plugins.test_tomo5 import write_position
from shell.watching import CONTEXT, Feed
from tiltd.daemon.feed_names import labels_of
from tiltd.plugins.tomo5 import Tomo5Detector

KEY = "s1/g1_ts_001.mrc"


def test_a_live_series_that_vanishes_is_gone_once(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1")
    write_series(tmp_path / "s1", "keep_ts_1.mrc")
    feed.look()
    feed.look()
    path.unlink()
    Path(f"{path}.mdoc").unlink()
    gone = [key for _ in range(4) for key in feed.look().gone]
    assert gone == [KEY]
    write_series(tmp_path / "s1")
    assert [s.series_key for s in feed.look().sightings] == [KEY]


def test_a_folder_that_vanishes_takes_its_series(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    write_series(tmp_path / "s2")
    feed.look()
    shutil.rmtree(tmp_path / "s1")
    assert feed.look().gone == (KEY,)
    feed.restart()
    assert feed.look().gone == (KEY,), "known from the watchlist alone"


@pytest.mark.parametrize("way", ["missing", "empty", "file", "unreadable"])
def test_a_feed_that_goes_away_takes_nothing_with_it(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "feed"
    feed = Feed(root)
    write_series(root / "s1")
    feed.look()
    feed.look()
    away = tmp_path / "away"
    if way == "unreadable":
        real = os.scandir
        monkeypatch.setattr(os, "scandir", _refusing(real, str(root)))
    else:
        root.rename(away)
    if way == "empty":
        root.mkdir()
    elif way == "file":
        root.write_text("x")
    for _ in range(3):
        observed = feed.look()
        assert not observed.up and not observed.gone and not observed.sightings and observed.detail
    monkeypatch.undo()
    if way == "empty":
        root.rmdir()
    elif way == "file":
        root.unlink()
    if way != "unreadable":
        away.rename(root)
    write_series(root / "s2")
    observed = feed.look()
    assert observed.up and not observed.gone
    assert [s.series_key for s in observed.sightings] == ["s2/g1_ts_001.mrc"]


def _refusing(real: object, below: str) -> object:
    def scandir(path: str) -> object:
        if str(path).startswith(below):
            raise PermissionError(13, "Permission denied", path)
        return real(path)  # type: ignore[operator]

    return scandir


def test_a_folder_without_permission_is_not_gone_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    write_series(tmp_path / "s2")
    feed.look()
    feed.look()
    monkeypatch.setattr(os, "scandir", _refusing(os.scandir, str(tmp_path / "s1")))
    write_series(tmp_path / "s1", "new_ts_9.mrc")
    write_series(tmp_path / "s2", "new_ts_9.mrc")
    for _ in range(2):
        observed = feed.look()
        assert observed.up and not observed.gone and "s1" in observed.detail
    assert [code for code, _ in feed.watch.troubles] == ["folder_unreadable"]
    monkeypatch.undo()
    assert [s.series_key for s in feed.look().sightings if s.series is None] == ["s1/new_ts_9.mrc"]
    assert not feed.watch.troubles


def test_a_fifo_named_like_a_stack_does_not_hang_us(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    os.mkfifo(tmp_path / "s1" / "x.mrc")
    (tmp_path / "s1" / "x.mrc.mdoc").write_bytes(mdoc())
    told = {s.series_key: s for _ in range(3) for s in feed.look().sightings}
    assert told[KEY].series is not None
    assert {problem.code for problem in told["s1/x.mrc"].problems} == {"stack_missing"}


def test_a_stack_swapped_for_a_fifo_after_the_scan_does_not_hang_us(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    look = Feed(tmp_path).watch.detector
    assert look is not None
    from tiltd.daemon.feed_look import FeedLook

    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="regular"):
        FeedLook(str(tmp_path)).head(path.name, 1024)


@pytest.mark.parametrize("bad", ["../x", "/etc/passwd", "a/../../x", "a//b"])
def test_reading_stays_below_the_feed(tmp_path: Path, bad: str) -> None:
    from tiltd.daemon.feed_look import FeedLook

    with pytest.raises(OSError, match="below the feed"):
        FeedLook(str(tmp_path)).head(bad, 10)


def test_a_file_that_cannot_be_read_is_a_problem_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    feed.look()
    real = os.open

    def refusing(path: str, flags: int, *more: object) -> int:
        if str(path).endswith(".mdoc"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags)

    monkeypatch.setattr(os, "open", refusing)
    (found,) = feed.look().sightings
    assert {problem.code for problem in found.problems} == {"unreadable"} and found.series is None
    monkeypatch.undo()
    assert not feed.look(30).sightings
    assert feed.look(40).sightings[0].series is not None


def test_ten_megabytes_of_noise_hold_up_nobody(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1", "noise_ts_1.mrc")
    Path(f"{path}.mdoc").write_bytes(os.urandom(10_000_000))
    write_series(tmp_path / "s1")
    told = {s.series_key: s for _ in range(4) for s in feed.look().sightings}
    assert told[KEY].series is not None
    assert "mdoc_too_large" in {p.code for p in told["s1/noise_ts_1.mrc"].problems}


@pytest.mark.parametrize(
    "name", [b"a b\n'\"\t$(reboot)_ts_1.mrc", b"-rf_ts_1.mrc", b"\xff\xfe_ts_1.mrc", "µ€_ts_1.st".encode()]
)
def test_hostile_names_are_watched_like_others(tmp_path: Path, name: bytes) -> None:
    feed = Feed(tmp_path, options={"pattern": "{project}/{session}", "labels": {"microscope": "k"}})
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfep\n/;s'"))
    write_series(folder, name)
    feed.look()
    (found,) = feed.look().sightings
    assert found.series is not None
    assert found.labels == {"microscope": "k", "project": os.fsdecode(b"\xfep\n"), "session": ";s'"}


def test_many_openings_are_spread_by_bytes(tmp_path: Path) -> None:
    feed = Feed(tmp_path, options={"read_bytes_per_second": 500.0})
    for number in range(30):
        write_series(tmp_path / "s1", f"n_ts_{number}.mrc")
    feed.look()
    counts = [len(feed.look(10).sightings) for _ in range(20)]
    assert sum(counts) == 30 and 1 <= max(counts) <= 5
    assert feed.watch.next_look_seconds(15) > 1 and counts[-1] == 0


def test_a_clock_that_jumps_neither_loses_nor_invents_anything(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    feed.look()
    assert not feed.look(-1e6).gone
    told = [s for _ in range(4) for s in feed.look().sightings]
    assert [s.series is not None for s in told] == [True]
    write_series(tmp_path / "s1", "b_ts_2.mrc")
    told = [s for _ in range(4) for s in feed.look(1e6).sightings]
    assert [s.series_key for s in told] == ["s1/b_ts_2.mrc"] * 2
    assert told[-1].series is not None


def test_a_detector_with_a_bug_costs_its_folder_only(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    real = feed.watch.detector.read

    def read(entries, opened, look):  # type: ignore[no-untyped-def]
        if any("bad" in entry.relative_path for entry in entries):
            raise KeyError("oops")
        return real(entries, opened, look)

    feed.watch.detector.read = read  # type: ignore[method-assign]
    write_series(tmp_path / "bad")
    write_series(tmp_path / "s1")
    observed = feed.look()
    assert [s.series_key for s in observed.sightings] == [KEY] and "KeyError" in observed.detail
    assert not feed.look(live={"bad/g1_ts_001.mrc": "d"} | feed.live).gone


def test_names_that_are_no_series_are_told_once(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1", "g_tgt_001.mrc")
    (found,) = feed.look().sightings
    assert found.not_series is not None
    assert not any(feed.look().sightings for _ in range(4)) and not feed.watch.series


def test_what_is_long_done_is_forgotten(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    feed.look()
    feed.finish(feed.look().sightings[0])
    feed.look(4000)
    feed.look()
    assert not feed.watch.series
    assert all(folder.files is None for folder in feed.watch.scan.folders.values())


@pytest.mark.parametrize(
    ("key", "pattern", "expected"),
    [
        ("p/s/x.mrc", "{project}/{session}", {"project": "p", "session": "s"}),
        ("p/x.mrc", "{project}/{session}", {"project": "p", "session": "p"}),
        ("x.mrc", "{project}/{session}", {"project": "", "session": "feed"}),
        ("raw/p/s/deep/x.mrc", "raw/{project}/{session}", {"project": "p", "session": "s"}),
        ("a/b/x.mrc", "", {"session": "b"}),
    ],
)
def test_labels_come_from_the_levels(key: str, pattern: str, expected: dict[str, str]) -> None:
    assert labels_of(key, pattern, {}, "feed") == expected


def test_frames_that_come_late_and_beside_are_waited_for(tmp_path: Path) -> None:
    feed = Feed(tmp_path, detector=Tomo5Detector({}, CONTEXT))
    folder, frames = tmp_path / "s1", tmp_path / "s1" / "frames"
    write_position(folder, frames, missing=2)
    feed.look()
    (short,) = feed.look().sightings
    assert short.series is None and {problem.code for problem in short.problems} == {"frames_missing"}
    write_position(folder, frames)
    told = [sighting for _ in range(4) for sighting in feed.look().sightings]
    assert {sighting.series_key for sighting in told} == {"s1/Position_10_3.mdoc"}
    assert told[-1].series is not None and len(told[-1].series.frame_paths) == 5
    assert not feed.look().sightings and not feed.look().gone


def test_a_series_that_changes_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1")
    feed.look()
    real = feed.watch.detector.read

    def read(entries, opened, look):  # type: ignore[no-untyped-def]
        found = real(entries, opened, look)
        if opened(KEY):
            with path.open("ab") as out:
                out.write(bytes(96))
        return found

    feed.watch.detector.read = read  # type: ignore[method-assign]
    assert not feed.look().sightings
    feed.watch.detector.read = real  # type: ignore[method-assign]
    told = [sighting for _ in range(4) for sighting in feed.look(30).sightings]
    assert [sighting.series is None for sighting in told] == [True, False]


def test_a_file_system_that_is_unmounted_is_a_feed_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path)
    write_series(tmp_path / "s1")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    assert feed.look().up
    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    observed = feed.look()
    assert not observed.up and "no longer mounted" in observed.detail and not observed.gone


def test_after_a_restart_what_lies_below_an_unreadable_folder_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "p" / "s1")
    feed = Feed(tmp_path, live={"p/s1/g1_ts_001.mrc": "d1", "p/s2/never.mrc": "d2"})
    monkeypatch.setattr(os, "scandir", _refusing(os.scandir, str(tmp_path / "p")))
    for _ in range(2):
        observed = feed.look()
        assert observed.up and not observed.gone
    monkeypatch.undo()
    found = [feed.look(4000) for _ in range(3)]
    assert [key for observed in found for key in observed.gone] == ["p/s2/never.mrc"]
    assert "p/s1/g1_ts_001.mrc" in {s.series_key for observed in found for s in observed.sightings}
