"""The heap clock: one core, one world, and no waiting between two events."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
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
        self.world.tell = self._tell
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._told: list[o.Observation] = []
        self._count = 0
        self.events = 0

    def _schedule(self, at: float, what: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, what, arguments))

    def _tell(self, observation: o.Observation) -> None:
        self._told.append(observation)

    def steps(self) -> Iterator[tuple[o.Observation | None, Step]]:
        """Every step of the core, its effects started, until all is done.  Raises :class:`Stuck`."""
        core, desk, world, routine = self.core, self.core.desk, self.world, self.routine
        world.now = START_AT
        routine.begin()
        yield None, self._started(core.recover(START_AT))
        yield self._handled(o.PolicyLoaded(at=START_AT, policy=core.policy))
        give_up_at = float("inf")
        while True:
            at, _, what, arguments = self._heap[0]
            wake_at = desk.next_wake_at
            if wake_at is not None and wake_at <= at:
                world.now = max(world.now, wake_at)
                yield self._handled(o.TimeReached(at=world.now))
            else:
                heapq.heappop(self._heap)
                world.now = at
                what(*arguments)
                while self._told:
                    yield self._handled(self._told.pop(0))
            if routine.exhausted:
                if not core.state.datasets and not core.state.notices:
                    return
                give_up_at = min(give_up_at, world.now + PATIENCE_SECONDS)
                if world.now > give_up_at:
                    raise Stuck(self._stuck())

    def _handled(self, observation: o.Observation) -> tuple[o.Observation, Step]:
        self.events += 1
        return observation, self._started(self.core.handle(observation))

    def _started(self, step: Step) -> Step:
        for effect in step.effects:
            self.world.start(effect)
        for row in step.rows:
            if not row.live:
                self.routine.finish(row.record)
                self.world.forget(row.record)
        return step

    def _stuck(self) -> str:
        lines = [f"{len(self.core.state.datasets)} datasets never came to an end:"]
        for dataset_id in sorted(self.core.state.datasets)[:5]:
            lines.append(f"{dataset_id}: {' '.join(self.core.why(dataset_id, self.world.now))}")
        return "\n".join(lines)
