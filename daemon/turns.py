"""An event loop that does not turn for every single thing that happens.

While much happens a turn with one event in it costs more than the event: hundreds of them a second, each with
its questions to the kernel, its timers and its wake-ups of other threads.  So after a turn a busy loop lets a
moment pass, and finds several events at once.  What comes after a rest is taken at once.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any

TURN_SECONDS = 0.025


class Unhurried(selectors.DefaultSelector):
    """Waits for events, but for no more often than every ``turn_seconds``; one that comes meanwhile waits for
    so long at most.  What the loop itself has still to do is not kept waiting."""

    def __init__(self, turn_seconds: float = TURN_SECONDS) -> None:
        super().__init__()
        self._turn_seconds = turn_seconds
        self._turned_at = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0.0:
            return super().select(timeout)
        pause = self._turned_at + self._turn_seconds - time.monotonic()
        if timeout is not None:
            pause = min(pause, timeout)
        if pause > 0.0:
            time.sleep(pause)
            timeout = None if timeout is None else timeout - pause
        ready = super().select(timeout)
        self._turned_at = time.monotonic()
        return ready


def run(main: Coroutine[Any, Any, None]) -> None:
    """As :func:`asyncio.run`, in a loop of that kind."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Unhurried())) as runner:
        runner.run(main)
