"""Looking at the world again and again: one job query, one node query, the spool, the destinations.

Each is a task that never ends and never has two questions open; what it cannot learn it says as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog

from tiltd.plugins.api import Expecting, PluginError, ResourceManager, Temporary

from .clock import Clock
from .collect import free_bytes
from .core import observations as o
from .core.model import Job
from .hands import Hands
from .spool import Spool
from .spool_watch import SpoolWatch

Put = Callable[[o.Observation], Awaitable[None]]
QUESTION_TIMEOUT_SECONDS = 60.0
NODES_LEAST_SECONDS = 5.0
DESTINATION_SECONDS = 30.0
NEW_DESTINATIONS_SECONDS = 2.0
BACKOFF_MAX_SECONDS = 60.0
SLOWER, JITTER = 1.5, 0.1
HINT_SECONDS = 0.3
"""The spool is looked at no sooner after a look, so that what moves together is seen together."""
HINTED_LOOK_SECONDS = 15.0
"""Where the kernel tells of every change, all attempts are looked at no oftener than this."""


class Pace:
    """How long to wait between two questions, in seconds: ``least`` while something is close or moves, then
    longer and longer, up to ``most``.  A little of chance keeps two daemons from asking in step."""

    def __init__(self, least: float, most: float, chance: Callable[[], float] = random.random) -> None:
        self.least = least
        self.most = max(least, most)
        self._chance = chance
        self._seconds = least

    def after(self, close: bool, failures: int) -> float:
        if failures:
            self._seconds = self.least
            pause = min(max(self.most, BACKOFF_MAX_SECONDS), self.least * 2.0 ** min(failures, 8))
        else:
            self._seconds = self.least if close else min(self.most, self._seconds * SLOWER)
            pause = self._seconds
        if self.most == self.least and not failures:
            return pause
        return pause * (1.0 + JITTER * self._chance())


class Poll:
    """``look_at_jobs`` and ``look_at_nodes`` make the next question come now, or as soon as the least pause
    allows."""

    def __init__(self, manager: ResourceManager, put: Put, clock: Clock) -> None:
        self._manager = manager
        self._put = put
        self._clock = clock
        self._nodes_now = asyncio.Event()
        self._jobs_now = asyncio.Event()
        self._known: tuple[Job, ...] = ()
        self._log = structlog.get_logger("tiltd.poll")

    def look_at_jobs(self) -> None:
        self._jobs_now.set()

    def look_at_nodes(self) -> None:
        self._nodes_now.set()

    async def jobs(
        self,
        pace: Pace,
        wanted: Callable[[], bool],
        close: Callable[[], bool] = lambda: True,
        expected: Callable[[], Collection[str]] = tuple,
        idle: Callable[[], float] = float,
    ) -> None:
        """One question for all jobs, again and again, never two at once.

        Asked while ``wanted``, and else every ``idle`` seconds (0: not at all), since what was withdrawn may
        still lie in the queue.  ``close``: the answer is waited for.  ``expected`` are the ids of live jobs.
        """
        failures, rested = 0, 0.0
        while True:
            pause = pace.least
            if wanted() or 0.0 < idle() <= rested:
                rested = 0.0
                if isinstance(self._manager, Expecting):
                    self._manager.expect(expected())
                known = self._known
                failures = 0 if await self._ask(self._jobs) else failures + 1
                pause = pace.after(close() or known != self._known, failures)
            rested += pause
            await self._rest(pause, pace.least if not failures else pause)

    async def _rest(self, seconds: float, least: float) -> None:
        """Sleep, at least so long; beyond that until someone wants a look."""
        await asyncio.sleep(min(least, seconds))
        if seconds <= least:
            self._jobs_now.clear()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - least):
                await self._jobs_now.wait()
        self._jobs_now.clear()

    async def nodes(self, seconds: float, queues: bool = False) -> None:
        """One question for all nodes every ``seconds``; sooner when someone wants a look.

        A batch server (``queues``) tells what its nodes last reported, some tens of seconds ago: to ask it
        after every job that ends would tell nothing new.
        """
        failures, least = 0, NODES_LEAST_SECONDS if queues else 0.0
        while True:
            self._nodes_now.clear()
            failures = 0 if await self._ask(self._nodes) else failures + 1
            pause = min(max(seconds, BACKOFF_MAX_SECONDS), seconds * 2 ** min(failures, 8))
            await asyncio.sleep(min(least, pause))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause - min(least, pause)):
                    await self._nodes_now.wait()

    async def _ask(self, question: Callable[[], Awaitable[o.Observation]]) -> bool:
        try:
            async with asyncio.timeout(QUESTION_TIMEOUT_SECONDS):
                seen = await question()
        except (PluginError, TimeoutError, OSError) as error:
            detail = str(error) or f"no answer within {QUESTION_TIMEOUT_SECONDS:.0f} s"
        except Exception as error:
            # A plugin's bug is no news of any job, and must not take the daemon down.
            self._log.exception("the resource manager's plugin has a bug")
            detail = f"a bug in its plugin: {error!r}"
        else:
            await self._put(seen)
            return True
        self._log.warning("the resource manager does not answer", detail=detail)
        await self._put(o.ServerUnreachable(at=self._clock.now(), detail=detail))
        return False

    async def _jobs(self) -> o.Observation:
        asked_at = self._clock.now()
        seen = await self._manager.jobs()
        self._known = seen.jobs
        return o.JobsObserved(
            at=self._clock.now(),
            jobs=seen.jobs,
            complete=seen.complete,
            asked_at=asked_at,
            foreign_counts=seen.foreign_counts,
        )

    async def _nodes(self) -> o.Observation:
        nodes = await self._manager.nodes()
        return o.NodesObserved(at=self._clock.now(), nodes=tuple(nodes))


async def watch_spool(
    spool: Spool,
    hands: Hands,
    changes: Callable[[], tuple[Sequence[str], Sequence[str]]],
    put: Put,
    clock: Clock,
    seconds: float,
) -> None:
    """Tell what changed in the folders of live attempts: every ``seconds``, and sooner where the kernel says
    that something moved.  ``changes`` gives whose attempt became live since it was last asked, and whose is
    live no more.  See :mod:`tiltd.daemon.spool_watch` for what a look costs."""
    watch = SpoolWatch(spool)
    loop = asyncio.get_running_loop()
    moved = asyncio.Event()
    log = structlog.get_logger("tiltd.spool")
    trouble, whole_at = "", 0.0

    try:
        while True:
            whole = not watch.relied or loop.time() >= whole_at
            if whole:
                whole_at = loop.time() + HINTED_LOOK_SECONDS
            came, gone = changes()
            due = whole or moved.is_set() or came or gone or not watch.sees_all
            try:
                for seen in await hands.do(watch.look, came, gone, whole=whole) if due else ():
                    if seen.claimed_by or seen.end is not None:
                        await put(seen.observed(clock.now()))
                trouble = ""
            except (Temporary, OSError) as error:
                whole_at = 0.0  # what it had found may be in no hint
                if str(error) != trouble:
                    trouble = str(error)
                    log.error("the spool cannot be read: nothing is concluded", detail=trouble)
            await asyncio.sleep(min(HINT_SECONDS, seconds))
            # Listened to only now: until here every hint would wake the loop, and not make the look sooner.
            moved.clear()
            if watch.descriptor >= 0:
                loop.add_reader(watch.descriptor, moved.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds - HINT_SECONDS)):
                    await moved.wait()
            if watch.descriptor >= 0:
                loop.remove_reader(watch.descriptor)
    finally:
        if watch.descriptor >= 0:
            loop.remove_reader(watch.descriptor)
        watch.close()


async def watch_destinations(folders: Callable[[], Mapping[str, str]], put: Put, clock: Clock) -> None:
    """Free bytes of every destination, looked at in threads: a hung file server stops nobody else.

    ``folders`` is asked again and again, because a policy's rules name destinations too.
    """
    known: dict[str, int | None] = {}

    async def look(name: str, folder: str) -> None:
        while folders().get(name) == folder:
            free = await asyncio.to_thread(free_bytes, folder)
            if name not in known or known[name] != free:
                known[name] = free
                await put(o.DestinationsObserved(at=clock.now(), free_bytes=dict(known)))
            await asyncio.sleep(DESTINATION_SECONDS)
        known.pop(name, None)

    looking: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            for name, folder in folders().items():
                if name not in looking or looking[name].done():
                    looking[name] = group.create_task(look(name, folder))
            await asyncio.sleep(NEW_DESTINATIONS_SECONDS)
