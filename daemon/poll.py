"""Looking at the world again and again: one job query, one node query, the spool, the destinations.

Each is a task that never ends and never has two questions open; what it cannot learn it says as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from tiltd.plugins.api import PluginError, ResourceManager, Temporary

from .clock import Clock
from .collect import free_bytes
from .core import observations as o
from .spool import Spool, SpoolWatch

Put = Callable[[o.Observation], Awaitable[None]]
QUESTION_TIMEOUT_SECONDS = 60.0
DESTINATION_SECONDS = 30.0
NEW_DESTINATIONS_SECONDS = 2.0
BACKOFF_MAX_SECONDS = 60.0


class Poll:
    """``jobs`` asks only while an attempt is live; ``look_at_nodes`` makes the next node query come now."""

    def __init__(self, manager: ResourceManager, put: Put, clock: Clock) -> None:
        self._manager = manager
        self._put = put
        self._clock = clock
        self._nodes_now = asyncio.Event()
        self._log = structlog.get_logger("tiltd.poll")

    def look_at_nodes(self) -> None:
        self._nodes_now.set()

    async def jobs(self, seconds: float, wanted: Callable[[], bool]) -> None:
        """One question for all jobs, every ``seconds``; less often while nobody answers."""
        failures = 0
        while True:
            if wanted():
                failures = 0 if await self._ask(self._jobs) else failures + 1
            await asyncio.sleep(min(BACKOFF_MAX_SECONDS, seconds * 2 ** min(failures, 8)))

    async def nodes(self, seconds: float) -> None:
        failures = 0
        while True:
            self._nodes_now.clear()
            failures = 0 if await self._ask(self._nodes) else failures + 1
            pause = min(max(seconds, BACKOFF_MAX_SECONDS), seconds * 2 ** min(failures, 8))
            try:
                async with asyncio.timeout(pause):
                    await self._nodes_now.wait()
            except TimeoutError:
                continue

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
    spool: Spool, live: Callable[[], Iterable[str]], put: Put, clock: Clock, seconds: float
) -> None:
    """Tell what changed in the folders of live attempts.  Costs three ``stat`` an attempt and look."""
    watch = SpoolWatch(spool)
    log = structlog.get_logger("tiltd.spool")
    trouble = ""
    while True:
        try:
            for seen in await asyncio.to_thread(watch.look, list(live())):
                if seen.claimed_by or seen.end is not None:
                    await put(seen.observed(clock.now()))
            trouble = ""
        except (Temporary, OSError) as error:
            if str(error) != trouble:
                trouble = str(error)
                log.error("the spool cannot be read: nothing is concluded", detail=trouble)
        await asyncio.sleep(seconds)


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
