"""Work that blocks, done in worker threads: by few at a time, and by more only where those hang.

Threads that do small things side by side mostly wait for one another (there is one interpreter lock), and
each switch costs more than what is done between two of them.  So two hands do all of it, as long as they are
quick; behind a file server that does not answer, whoever has waited long enough begins all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

FEW = 2
M_ARENA_MAX, HEAPS = -8, 2
GC_THRESHOLDS = (5_000, 20, 20)
PATIENCE_SECONDS = 0.25
"""Work of a healthy daemon takes milliseconds; after that long the hands are taken to hang."""


class Hands:
    """Shared by those who touch files for the loop.  The number that hang is bounded by the executor."""

    def __init__(self, few: int = FEW, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._free = asyncio.Semaphore(few)
        self._patience_seconds = patience_seconds

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``work`` in a worker thread; what it returns or raises."""
        if not await self._taken():
            return await asyncio.to_thread(work, *args, **kwargs)
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        finally:
            self._free.release()

    async def _taken(self) -> bool:
        if not self._free.locked():
            return await self._free.acquire()
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._free.acquire()
        except TimeoutError:
            return False


def settle() -> None:
    """Once all is made, before the threads begin: for a process that lives for months.

    What a start has made stays, and need not be looked through at every collection of garbage; and threads
    share their heaps, where glibc would give each one of its own to keep.
    """
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
