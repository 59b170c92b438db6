"""What the microscope shoots for the demo, and what must become of each."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Literal

from tiltd.daemon.microscope import SCENARIOS, Optics, Session, Steps, play, together

PROJECT, GRID = "demo", "grid1"

Outcome = Literal["delivered", "partial", "ignored"]


@dataclasses.dataclass(frozen=True)
class Expected:
    """One series: how it is shot, and how it has to end.  ``stack`` is relative to the feed."""

    name: str
    shot_as: str
    outcome: Outcome

    @property
    def stack(self) -> str:
        return f"{PROJECT}/{GRID}/{self.name}.mrc"


EXPECTED: tuple[Expected, ...] = (
    Expected("TS_01", "one by one", "delivered"),
    Expected("TS_02", "dose-symmetric, reordered", "delivered"),
    Expected("PACE_ts_001", "PACE, in step", "delivered"),
    Expected("PACE_ts_002", "PACE, in step", "delivered"),
    Expected("TS_03", "aborted", "partial"),
    Expected("GRID_LMM", "a map of the grid", "ignored"),
)


class Microscope:
    """Shoots everything at the same time, in a thread of its own.

    ``tilts`` and ``last_tilt_at`` (seconds since the epoch, the last change of the series' files) grow as
    it goes; ``error`` is what stopped it, if anything did.
    """

    def __init__(self, feed: Path, size_px: int, tilt_count: int, interval_seconds: float) -> None:
        self.tilts: dict[str, int] = {}
        self.last_tilt_at: dict[str, float] = {}
        self.error: OSError | None = None
        self._stop = threading.Event()
        self._steps = steps(feed, size_px, tilt_count, interval_seconds)
        self._thread = threading.Thread(target=self._shoot, name="microscope", daemon=True)

    @property
    def shooting(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop between two steps and wait for the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _shoot(self) -> None:
        try:
            for action in play(self._steps, sleep=self._stop.wait):
                if action.what == "mdoc":
                    self.tilts[action.series] = max(self.tilts.get(action.series, 0), action.section + 1)
                self.last_tilt_at[action.series] = time.time()
        except OSError as error:
            self.error = error


def steps(feed: Path, size_px: int, tilt_count: int, interval_seconds: float) -> Steps:
    """Five streams at once: two series, two PACE targets in step, an abort and a map."""
    session = Session(
        folder=feed / PROJECT / GRID,
        optics=Optics(
            width_px=size_px,
            height_px=size_px,
            pixel_spacing_angstrom=13.4 * 256 / size_px,
            max_shift_px=size_px / 64,
        ),
        tilt_count=tilt_count,
        interval_seconds=interval_seconds,
        targets=2,
        stop_after=max(3, tilt_count // 3),
    )
    shots = (
        ("serialem", "TS_01"),
        ("dose-symmetric", "TS_02"),
        ("pace", "PACE"),
        ("aborted", "TS_03"),
        ("montage", "GRID"),
    )
    return together(
        SCENARIOS[scenario](dataclasses.replace(session, name=name, seed=seed))
        for seed, (scenario, name) in enumerate(shots, start=1)
    )
