"""What a synthetic session shoots, and the steps it is made of.

A scenario is a generator of ``Step(delay_seconds, action)``: wait so long, then call the action, then ask for
the next step.  Nothing is computed or written before the action is called, so a test can stop at any step
and look at the files, and no test has to sleep.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .phantom import Optics

HOSTILE_NAMES = (
    "two blanks and a tail ",
    'it\'s "quoted"',
    "new\nline",
    "-rf",
    "$(touch owned)",
    "`id`;ls|cat&",
    "no\udcffutf\udc808",
    "%s{0}\\x41",
    "*?[a-z]",
    "Überprüfung μ 試料",
)
"""Names that a careless program trips over; the one with lone surrogates is not UTF-8 on disk."""


@dataclass(frozen=True)
class Action:
    """One thing the acquisition program does to one file.  Call it once, in the order it came.

    ``what``: open, pixels, header, extended, mdoc, text, marker, rename, copy, remove, truncate or close.
    ``section`` counts from 0; ``series`` is the name of the series, or empty for files beside it.
    """

    what: str
    path: Path
    do: Callable[[], object] = field(repr=False)
    section: int = -1
    series: str = ""

    def __call__(self) -> None:
        self.do()


class Step(NamedTuple):
    delay_seconds: float
    action: Action


Steps = Iterator[Step]


@dataclass(frozen=True)
class Session:
    """Everything that shapes a scenario.

    ``interval_seconds`` lies between two tilts (of all targets, with PACE); ``bytes_per_second`` makes it
    longer where the images are large.  ``clock_step_seconds`` is what the mdoc's DateTime tells instead.
    ``stop_after`` is the number of tilts after which an aborted or restarted series ends.
    """

    folder: Path
    name: str = "TS_01"
    seed: int = 1
    optics: Optics = field(default_factory=Optics)
    tilt_count: int = 41
    tilt_range_deg: tuple[float, float] = (-60.0, 60.0)
    interval_seconds: float = 0.0
    bytes_per_second: float | None = None
    clock_step_seconds: float | None = None
    started_seconds: float = 0.0
    extension: str = ".mrc"
    rawtlt: bool = False
    open_marker: bool | None = None
    stop_after: int | None = None
    targets: int = 3
    sort_in_place: bool = False

    @property
    def stack_path(self) -> Path:
        return self.folder / f"{self.name}{self.extension}"

    @property
    def image_seconds(self) -> float:
        """The wait before an image."""
        rate = self.bytes_per_second
        transfer = 2 * self.optics.width_px * self.optics.height_px / rate if rate else 0.0
        return max(self.interval_seconds, transfer)

    @property
    def stops_after(self) -> int:
        """``stop_after``, or about a third of the series (at least 3 tilts)."""
        wanted = max(3, self.tilt_count // 3) if self.stop_after is None else self.stop_after
        return min(wanted, self.tilt_count)

    def angles_deg(self) -> list[float]:
        """The planned angles from the lowest to the highest, evenly spaced, to a hundredth of a degree."""
        low, high = self.tilt_range_deg
        if self.tilt_count < 2:
            return [round((low + high) / 2, 2)]
        step = (high - low) / (self.tilt_count - 1)
        return [round(low + step * index, 2) for index in range(self.tilt_count)]


def dose_symmetric(angles_deg: Iterable[float]) -> list[float]:
    """The order of a dose-symmetric series: the smallest tilt first, then both sides by turns.

    Source: Hagen, Wan and Briggs, J. Struct. Biol. 197 (2017) 191.
    """
    return sorted(angles_deg, key=lambda angle: (abs(angle), -angle))


def from_middle(angles_deg: list[float]) -> tuple[list[float], list[float]]:
    """The two halves of a bidirectional series: from the middle down, then from beside it up."""
    down = [angle for angle in angles_deg if angle <= 0.0]
    return down[::-1], [angle for angle in angles_deg if angle > 0.0]


def together(streams: Iterable[Steps]) -> Steps:
    """Several microscopes at once: the steps of all streams by time, ties in the order of the streams."""
    queue: list[tuple[float, int, Step, Steps]] = []
    for number, stream in enumerate(streams):
        _push(queue, 0.0, number, stream)
    now = 0.0
    while queue:
        due, number, step, stream = heapq.heappop(queue)
        yield Step(due - now, step.action)
        now = due
        _push(queue, now, number, stream)


def _push(queue: list[tuple[float, int, Step, Steps]], now: float, number: int, stream: Steps) -> None:
    step = next(stream, None)
    if step is not None:
        heapq.heappush(queue, (now + step.delay_seconds, number, step, stream))
