"""Watching a feed: what is told, when, and what never happens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plugins.series_files import mdoc, stack, write_series
from shell.watching import CONTEXT, Feed
from tiltd.daemon.core.model import CompletenessPolicy, FileEntry, Sighting
from tiltd.daemon.feed_look import FeedLook
from tiltd.daemon.scan import FolderScan
from tiltd.plugins.serialem import SerialEmDetector
from tiltd.policy.completeness import Complete, Waiting, judge

KEY = "s1/g1_ts_001.mrc"


def test_a_new_series_is_told_at_once_and_opened_once_quiet(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    assert not feed.look().sightings
    write_series(tmp_path / "s1")
    (first,) = feed.look().sightings
    assert first.series_key == KEY and first.series is None
    (second,) = feed.look().sightings
    assert second.series is not None and second.stat_signature == first.stat_signature
    for _ in range(5):
        assert not feed.look().sightings


def test_a_growing_stack_is_only_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1", angles=(0.0, 3.0))
    feed.look()
    opens: list[object] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *args, **more: opens.append(args) or real(*args, **more))
    for nz in range(3, 30):
        path.write_bytes(stack(nz))
        opens.clear()  # what the test itself opened
        (grown,) = feed.look(5).sightings
        assert grown.series is None and not opens


def test_growth_is_seen_though_the_folder_does_not_move(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1")
    feed.look()
    feed.look()
    feed.look(60)
    times = os.stat(tmp_path / "s1")  # noqa: PTH116
    with path.open("ab") as out:
        out.write(bytes(96))
    os.utime(tmp_path / "s1", ns=(times.st_atime_ns, times.st_mtime_ns))
    (grown,) = feed.look().sightings
    assert grown.size_bytes > path.stat().st_size - 1 and grown.series is None


def test_the_detector_is_asked_again_about_what_measures_otherwise(tmp_path: Path) -> None:
    """A series that lives is looked at until its job is over; what it measures is all there is to see."""
    asked: list[int] = []

    class Noted(SerialEmDetector):
        def read(self, entries: Sequence[FileEntry], *how: Any) -> Sequence[Sighting]:
            asked.append(len(entries))
            return super().read(entries, *how)

    feed = Feed(tmp_path, detector=Noted({}, CONTEXT))
    feed.look()
    path = write_series(tmp_path / "s1")
    for _ in range(3):
        feed.look()
    asked.clear()
    for _ in range(3):
        assert not feed.look().sightings
    assert asked == []
    times = os.stat(tmp_path / "s1")  # noqa: PTH116
    path.with_name("g1_ts_001.mrc.mdoc").write_bytes(mdoc((0.0, 3.0)))
    os.utime(tmp_path / "s1", ns=(times.st_atime_ns, times.st_mtime_ns))
    (changed,) = feed.look().sightings
    assert changed.series is None and asked == [2]


def test_a_neighbour_that_grows_keeps_no_series_from_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose name begins alike: its files are looked at with those of the other."""
    feed = Feed(tmp_path)
    feed.look()
    write_series(tmp_path / "s1", "p_ts_1.mrc")
    neighbour = write_series(tmp_path / "s1", "p_ts_10.mrc")
    feed.look()
    real = FeedLook.text

    def grows(self: FeedLook, *what: Any) -> bytes:
        with neighbour.open("ab") as out:
            out.write(bytes(96))
        return real(self, *what)

    monkeypatch.setattr(FeedLook, "text", grows)
    opened = {sighting.series_key: sighting.series for sighting in feed.look().sightings}
    assert opened["s1/p_ts_1.mrc"] is not None and "s1/p_ts_10.mrc" not in opened


def test_a_file_that_belongs_to_several_names_is_measured_once_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path)
    feed.look()
    for name in ("p_ts_1.mrc", "p_ts_10.mrc", "p_ts_100.mrc"):
        write_series(tmp_path / "s1", name)
    for _ in range(4):
        feed.look()
    measured: list[str] = []
    real = FolderScan._stat_file

    def noted(self: FolderScan, path: str) -> object:
        measured.append(path)
        return real(self, path)

    monkeypatch.setattr(FolderScan, "_stat_file", noted)
    feed.look()
    assert sorted(measured) == sorted(str(path) for path in (tmp_path / "s1").iterdir())
    (tmp_path / "s1" / "p_ts_100.mrc").write_bytes(stack(5, fill=9) + b"more")
    assert [sighting.series_key for sighting in feed.look().sightings] == ["s1/p_ts_100.mrc"]


def test_a_folder_listed_again_without_a_change_is_not_put_to_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path)
    feed.look()
    write_series(tmp_path / "s1", "p_ts_1.mrc")
    feed.look(1)
    asked: list[int] = []
    real = feed.watch.detector.read

    def noted(entries: Any, opened: Any, look: Any) -> Any:
        asked.extend([len(entries)] if entries else [])
        return real(entries, opened, look)

    monkeypatch.setattr(feed.watch.detector, "read", noted)
    os.utime(tmp_path / "s1", (3e9, 3e9))
    feed.look(1)
    assert feed.watch.scan.folders["s1"].listed_at == feed.now and asked == []
    feed.watch.scan.list_again("s1")
    feed.look(1)
    assert asked == [2]


def test_what_was_measured_for_a_neighbour_is_news_of_a_forgotten_series_too(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.look()
    for name in ("p_ts_1.mrc", "p_ts_10.mrc"):
        write_series(tmp_path / "s1", name)
    found = [sighting for _ in range(4) for sighting in feed.look().sightings]
    feed.finish(next(sighting for sighting in reversed(found) if sighting.series_key == "s1/p_ts_10.mrc"))
    feed.look(4000)
    assert list(feed.watch.series) == ["s1/p_ts_1.mrc"]
    (tmp_path / "s1" / "p_ts_10.mrc").write_bytes(stack(5, fill=9) + b"more")
    os.utime(tmp_path / "s1", (3e9, 3e9))
    feed.look()
    assert "s1/p_ts_10.mrc" in feed.watch.series


def test_pace_in_step_with_pauses_is_left_alone_while_it_grows(tmp_path: Path) -> None:
    """N targets shot at one angle before the stage tilts: each stack pauses for minutes between tilts."""
    feed = Feed(tmp_path)
    names = [f"p_ts_{n:03d}.mrc" for n in range(1, 7)]
    opened = 0
    policy = CompletenessPolicy()
    stable: dict[str, float] = {}
    for tilt in range(1, 9):
        for name in names:
            write_series(tmp_path / "s1", name, angles=tuple(3.0 * n for n in range(tilt)))
            for sighting in feed.look(30).sightings:
                if sighting.series is None:
                    stable[sighting.series_key] = feed.now
                elif tilt > 2:
                    opened += 1
                verdict = judge(sighting, stable[sighting.series_key], feed.now, policy)
                assert not isinstance(verdict, Complete)
    assert opened == 0, "from the third tilt on its rhythm is known"
    last = {}
    for _ in range(60):
        last |= {sighting.series_key: sighting for sighting in feed.look(15).sightings}
    assert len(last) == 6
    for key, sighting in last.items():
        assert isinstance(judge(sighting, stable[key], feed.now, policy), Complete)


def test_dose_symmetric_sorting_never_yields_the_file_that_is_replaced(tmp_path: Path) -> None:
    """A rule "size stable for 60 s" would take the unsorted stack."""
    feed = Feed(tmp_path)
    policy = CompletenessPolicy()
    shot = (0.0, 3.0, -3.0, -6.0, 6.0)
    path = write_series(tmp_path / "s1", angles=shot)
    Path(f"{path}.openTS").touch()
    since, last = 0.0, None
    for second in range(0, 400, 10):
        if second == 100:
            Path(f"{path}.openTS").unlink()
            path.rename(f"{path}-unsorted")
            Path(f"{path}.mdoc").rename(f"{path}-unsorted.mdoc")
        if 120 <= second < 170:
            nz = (second - 110) // 10
            path.write_bytes(stack(nz))
            Path(f"{path}.mdoc").write_bytes(mdoc(sorted(shot)[:nz]))
        if second == 250:
            Path(f"{path}-unsorted").unlink()
            Path(f"{path}-unsorted.mdoc").unlink()
        observed = feed.look(10)
        assert not observed.gone
        for sighting in observed.sightings:
            if last is None or sighting.stat_signature != last.stat_signature:
                since = feed.now
            last = sighting
        assert last is not None
        verdict = judge(last, since, feed.now, policy)
        if isinstance(verdict, Complete):
            assert second >= 280, "30 s after the unsorted pair went, for openTS was seen and gone"
            assert last.series is not None and last.series.tilt_angles_deg == tuple(sorted(shot))
            return
        assert isinstance(verdict, Waiting)
    pytest.fail("never complete")


def test_a_restarted_series_is_a_change(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1")
    feed.look()
    (whole,) = feed.look().sightings
    Path(f"{path}.mdoc").rename(f"{path}.mdoc~")
    path.write_bytes(stack(1))
    Path(f"{path}.mdoc").write_bytes(mdoc((0.0,)))
    (truncated,) = feed.look().sightings
    assert truncated.series is None and truncated.stat_signature != whole.stat_signature


def test_open_ts_gone_is_a_sign_only_if_it_was_seen(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    path = write_series(tmp_path / "s1")
    Path(f"{path}.openTS").touch()
    assert feed.look().sightings[0].blockers == ("openTS",)
    Path(f"{path}.openTS").unlink()
    (found,) = feed.look().sightings
    assert found.positive_signs == ("openTS_gone",) and not found.blockers
    write_series(tmp_path / "s1", "other_ts_1.mrc")
    assert feed.look().sightings[0].positive_signs == ()


def test_baseline_opens_nothing_and_names_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        write_series(tmp_path / f"s{number}")
    monkeypatch.setattr(os, "open", lambda *args, **more: pytest.fail("opened"))
    feed = Feed(tmp_path, options={"first": True, "first_reason": "new"})
    observed = feed.look()
    assert observed.first and observed.first_reason == "new" and len(observed.sightings) == 20
    for sighting in observed.sightings:
        assert sighting.series is None
        feed.finish(sighting)
    for _ in range(5):
        later = feed.look()
        assert not later.first and not later.sightings and not later.gone
    assert not feed.watch.series


def test_a_series_released_from_the_baseline_is_opened(tmp_path: Path) -> None:
    write_series(tmp_path / "s1")
    feed = Feed(tmp_path, options={"first": True})
    feed.finish(feed.look().sightings[0])
    feed.look()
    feed.live[KEY] = "d1"
    found = [sighting for _ in range(3) for sighting in feed.look().sightings]
    assert found[-1].series is not None and found[-1].known_dataset_id == "d1"


def test_the_first_look_waits_for_a_feed_that_is_down(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "later", options={"first": True})
    observed = feed.look()
    assert not observed.up and not observed.first and "later" in observed.detail
    write_series(tmp_path / "later" / "s1")
    observed = feed.look()
    assert observed.up and observed.first and len(observed.sightings) == 1


def test_a_baseline_of_an_empty_mount_point_is_taken_again(tmp_path: Path) -> None:
    feed = Feed(tmp_path, options={"first": True})
    assert feed.look().first
    write_series(tmp_path / "s1")
    feed.watch.presence._empty_device = -1  # as if another file system had been mounted since
    observed = feed.look()
    assert observed.first and len(observed.sightings) == 1 and "mounted" in observed.first_reason


def test_after_a_restart_the_finished_is_not_told_and_the_live_is(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    for name in ("s1", "s2"):
        write_series(tmp_path / name)
    feed.look()
    for sighting in feed.look().sightings:
        if sighting.series_key.startswith("s1"):
            feed.finish(sighting)
    feed.restart()
    told = [sighting for _ in range(3) for sighting in feed.look().sightings]
    assert {sighting.series_key for sighting in told} == {"s2/g1_ts_001.mrc"}
    assert told[-1].series is not None


def test_a_finished_stack_changed_in_place_is_found_at_the_sweep(tmp_path: Path) -> None:
    feed = Feed(tmp_path, options={"sweep_seconds": 600.0})
    path = write_series(tmp_path / "s1")
    feed.look()
    feed.finish(feed.look().sightings[0])
    feed.restart()
    feed.look()
    feed.look(60)
    assert not feed.watch.series
    before = feed.seen.rows[KEY].digest
    path.write_bytes(stack(5, fill=9))
    assert not feed.look(60).sightings, "the folder did not move"
    told = [sighting for _ in range(8) for sighting in feed.look(150).sightings]
    assert len(told) == 1, "told once, after it was opened"
    assert told[0].series is not None and told[0].series.fingerprint.digest != before
    assert (told[0].known_dataset_id, told[0].known_revision, told[0].known_digest) == ("d1", 1, before)
