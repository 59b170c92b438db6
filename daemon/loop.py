"""THE loop: observations come in, facts are recorded, effects go out."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol

import structlog

from .core.core import Core, Step
from .core.effects import Effect
from .core.observations import Observation, TimeReached
from .core.state import CoreState

BATCH_MAX = 64
"""Observations that wait together share one commit, up to so many; all of them where a wake-up is due."""
GATHER_SECONDS = 0.35
"""Between two commits of a daemon that is busy: what comes meanwhile shares the next one."""
AT_ONCE = 4
"""After a rest so many commits come without that wait."""
APPEND_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)


class Clock(Protocol):
    def now(self) -> float: ...


class Record(Protocol):
    """Where steps are made durable: the journal."""

    async def append(self, steps: Sequence[Step]) -> None: ...
    def snapshot_due(self, live: int) -> bool: ...
    async def save(self, state: CoreState) -> None: ...


class Loop:
    """One task; it alone touches the core.

    ``stuck`` is the sentence for ``/readyz`` while the journal cannot be written: then nothing is performed
    and nothing is answered, and the append is tried again until it succeeds.  ``ahead``: the core's state
    holds what the journal may not: no snapshot may be taken of it.  ``turned`` is called after every turn,
    when what came in is journaled, and at least every ``turn_seconds``: a loop that hangs does not call it.
    """

    def __init__(
        self,
        core: Core,
        journal: Record,
        start: Callable[[Effect], None],
        clock: Clock,
        recorded: Callable[[Observation | None, Step], None] = lambda observation, step: None,
        appended: Callable[[float], None] = lambda seconds: None,
        gather_seconds: float = 0.0,
        turned: Callable[[], None] = lambda: None,
        turn_seconds: float | None = None,
    ) -> None:
        self.core = core
        self.inbox: asyncio.Queue[Observation] = asyncio.Queue()
        self.stuck = ""
        self.ahead = False
        self._journal = journal
        self._start = start
        self._clock = clock
        self._recorded = recorded
        self._appended = appended
        self._gather_seconds = gather_seconds
        self._next_at = 0.0
        self._turned = turned
        self._turn_seconds = turn_seconds
        self._log = structlog.get_logger("tiltd.loop")

    async def put(self, observation: Observation) -> None:
        await self.inbox.put(observation)

    async def run(self) -> None:
        """Until cancelled.  Everything outstanding is started first."""
        await self._take([(None, self.core.recover(self._clock.now()))])
        self._turned()
        while True:
            batch = await self._next()
            await self._take([(observation, self.core.handle(observation)) for observation in batch])
            if self._journal.snapshot_due(len(self.core.state.datasets)):
                await self._save()
            self._turned()

    async def _next(self) -> list[Observation]:
        """Observations that wait, or the time that the core asked to be woken at; nothing at all when
        neither came within ``turn_seconds``.

        A wake-up that is due comes behind all that waits: it may conclude from what was not told, and what is
        in the inbox was told.  An inbox that never empties does not starve it.
        """
        batch: list[Observation] = []
        wake_at = self.core.next_wake_at
        left_seconds = None if wake_at is None else wake_at - self._clock.now()
        idle = self._turn_seconds is not None and (left_seconds is None or left_seconds > self._turn_seconds)
        due = left_seconds is not None and left_seconds <= 0
        if not due:
            try:
                async with asyncio.timeout(self._turn_seconds if idle else left_seconds):
                    batch.append(await self.inbox.get())
            except TimeoutError:
                if idle:
                    return batch
                due = True
        left_seconds = self._next_at - asyncio.get_running_loop().time()
        if left_seconds > 0 and self.inbox.qsize() < BATCH_MAX:
            await asyncio.sleep(left_seconds)
        while not self.inbox.empty() and (due or len(batch) < BATCH_MAX):
            batch.append(self.inbox.get_nowait())
        if due:
            batch.append(TimeReached(at=self._clock.now()))
        return batch

    async def _take(self, steps: Sequence[tuple[Observation | None, Step]]) -> None:
        await self._append([step for _, step in steps if step.facts])
        for observation, step in steps:
            self._recorded(observation, step)
            for effect in step.effects:
                self._start(effect)

    async def _append(self, steps: Sequence[Step]) -> None:
        """Durable before anything is done.  State is ahead of the disk until this returns."""
        tries = 0
        self.ahead = bool(steps)
        while steps:
            try:
                began = perf_counter()
                await self._journal.append(steps)
                self._appended(perf_counter() - began)
                break
            except sqlite3.Error as error:
                self.stuck = f"the journal cannot be written ({error}); free space on its disk or mend it"
                self._log.error(self.stuck, tries=tries)
                # It goes on trying: a restart would free no disk, and take the page away that tells of it.
                self._turned()
                await asyncio.sleep(APPEND_RETRY_SECONDS[min(tries, len(APPEND_RETRY_SECONDS) - 1)])
                tries += 1
        self.ahead = False
        if steps:
            rested_at = asyncio.get_running_loop().time() - (AT_ONCE - 1) * self._gather_seconds
            self._next_at = max(self._next_at, rested_at) + self._gather_seconds
        if self.stuck:
            self._log.info("the journal can be written again")
            self.stuck = ""

    async def _save(self) -> None:
        try:
            await self._journal.save(self.core.state)
        except sqlite3.Error as error:
            self._log.error(f"no snapshot could be written ({error}); the facts are safe, a start is slower")
