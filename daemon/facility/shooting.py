"""Arrivals: a day of four busy microscopes, or the same series as a backlog at once."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tiltd.daemon.core.model import FilePrint, Fingerprint, Sighting, TiltSeries
from tiltd.daemon.core.site import FeedInfo, Site

from .study_pipeline import RESULT_PER_BYTE
from .work import Arrival

PIPELINE = "study"
STUDY_TILTS = 41
BYTES_A_TILT = 2_600_000_000 // STUDY_TILTS
MICROSCOPES = ("krios1", "krios2", "krios3", "glacios1")
DAY_SECONDS = 86400.0
BURST_SECONDS = 1800.0
"""A batch of 50 positions is moved over from the microscope's own disk within half an hour."""


def site(feeds: Sequence[str] = MICROSCOPES) -> Site:
    """Feeds that the model's pipeline serves."""
    return Site(
        feeds={
            name: FeedInfo(name=name, pipeline=PIPELINE, destination="/results/{series}") for name in feeds
        }
    )


def busy_day(
    series: int = 1200,
    burst: int = 50,
    microscopes: Sequence[str] = MICROSCOPES,
    pace_sigma: float = 0.1,
    seed: int = 2015,
    start_at: float = 1_000_000.0,
) -> list[Arrival]:
    """Bursts spread over the day, the microscopes' one after another in time."""
    chance = random.Random(seed)
    bursts = -(-series // burst)
    arrivals = []
    for number in range(series):
        turn = number // burst
        begin = start_at + DAY_SECONDS * turn / bursts
        at = begin + chance.uniform(0.0, BURST_SECONDS)
        pace = chance.lognormvariate(0.0, pace_sigma) if pace_sigma else 1.0
        arrivals.append(arrival(round(at, 1), microscopes[turn % len(microscopes)], number, pace=pace))
    return sorted(arrivals, key=lambda each: each.at)


def backlog(
    series: int = 1200, microscopes: Sequence[str] = MICROSCOPES, start_at: float = 1_000_000.0
) -> list[Arrival]:
    """All at once, each as the study's series (so that the bound on the makespan is exact)."""
    return [arrival(start_at, microscopes[n % len(microscopes)], n) for n in range(series)]


def arrival(at: float, feed: str, number: int, *, tilts: int = STUDY_TILTS, pace: float = 1.0) -> Arrival:
    name = f"TS_{number:05d}"
    size = tilts * BYTES_A_TILT
    file = FilePrint(
        relative_path=f"{name}.mrc", size_bytes=size, piece_bytes=65536, head_sha256=f"{number:064x}"
    )
    series = TiltSeries(
        tilt_series_name=name,
        kind="stack",
        fingerprint=Fingerprint(files=(file,)),
        stack_path=file.relative_path,
        tilt_angles_deg=tuple(3.0 * (n - tilts // 2) for n in range(tilts)),
        image_size=(4096, 4096),
        pixel_spacing_angstrom=0.72,
        tilt_axis_deg=85.0,
    )
    sighting = Sighting(
        series_key=file.relative_path,
        tilt_series_name=name,
        kind="stack",
        size_bytes=size,
        mtime_ns=int(at * 1e9),
        stat_signature=f"{number}:{size}",
        labels={"microscope": feed, "project": f"{feed}-project", "session": "today"},
        series=series,
        section_count=tilts,
    )
    return Arrival(at=at, feed=feed, sighting=sighting, pace=pace, result_bytes=int(RESULT_PER_BYTE * size))
