"""The heap clock: one core, one world, and no waiting between two events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step

from .routine import Routine
from .scene import START_AT, Scene, default_policy, pipelines, site
from .world import World

PATIENCE_SECONDS = 30 * 86400.0
"""So long after the last series everything must have come to an end."""


class Stuck(Exception):
    """Something never ended; the message tells of the first few datasets, with their reasons."""


def new_core(scene: Scene) -> Core:
    return Core(site(scene), default_policy(), pipelines())


class HeapClock:
    """Pops (instant, what, arguments) and hands every observation to the core at once."""

    def __init__(self, scene: Scene, core: Core | None = None) -> None:
        self.scene = scene
        self.core = core or new_core(scene)
        state = self.core.state
        self.world = World(scene, lambda: state)
        self.routine = Routine(scene, self.world)
        self.world.schedule = self._schedule
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._told: deque[o.Observation] = deque()
        self.world.tell = self._told.append
        self._count = 0
        self.events = 0

    def _schedule(self, at: float, what: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (at, self._count, what, arguments))

    def steps(self) -> Iterator[tuple[o.Observation | None, Step]]:
        """Every step of the core, its effects started, until all is done.  Raises :class:`Stuck`."""
        core, desk, world, routine = self.core, self.core.desk, self.world, self.routine
        heap, told = self._heap, self._told
        world.now = START_AT
        routine.begin()
        yield None, self._started(core.recover(START_AT))
        adopted = o.PolicyLoaded(at=START_AT, policy=core.policy)
        yield adopted, self._started(core.handle(adopted))
        self.events += 1
        give_up_at = float("inf")
        while True:
            at, _, what, arguments = heap[0]
            wake_at = desk.next_wake_by(at)
            if wake_at is not None:
                world.now = max(world.now, wake_at)
                told.append(o.TimeReached(at=world.now))
            else:
                heappop(heap)
                world.now = at
                what(*arguments)
            while told:
                observation = told.popleft()
                self.events += 1
                yield observation, self._started(core.handle(observation))
            if routine.exhausted:
                if not core.state.datasets and not core.state.notices:
                    return
                give_up_at = min(give_up_at, world.now + PATIENCE_SECONDS)
                if world.now > give_up_at:
                    raise Stuck(self._stuck())

    def _started(self, step: Step) -> Step:
        for effect in step.effects:
            self.world.start(effect)
        for record in step.records:
            if record.finalized_at is not None:
                self.routine.finish(record)
                self.world.forget(record)
        return step

    def _stuck(self) -> str:
        lines = [f"{len(self.core.state.datasets)} datasets never came to an end:"]
        for dataset_id in sorted(self.core.state.datasets)[:5]:
            lines.append(f"{dataset_id}: {' '.join(self.core.why(dataset_id, self.world.now))}")
        return "\n".join(lines)
