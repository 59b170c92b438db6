"""Work on files that waits for the disk, several pieces of it with one commit of the file system.

To wait for the disk is most of what such work costs: each commit is written and waited for by itself, whether
it holds one attempt or ten.  So what comes shortly after a commit waits for the next one, as it does in the
journal.  A daemon at rest commits at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from .durable import Begun, Durably, ToDisk, wait_for_disk
from .hands import Hands

T = TypeVar("T")
P = ParamSpec("P")

GATHER_SECONDS = 0.25
"""After a commit those that come meanwhile wait for the next one for so long."""
TOGETHER_MAX = 8
"""So many do not wait for more: it is as many as may be submitted at once."""


class Work(Generic[T]):
    """One piece of work, begun.  Its steps run in worker threads, in the context of who began it."""

    __slots__ = ("begun", "context", "device", "error", "ready")

    def __init__(self, begun: Begun[T]) -> None:
        self.begun = begun
        self.context = contextvars.copy_context()
        self.error: BaseException | None = None
        self.ready: asyncio.Future[None]
        given = begun.given
        self.device = device_of(given) if given is not None else 0

    def go_on(self) -> None:
        try:
            self.context.run(self.begun.go_on)
        except BaseException as error:
            self.error = error


class Commits:
    """Those who wait for the same file system are committed together, so that one that hangs stops only its
    own.  Costs nothing beside the work; memory by what waits, and a number for each file system."""

    def __init__(self, hands: Hands, gather_seconds: float = GATHER_SECONDS) -> None:
        self._hands = hands
        self._gather_seconds = gather_seconds
        self._waiting: dict[int, list[Work[Any]]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._rests_until: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def do(self, work: Callable[P, Durably[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """All of ``work``, in worker threads; what it returns or raises."""
        return await self.finish(await self.begin(work, *args, **kwargs))

    async def begin(self, work: Callable[P, Durably[T]], *args: P.args, **kwargs: P.kwargs) -> Work[T]:
        """Up to where it first waits for the disk."""
        return await self._hands.do(lambda: Work(Begun(work(*args, **kwargs))))

    async def finish(self, work: Work[T]) -> T:
        """The rest of it.  Who is cancelled meanwhile leaves it where it waits, as a crash would."""
        while work.begun.given is not None:
            await self._commit(work)
        return work.begun.result

    async def _commit(self, work: Work[Any]) -> None:
        loop = asyncio.get_running_loop()
        work.ready = loop.create_future()
        waiting = self._waiting.setdefault(work.device, [])
        waiting.append(work)
        if len(waiting) == 1:
            at = max(loop.time(), self._rests_until.get(work.device, 0.0))
            self._timers[work.device] = loop.call_at(at, self._go, work.device)
        elif len(waiting) == TOGETHER_MAX:
            self._timers.pop(work.device).cancel()
            self._go(work.device)
        await work.ready
        if work.error is not None:
            raise work.error

    def _go(self, device: int) -> None:
        self._timers.pop(device, None)
        task = asyncio.get_running_loop().create_task(self._go_on(device, self._waiting.pop(device)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_on(self, device: int, together: Sequence[Work[Any]]) -> None:
        try:
            await self._hands.do(go_on, [work for work in together if not work.ready.cancelled()])
        except Exception as error:  # a bug: each has to hear of it, or waits for ever
            for work in together:
                work.error = error
        self._rests_until[device] = asyncio.get_running_loop().time() + self._gather_seconds
        for work in together:
            if not work.ready.cancelled():
                work.ready.set_result(None)


def device_of(given: ToDisk) -> int:
    """Its file system.  Raises OSError."""
    found = os.fstat(given.files[0]) if given.files else os.stat(given.folders[0])  # noqa: PTH116
    return found.st_dev


def go_on(together: Sequence[Work[Any]]) -> None:
    """One commit for all, then each on to where it waits next.  What one of them raises is its own."""
    wait_for_disk([work.begun for work in together])
    for work in together:
        work.go_on()
