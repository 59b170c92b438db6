"""The simulator's cluster keeps the promises of resource managers too: what the simulations prove of the core
was proved against a server that behaves as the real ones do.

``SimulatedManager`` puts the protocol's four methods over :class:`tiltd.daemon.simulate.world.World`, as it
is: jobs are queued, begin, claim, end and are listed by it alone.  Only its runner is the suite's: who claims
leaves what ``FAKE_RUNNER`` leaves, and ends when it is told to.  Its clock is turned by who waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.conformance_resource_managers import ResourceManagerConformance, Site
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Attempt, Job, JobSpec, JobState, NodeInfo, Placement, ResourceRequest
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.simulate.cluster import Folder
from tiltd.daemon.simulate.draws import Draws
from tiltd.daemon.simulate.scene import START_AT, Scene
from tiltd.daemon.simulate.world import World
from tiltd.plugins.api import JobsSeen, Permanent

SCENE = Scene(datasets=0, nodes=2, cores=4)
TURN_SECONDS, TURNS_MAX = 1.0, 600


class Cluster:
    """The simulated world, its clock, and the runners of the suite's jobs."""

    def __init__(self) -> None:
        self.world = World(SCENE, CoreState)
        self.world.now = START_AT
        self.world.schedule, self.world.tell = self._schedule, self._shown
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._at_work: dict[str, Path] = {}
        self.folders: dict[str, Path] = {}

    def _schedule(self, at: float, what: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), what, arguments))

    def _shown(self, observation: o.Observation) -> None:
        """A runner claimed its attempt, or ended."""
        if isinstance(observation, o.SpoolObserved) and observation.end is None:
            folder = self.folders[observation.attempt_id]
            with open(folder / "starts", "a") as out:
                out.write("1\n")
            (folder / "ready").write_text("simulated")
            self._at_work[observation.claimed_by] = folder
        elif isinstance(observation, o.SpoolObserved):
            self._at_work.pop(observation.claimed_by, None)

    def turn(self) -> None:
        """A second passes."""
        world = self.world
        until = world.now + TURN_SECONDS
        while self._due and self._due[0][0] <= until:
            at, _, what, arguments = heapq.heappop(self._due)
            world.now = max(world.now, at)
            what(*arguments)
        world.now = until
        for job_id, folder in list(self._at_work.items()):
            if (folder / "go").exists():
                status = int((folder / "go").read_text() or 0)
                outcome = "failed" if status else "success"
                world._end(world.server.jobs[job_id], outcome, "program", status)


class SimulatedManager:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world

    def _listed(self) -> list[Job]:
        jobs = []
        for job in self._world.server.listed(self._world.now):
            folder = self._world.server.jobs[job.job_id].folder
            jobs.append(replace(job, started_at=folder.claimed_at))
        return jobs

    async def submit(self, spec: JobSpec) -> str:
        for job in self._listed():
            if job.job_name == spec.job_name:
                return job.job_id
        if unknown := set(spec.nodes) - self._world.nodes.keys():
            raise Permanent(f"there is no node {', '.join(sorted(unknown))}")
        placement = Placement(
            nodes=spec.nodes, cores=spec.cores, threads=spec.threads, memory_bytes=spec.memory_bytes,
            scratch_bytes=spec.scratch_bytes, walltime_seconds=spec.walltime_seconds,
            queue="", rule="", policy_version="",
        )  # fmt: skip
        attempt = Attempt(
            attempt_id=spec.job_name, number=1, kind="run", placement=placement, placed_at=self._world.now,
            request=ResourceRequest(),
        )  # fmt: skip
        # Its fate is to run until the suite ends it.
        folder = Folder(attempt, Draws(SCENE.seed, spec.job_name), "slow", 0.0)
        self._world.folders[spec.job_name] = folder
        self._cluster.folders[spec.job_name] = Path(spec.attempt_folder)
        return self._world._adopt(folder).job.job_id

    async def jobs(self) -> JobsSeen:
        return JobsSeen(jobs=tuple(self._listed()), complete=True, asked_at=self._world.now)

    async def nodes(self) -> Sequence[NodeInfo]:
        return [node.info(self._world.now) for node in self._world.nodes.values()]

    async def cancel(self, job_id: str) -> None:
        self._world.start(e.CancelJob(attempt_id="", dataset_id="", job_id=job_id))


class SimulatedSite(Site):
    """Whoever waits turns the clock, and looks again."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster()
        super().__init__(folder, lambda settings, context: SimulatedManager(self.cluster))

    async def until(self, what: Callable[[], Awaitable[Any]]) -> Any:
        for _ in range(TURNS_MAX):
            if answer := await what():
                return answer
            self.cluster.turn()
        raise AssertionError("waited too long")


class TestSimulated(ResourceManagerConformance):
    @pytest.fixture
    def site(self, tmp_path: Path) -> Iterator[Site]:
        site = SimulatedSite(tmp_path)
        yield site
        site.close()


async def test_of_two_jobs_of_one_attempt_one_claims_and_the_other_ends_at_once(tmp_path: Path) -> None:
    """The suite's own eye is sharp here: the simulator can make doubles, and they do no harm."""
    site = SimulatedSite(tmp_path)
    manager = site.restart()
    spec = await site.spec(manager)
    await manager.submit(spec)
    world = site.cluster.world
    folder = world.folders[spec.job_name]
    second = world.server.submit(folder, world.nodes["n000"], world.now)
    world.schedule(world.now, world._begin, second)
    await site.ready(spec)
    for _ in range(20):
        site.cluster.turn()
    states = sorted(job.state for job in (await manager.jobs()).jobs)
    assert states == sorted([JobState.COMPLETED, JobState.RUNNING]) and site.starts(spec) == 1
