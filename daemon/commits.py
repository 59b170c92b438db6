"""Work on files that waits for the disk, several pieces of it with one commit of the file system.

To wait for the disk is most of what such work costs: each commit is written and waited for by itself, whether
it holds one attempt or ten.  So what comes shortly after a commit waits for the next one, as it does in the
journal.  A daemon at rest commits at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from .durable import Begun, Durably, wait_for_disk
from .hands import Hands

T = TypeVar("T")
P = ParamSpec("P")

GATHER_SECONDS = 0.35
"""After a commit those that come meanwhile wait for the next one for so long."""
TOGETHER_MAX = 8
"""So many do not wait for more: it is as many as may be submitted at once."""


Where = tuple[int, str]
"""A file system's number, and a place."""


class Work(Generic[T]):
    """One piece of work.  Its steps run in worker threads, in the context of who asked for it."""

    __slots__ = ("begun", "context", "device", "error", "place", "ready", "work")

    def __init__(self, place: str, work: Callable[[], Durably[T]]) -> None:
        self.place = place
        self.work = work
        self.begun: Begun[T] | None = None
        self.context = contextvars.copy_context()
        self.error: BaseException | None = None
        self.ready: asyncio.Future[None]
        self.device = 0

    @property
    def waits(self) -> bool:
        """For the disk."""
        return self.error is None and self.begun is not None and self.begun.given is not None

    def go_on(self) -> None:
        """Begin, or on to where it waits next; what it raises is kept."""
        try:
            self.context.run(self._step)
        except BaseException as error:
            self.error = error

    def _step(self) -> None:
        if self.begun is not None:
            self.begun.go_on()
            return
        self.begun = Begun(self.work())
        if (given := self.begun.given) is not None:
            found = os.fstat(given.files[0]) if given.files else os.stat(given.folders[0])  # noqa: PTH116
            self.device = found.st_dev


class Commits:
    """Those of the same place who wait for the same file system are committed together, so that one that
    hangs stops only its own.  A place is a folder that their work looks at besides: its file system may hang
    as well.  Costs nothing beside the work; memory by what waits, and two numbers for each place."""

    def __init__(self, hands: Hands, gather_seconds: float = GATHER_SECONDS) -> None:
        self._hands = hands
        self._gather_seconds = gather_seconds
        self._waiting: dict[Where, list[Work[Any]]] = {}
        self._timers: dict[Where, asyncio.TimerHandle] = {}
        self._rests_until: dict[Where, float] = {}
        self._devices: dict[str, int] = {}

    async def do(self, place: str, work: Callable[P, Durably[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """All of ``work``, in worker threads; what it returns or raises.

        For work that is quick: it is begun only with the next commit of the file system that others of the
        same ``place`` were found on, which saves waking a thread, and the loop, for its beginning alone.
        """
        piece = Work(place, functools.partial(work, *args, **kwargs))
        if place in self._devices:
            piece.device = self._devices[place]
            await self._commit(piece)
        else:
            await self._begin(piece)
        if piece.device:
            self._devices[place] = piece.device
        return await self.finish(piece)

    async def begin(
        self, place: str, work: Callable[P, Durably[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Work[T]:
        """Up to where it first waits for the disk."""
        piece = Work(place, functools.partial(work, *args, **kwargs))
        await self._begin(piece)
        return piece

    async def finish(self, piece: Work[T]) -> T:
        """The rest of it.  Who is cancelled meanwhile leaves it where it waits, as a crash would."""
        if piece.waits:
            await self._commit(piece)
        assert piece.begun is not None
        return piece.begun.result

    async def _begin(self, piece: Work[Any]) -> None:
        await self._hands.do(piece.go_on)
        if piece.error is not None:
            raise piece.error

    async def _commit(self, work: Work[Any]) -> None:
        loop, where = asyncio.get_running_loop(), (work.device, work.place)
        work.ready = loop.create_future()
        waiting = self._waiting.setdefault(where, [])
        waiting.append(work)
        if len(waiting) == 1:
            at = max(loop.time(), self._rests_until.get(where, 0.0))
            self._timers[where] = loop.call_at(at, self._go, where)
        elif len(waiting) == TOGETHER_MAX:
            self._timers.pop(where).cancel()
            self._go(where)
        await work.ready
        if work.error is not None:
            raise work.error

    def _go(self, where: Where) -> None:
        self._timers.pop(where, None)
        together = [work for work in self._waiting.pop(where) if not work.ready.cancelled()]
        answer = self._hands.ask(go_on, together)
        answer.add_done_callback(functools.partial(self._gone_on, where, together))

    def _gone_on(self, where: Where, together: Sequence[Work[Any]], answer: asyncio.Future[None]) -> None:
        if (bug := answer.exception()) is not None:  # each has to hear of it, or waits for ever
            for work in together:
                work.error = bug
        self._rests_until[where] = asyncio.get_running_loop().time() + self._gather_seconds
        for work in together:
            if not work.ready.cancelled():
                work.ready.set_result(None)


def go_on(together: Sequence[Work[Any]]) -> None:
    """Begin those that are not begun; then one commit for all that wait, until none does.  What one of them
    raises is its own."""
    for work in together:
        if work.begun is None:
            work.go_on()
    while waiting := [work for work in together if work.waits]:
        wait_for_disk([work.begun for work in waiting if work.begun is not None])
        for work in waiting:
            work.go_on()
