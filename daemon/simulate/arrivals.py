"""The microscopes of the simulation: when which series is written, and what the watcher would see of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiltd.daemon.core.model import FilePrint, Fingerprint, Problem, Record, Sighting, TiltSeries, dataset_id

from .draws import Draws, on_grid
from .scene import FEEDS, GB, START_AT, Scene

COUNTS = (41, 41, 41, 41, 41, 41, 61, 35)
ANGLES = {count: tuple(float(3 * (n - count // 2)) for n in range(count)) for count in sorted({*COUNTS})}
SESSION_SERIES = 40
IMPORTED_ONE_IN = 8
"""One series in so many comes from the feed that is imported first."""
GROWING_ONE_IN = 4
"""One series in so many is met while it grows; the others are whole and quiet when they are first shown."""
LOOK_SECONDS = 30.0
"""Files are opened once they have been quiet for so long."""
KINDS = ("partial", "gone", "changed", "touched", "no_series", "changed_late")


class Arriving(Record):
    """One series to come: it is first seen at ``at`` and stops growing ``growing_seconds`` later.

    ``trouble`` is one of ``KINDS`` or empty.
    """

    number: int
    at: float
    feed: str
    key: str
    name: str
    labels: dict[str, str]
    tilt_count: int
    size_bytes: int
    growing_seconds: float
    trouble: str = ""

    @property
    def dataset_id(self) -> str:
        return dataset_id(self.feed, self.key, self.name, 1, 1)


def arrivals(scene: Scene) -> Iterator[Arriving]:
    """All series, in the order in which they come.  Memory: one at a time."""
    at = START_AT + 60.0
    for number in range(scene.datasets):
        draws = Draws(scene.seed, "series", number)
        at = on_grid(at + scene.interval_seconds * 2.0 * draws[0])
        feed = FEEDS[number % IMPORTED_ONE_IN == 1] if scene.failures else FEEDS[0]
        grows = number % GROWING_ONE_IN == 0
        session = f"s{number // SESSION_SERIES:06d}"
        name = f"TS_{number:07d}"
        yield Arriving(
            number=number,
            at=at,
            feed=feed,
            key=f"{session}/{name}.mrc",
            name=name,
            labels={"project": f"p{number // (25 * SESSION_SERIES) % 7}", "session": session},
            tilt_count=COUNTS[int(draws[1] * len(COUNTS))],
            size_bytes=int(GB * (1.0 + 2.5 * draws[2] + 6.0 * draws[3] ** 6)),
            growing_seconds=draws.between(4, 60.0, 900.0) if grows else 0.0,
            trouble=draws.choose(6, KINDS) if draws[5] < scene.failures else "",
        )


def growing(series: Arriving) -> Sighting:
    """While it grows only ``stat`` is done."""
    return _seen(series, series.size_bytes // 3, "growing")


def stat_only(series: Arriving, content: int = 1) -> Sighting:
    """All of it is written; the files were not opened yet."""
    return _seen(series, series.size_bytes, f"whole{content}")


def opened(series: Arriving, content: int = 1) -> Sighting:
    """Its files were read.  ``content`` tells apart what was written to the same names."""
    size_bytes, signature = series.size_bytes, f"whole{content}"
    if series.trouble == "no_series":
        montage = Problem(code="montage", detail="a montage of 3 x 3 pieces")
        return _seen(series, size_bytes, signature, not_series=montage)
    if series.trouble == "partial":
        problem = Problem(code="size_short", detail="header tells 41 sections, the file ends in the 13th")
        return _seen(series, size_bytes, signature, section_count=12, problems=(problem,))
    found, count = _tilt_series(series, content), series.tilt_count
    return _seen(series, size_bytes, signature, series=found, section_count=count)


def _seen(of: Arriving, size_bytes: int, stat_signature: str, **read: Any) -> Sighting:
    return Sighting(
        series_key=of.key,
        tilt_series_name=of.name,
        kind="stack",
        size_bytes=size_bytes,
        mtime_ns=int(of.at * 1e9),
        stat_signature=stat_signature,
        labels=of.labels,
        **read,
    )


def _tilt_series(series: Arriving, content: int) -> TiltSeries:
    stack = FilePrint(
        relative_path=series.key,
        size_bytes=series.size_bytes,
        piece_bytes=65536,
        head_sha256=f"{series.number}.{content}",
    )
    mdoc = FilePrint(
        relative_path=f"{series.key}.mdoc",
        size_bytes=20_000,
        piece_bytes=65536,
        head_sha256=f"{series.number}.{content}m",
    )
    return TiltSeries(
        tilt_series_name=series.name,
        kind="stack",
        fingerprint=Fingerprint(files=(stack, mdoc)),
        stack_path=series.key,
        mdoc_path=f"{series.key}.mdoc",
        tilt_angles_deg=ANGLES[series.tilt_count],
        image_size=(4096, 4096),
    )
