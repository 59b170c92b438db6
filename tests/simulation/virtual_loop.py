"""An event loop whose time jumps to the next timer, and the daemon's own loop driven by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.loop import Loop
from tiltd.daemon.simulate.draws import GRID
from tiltd.daemon.simulate.heap import new_core
from tiltd.daemon.simulate.routine import Routine
from tiltd.daemon.simulate.scene import START_AT, Scene
from tiltd.daemon.simulate.world import World


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing waits: when nothing is ready, it is at once as late as the next timer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_at = START_AT
        self._clock_resolution = GRID / 2  # a timer of this very instant is due

    def time(self) -> float:
        return self._virtual_at

    def _run_once(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            live = [timer.when() for timer in scheduled if not timer.cancelled()]
            if live:
                self._virtual_at = max(self._virtual_at, min(live))
        super()._run_once()  # type: ignore[misc]


class MemoryJournal:
    """Keeps the steps; durable enough for a test."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    async def append(self, steps: Sequence[Step]) -> None:
        await asyncio.sleep(0)
        self.steps += steps

    def snapshot_due(self, live: int) -> bool:
        return False

    async def save(self, state: CoreState) -> None:
        raise AssertionError("no snapshot was due")


class VirtualClock:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.time()


async def _drive(scene: Scene, journal: MemoryJournal) -> Core:
    running = asyncio.get_running_loop()
    core = new_core(scene)
    world = World(scene, lambda: core.state)
    routine = Routine(scene, world)
    done = asyncio.Event()

    def recorded(observation: o.Observation | None, step: Step) -> None:
        for record in step.records:
            if record.finalized_at is not None:
                routine.finish(record)
                world.forget(record)
        if routine.exhausted and not core.state.datasets and not core.state.notices:
            done.set()

    def schedule(at: float, what: Callable[..., None], *arguments: Any) -> None:
        running.call_at(at, fire, at, what, arguments)

    def fire(at: float, what: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        world.now = at
        what(*arguments)

    def start(effect: Any) -> None:
        world.now = running.time()
        world.start(effect)

    loop = Loop(core, journal, start, VirtualClock(running), recorded)
    world.schedule, world.tell, world.now = schedule, loop.inbox.put_nowait, START_AT
    loop.inbox.put_nowait(o.PolicyLoaded(at=START_AT, policy=core.policy))
    routine.begin()
    task = running.create_task(loop.run())
    await done.wait()
    task.cancel()
    return core


def drive(scene: Scene) -> tuple[Core, list[Step]]:
    """The whole scene through ``daemon/loop.py``; the core and its steps."""
    journal, loop = MemoryJournal(), VirtualLoop()
    try:
        core = loop.run_until_complete(_drive(scene, journal))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    return core, journal.steps
