"""Now, by a clock that does not step."""

from __future__ import annotations

import time


class Clock:
    """Epoch seconds: the wall clock at start, moved on by CLOCK_BOOTTIME ever since.

    So a wall clock that jumps (NTP, an operator) moves no deadline, and time spent asleep still counts.
    """

    def __init__(self) -> None:
        self._offset_seconds = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        return self._offset_seconds + time.clock_gettime(time.CLOCK_BOOTTIME)
