"""Work that blocks, done in worker threads: by few at a time, and by more only where those hang.

Threads that do small things side by side mostly wait for one another (there is one interpreter lock), and
each switch costs more than what is done between two of them.  So one hand does all of it, one thing after
another without asking the loop for the next, as long as it is quick; behind a file server that does not
answer, or a large result that is read, whoever has waited long enough begins all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

T = TypeVar("T")
P = ParamSpec("P")

FEW = 1
M_ARENA_MAX, HEAPS = -8, 2
GC_THRESHOLDS = (5_000, 20, 20)
PATIENCE_SECONDS = 0.25
"""Work of a healthy daemon takes milliseconds; after that long the hands are taken to hang."""


class Hands:
    """Shared by those who touch files for the loop.  The number that hang is bounded by the loop's own
    executor, which does what the hands did not come to in time."""

    def __init__(self, few: int = FEW, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._threads = ThreadPoolExecutor(few, thread_name_prefix="hand")
        self._patience_seconds = patience_seconds

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``work`` in a worker thread; what it returns or raises."""
        loop, context, begun = asyncio.get_running_loop(), contextvars.copy_context(), threading.Lock()

        def call() -> T | None:
            return context.run(work, *args, **kwargs) if begun.acquire(blocking=False) else None

        def give_up() -> None:
            # Whoever has the lock does it: work that has begun is waited for however long it takes.
            if begun.acquire(blocking=False):
                waiting.cancel()

        waiting = loop.run_in_executor(self._threads, call)
        patience = loop.call_later(self._patience_seconds, give_up)
        try:
            return cast(T, await waiting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            patience.cancel()
        return await asyncio.to_thread(work, *args, **kwargs)


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
