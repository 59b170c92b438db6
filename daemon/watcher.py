"""The task that looks at one feed again and again, and tells the core what is news."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from .core.observations import FilesObserved
from .inotify import FolderHints
from .watch import FeedWatch

Put = Callable[[FilesObserved], Awaitable[None]]

LEAST_PAUSE_SECONDS = 0.2
CPU_SHARE = 0.02
"""Hints may make looks come sooner, but not so often that looking takes more of a core than this."""


class Watcher:
    """Runs ``FeedWatch.look`` in a worker thread every ``scan_seconds``, sooner when hinted.

    ``last_look_at`` and ``last_look_seconds`` (CPU of the looking thread) are for the metrics.
    """

    def __init__(self, watch: FeedWatch, *, scan_seconds: float = 15.0, inotify: bool = True) -> None:
        self.watch = watch
        self.scan_seconds = scan_seconds
        self.inotify = inotify
        self.last_look_at: float | None = None
        self.last_look_seconds = 0.0
        self.up: bool | None = None
        self.detail = ""

    async def run(
        self,
        put: Put,
        watchlist_of: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
        wake: asyncio.Event,
    ) -> None:
        """Look until cancelled.  ``put`` gets every observation that holds news; ``wake`` (set by anyone)
        makes the next look come at once; ``watchlist_of`` is called on the event loop before every look."""
        hints = FolderHints() if self.inotify else None
        loop = asyncio.get_running_loop()
        if hints and hints.descriptor >= 0:
            loop.add_reader(hints.descriptor, lambda: wake.set() if hints.drain() else None)
        try:
            while True:
                wake.clear()
                observed = await asyncio.to_thread(self._look, clock(), dict(watchlist_of()))
                self.last_look_at = observed.at
                if self._is_news(observed):
                    await put(observed)
                if hints:
                    hints.follow(self.watch.hot_folders())
                await self._pause(wake)
        finally:
            if hints and hints.descriptor >= 0:
                loop.remove_reader(hints.descriptor)
                hints.close()

    def _look(self, now: float, watchlist: Mapping[str, str]) -> FilesObserved:
        started = time.thread_time()
        observed = self.watch.look(now, watchlist)
        self.last_look_seconds = time.thread_time() - started
        return observed

    def _is_news(self, observed: FilesObserved) -> bool:
        changed = (observed.up, observed.detail) != (self.up, self.detail)
        self.up, self.detail = observed.up, observed.detail
        return bool(changed or observed.first or observed.sightings or observed.gone)

    async def _pause(self, wake: asyncio.Event) -> None:
        least_seconds = max(LEAST_PAUSE_SECONDS, self.last_look_seconds / CPU_SHARE)
        await asyncio.sleep(min(least_seconds, self.scan_seconds))
        left_seconds = self.watch.next_look_seconds(self.scan_seconds) - least_seconds
        if left_seconds > 0:
            try:
                await asyncio.wait_for(wake.wait(), left_seconds)
            except TimeoutError:
                return
