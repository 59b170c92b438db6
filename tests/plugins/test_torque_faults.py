"""The plugin under seeded faults and restarts: one run a series, no other's job touched, none left over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from plugins.pretend_server import Killed, Server, revoke
from plugins.torque_recorded import MARK, Desk
from tiltd.daemon.core.model import JobState
from tiltd.plugins.api import Permanent, Temporary, Unsure

SERIES = 4


class World:
    """What the daemon's core does with a resource manager's answers, in as few words as possible."""

    def __init__(self, folder: Path, seed: int, trouble: float) -> None:
        self.server = Server(seed, trouble)
        self.desk = Desk(folder, {}, settle_seconds=5)
        self.attempt = dict.fromkeys(range(SERIES), 1)
        self.job_ids: dict[int, str] = {}
        self.ended: set[str] = set()
        self.restarts = 0
        self.restart()
        # What must not be touched: another account's job, another daemon's, and one made by hand.
        self.others = [
            self.server.add(self.name(0) + MARK, "someone", ""),
            self.server.add(self.name(1) + ".jfedcba", "tomography", ""),
            self.server.add("by-hand", "tomography", ""),
        ]

    def name(self, series: int) -> str:
        return f"TS_{series}-3fa2c1d0.1.1.a{self.attempt[series]}"

    def restart(self) -> None:
        self.desk.restart({})
        self.desk.manager.commands = self.server
        self.desk.manager._asking._commands = self.server
        self.restarts += 1

    async def step(self) -> None:
        self.desk.now += 3
        self.server.tick()
        for series in range(SERIES):
            if series not in self.job_ids:
                await self.submit(series)
        await self.look()

    async def submit(self, series: int) -> None:
        folder = self.desk.folder / "attempts" / self.name(series)
        if not folder.exists():
            self.desk.spec(self.name(series))
        spec = self.desk.spec(self.name(series), fresh=False)
        try:
            self.job_ids[series] = await self.desk.manager.submit(spec)
        except Unsure as error:
            if error.absent:
                there = self.server.seen(spec.job_name + MARK)
                assert self.server.forgot or not there, "it is absent when it is said to be"
                self.give_up(series, str(folder))
        except Temporary:
            pass
        except Permanent as error:
            raise AssertionError(error) from error
        except Killed:
            self.restart()

    def give_up(self, series: int, folder: str) -> None:
        claimed_by = revoke(folder)
        if claimed_by:
            self.job_ids[series] = claimed_by
        else:
            self.attempt[series] += 1

    async def look(self) -> None:
        manager = self.desk.manager
        manager.expect(list(self.job_ids.values()))
        told = set(self.job_ids.values())
        there = {job.job_id: job.state for job in self.server.jobs.values() if job.job_id in told}
        try:
            seen = await manager.jobs()
        except Temporary:
            return
        if manager._tidying._task is not None:
            await manager._tidying._task
        listed = {job.job_id: job for job in seen.jobs}
        if seen.complete:
            for job_id, state in there.items():
                if job_id in self.ended:
                    continue  # it was told once that it is over
                assert job_id in listed, "what is there is never left out of a whole answer"
                assert listed[job_id].state is not JobState.COMPLETED or state == "C"
        self.ended |= {job.job_id for job in seen.jobs if job.state is JobState.COMPLETED}
        assert not {job.job_id for job in self.others} & listed.keys()
        for series, job_id in list(self.job_ids.items()):
            job = listed.get(job_id)
            over = (seen.complete and job is None) or (job is not None and job.state is JobState.COMPLETED)
            if over and not self.claimed(series):  # ended, or was deleted, before it claimed
                del self.job_ids[series]
                self.give_up(series, str(self.desk.folder / "attempts" / self.name(series)))

    def claimed(self, series: int) -> bool:
        folder = self.desk.folder / "attempts" / self.name(series)
        return any(path.name.startswith("claimed.") for path in folder.iterdir())


async def lived(folder: Path, seed: int, trouble: float) -> World:
    """Trouble, a calm in which nothing starts, trouble again, and a long calm."""
    world = World(folder, seed, trouble)
    await troubled(world, 8, trouble)
    world.server.frozen = True
    await calm(world, 12)
    live = [job.name for job in world.server.live() if job not in world.others]
    assert sorted(live) == sorted(set(live)), "of two jobs of one name, one was deleted"
    assert {name.removesuffix(MARK) for name in live} <= set(map(world.name, range(SERIES))), (
        "of this attempt"
    )
    world.server.frozen = False
    await troubled(world, 30, trouble)
    await calm(world, 45)
    return world


async def troubled(world: World, steps: int, trouble: float) -> None:
    world.server.trouble, world.server.kill = trouble, True
    for _ in range(steps):
        await world.step()
        if world.server.random.random() < 0.05:
            world.restart()


async def calm(world: World, steps: int) -> None:
    world.server.trouble, world.server.kill = 0.0, False
    for _ in range(steps):
        world.desk.now += 100  # every pause is over
        await world.step()


@pytest.mark.parametrize("seed", range(40))
async def test_every_series_runs_once_and_nothing_is_left(seed: int, tmp_path: Path) -> None:
    world = await lived(tmp_path, seed, trouble=(0.2, 0.5, 0.8)[seed % 3])
    ran = [name.rpartition(".a")[0] for name, _ in world.server.claims]
    assert sorted(ran) == sorted(world.name(series).rpartition(".a")[0] for series in range(SERIES))
    assert world.server.live() == world.others, "no job of ours is left in the queue"
    assert not {job.job_id for job in world.others} & set(world.server.deleted)
    claimed = {job_id for _, job_id in world.server.claims}
    assert not claimed & set(world.server.deleted), "what works is never deleted"


async def test_the_faults_really_happen(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    worlds = [await lived(tmp_path / str(seed), seed, 0.6) for seed in range(8)]
    assert sum(world.restarts for world in worlds) > 12
    assert sum(max(world.attempt.values()) for world in worlds) > len(worlds), "some attempts were revoked"
    assert any(world.server.deleted for world in worlds), "some second jobs were deleted"
    counted = {one.outcome for world in worlds for one in world.desk.manager.counts()}
    assert {"ok", "timeout"} <= counted
    await asyncio.sleep(0)
