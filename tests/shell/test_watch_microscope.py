"""Watcher, detector and rule together against the synthetic microscope, looked at between any two steps.

Whatever the way of shooting: never complete before the last byte of the series, and complete soon after.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shell.watching import CONTEXT, Feed
from tiltd.daemon.core.model import CompletenessPolicy, Sighting
from tiltd.daemon.core.observations import FilesObserved
from tiltd.daemon.microscope import SCENARIOS, Optics, Session, Steps, scenario_paths
from tiltd.plugins.tomo5 import Tomo5Detector
from tiltd.policy.completeness import Complete, Judgement, NotATiltSeries, Partial, judge

SCAN_SECONDS = 15.0


@dataclass
class Watchman:
    """Keeps of every series what the core would: the last sighting and since when it is stable."""

    feed: Feed
    policy: CompletenessPolicy = field(default_factory=CompletenessPolicy)
    last: dict[str, Sighting] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def look(self, seconds: float) -> FilesObserved:
        observed = self.feed.look(seconds)
        for sighting in observed.sightings:
            before = self.last.get(sighting.series_key)
            if before is None or before.stat_signature != sighting.stat_signature:
                self.since[sighting.series_key] = observed.at
            self.last[sighting.series_key] = sighting
        return observed

    def verdicts(self) -> dict[str, Judgement]:
        return {
            key: judge(sighting, self.since[key], self.feed.now, self.policy)
            for key, sighting in self.last.items()
        }

    def complete(self) -> set[str]:
        return {key for key, verdict in self.verdicts().items() if isinstance(verdict, Complete)}


def played(watchman: Watchman, steps: Steps, rng: random.Random) -> None:
    """Look now and then between the steps, and at every scan of a wait; nothing may be complete."""
    for delay_seconds, action in steps:
        left = delay_seconds
        while left > 0:
            part = min(left, SCAN_SECONDS)
            watchman.look(part)
            assert not watchman.complete(), f"complete before {action}"
            left -= part
        action()
        if rng.random() < 0.5:
            watchman.look(rng.choice([0.01, 0.5, 3.0, 12.0]))
            assert not watchman.complete(), f"complete after {action}"


def session(root: Path, name: str, **changes: Any) -> Session:
    folder = root / "grid1"
    folder.mkdir(exist_ok=True)
    optics = Optics(width_px=16, height_px=12)
    return Session(folder=folder, name=name, optics=optics, tilt_count=9, interval_seconds=60.0, **changes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scenario", "changes"),
    [
        ("serialem", {}),
        ("serialem", {"extension": ".st", "rawtlt": True, "open_marker": True}),
        ("dose-symmetric", {}),
        ("bidirectional", {}),
        ("pace", {"targets": 4}),
        ("pace", {"targets": 3, "sort_in_place": True}),
        ("reshot", {}),
        ("restarted", {}),
        ("tomo5", {}),
    ],
)
def test_complete_after_the_last_byte_and_never_before(
    tmp_path: Path, scenario: str, changes: dict[str, Any], seed: int
) -> None:
    frames = scenario == "tomo5"
    feed = Feed(tmp_path, detector=Tomo5Detector({}, CONTEXT) if frames else None)
    watchman = Watchman(feed)
    made = session(tmp_path, "Position_10_3" if frames else "TS_01", **changes)
    played(watchman, SCENARIOS[scenario](made), random.Random(seed))
    expected = {str(path.relative_to(tmp_path)) for path in scenario_paths(scenario, made)}
    for _ in range(int(1200 / SCAN_SECONDS)):
        assert not watchman.look(SCAN_SECONDS).gone
        if watchman.complete() == expected:
            break
    assert watchman.complete() == expected
    for key in expected:
        series = watchman.last[key].series
        assert series is not None and series.tilt_count == (11 if scenario == "reshot" else 9)
        sizes = {file.relative_path: file.size_bytes for file in series.fingerprint.files}
        assert all((tmp_path / path).stat().st_size == size for path, size in sizes.items())
        if scenario in ("dose-symmetric", "bidirectional"):
            assert list(series.tilt_angles_deg) == sorted(series.tilt_angles_deg)


def ended(tmp_path: Path, scenario: str, hours: int, **changes: Any) -> dict[str, Judgement]:
    watchman = Watchman(Feed(tmp_path), CompletenessPolicy(**changes))
    for _, action in SCENARIOS[scenario](session(tmp_path, "TS_01", stop_after=6)):
        action()
    for _ in range(hours * 12 + 3):
        watchman.look(300)
    return watchman.verdicts()


def test_a_map_is_none(tmp_path: Path) -> None:
    (verdict,) = ended(tmp_path, "montage", 0).values()
    assert isinstance(verdict, NotATiltSeries) and verdict.why == "montage"


@pytest.mark.parametrize(
    ("scenario", "changes", "why", "runnable"),
    [
        ("aborted", {"min_tilts": 9}, "too_few_tilts", True),
        ("aborted", {"planned_tilts": 9}, "fewer_than_planned", True),
        ("truncated", {}, "size_short", False),
        ("crashed", {}, "size_long", False),
    ],
)
def test_what_stays_short_or_contradictory_is_partial(
    tmp_path: Path, scenario: str, changes: dict[str, Any], why: str, runnable: bool
) -> None:
    (verdict,) = ended(tmp_path, scenario, 3, **changes).values()
    assert isinstance(verdict, Partial)
    assert (verdict.why, verdict.runnable) == (why, runnable)
