"""Giving scratch on other nodes back: the runner's word, or a sweep job, and never too soon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.scene import Bench, node
from tiltd.daemon.config import Settings
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import JobSpec, JobState
from tiltd.daemon.releasing import CLEANING_SECONDS, STILL_CLEANING, SWEEP_LOST_SECONDS, Releasing
from tiltd.daemon.spool import Spool


class Manager:
    def __init__(self) -> None:
        self.specs: list[JobSpec] = []

    async def submit(self, spec: JobSpec) -> str:
        self.specs.append(spec)
        return f"{len(self.specs)}.server"


class Place:
    """An attempt that ran on n1 and failed without a word; ``at`` is the daemon's clock."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.bench = Bench(node("n1"), node("n2"))
        self.spool = Spool(root / "spool")
        self.manager = Manager()
        settings = Settings(state_dir=root, resource_manager="torque")
        self.attempt = self.bench.running()
        staging = {"staging": str(root / "results" / f".tiltd-{self.attempt}")}
        self.folder = Path(self.spool.prepare(self.attempt, {"format": 1, "nonce": "x", "output": staging}))
        self.releasing = Releasing(
            self.bench.core,
            settings,
            self.manager,  # type: ignore[arg-type]
            self.spool,
            self,  # type: ignore[arg-type]
            looks=0,
        )

    def now(self) -> float:
        return self.bench.now

    def claimed(self, node_name: str = "n1") -> None:
        (self.folder / "job.json").rename(self.folder / "claimed.1.server")
        self.tell("claimed", node_name, job_id="1.server")

    def tell(self, phase: str, node_name: str = "n1", **more: Any) -> None:
        with open(self.folder / "progress", "a") as file:
            file.write(json.dumps({"phase": phase, "node": node_name, "at": 1.0} | more) + "\n")

    def fails(self) -> None:
        self.bench.jobs(JobState.COMPLETED, exit_status=1)
        self.bench.wait(91.0)

    async def release(self, node_name: str = "n1") -> str:
        dataset_id = self.bench.of(self.attempt).dataset_id
        return await self.releasing.release(
            e.ReleaseScratch(attempt_id=self.attempt, dataset_id=dataset_id, node=node_name)
        )

    @property
    def sweep(self) -> Path:
        return self.spool.folder(f"{self.attempt}.sweep")

    def swept(self, outcome: str, **more: Any) -> None:
        document = json.loads((self.sweep / "job.json").read_text())
        (self.sweep / "job.json").rename(self.sweep / "claimed.2.server")
        end = {"job_id": "2.server", "nonce": document["nonce"], "outcome": outcome, "ended_at": 1.0}
        (self.sweep / "end").write_text(json.dumps(end | {"node": "n1"} | more) + "\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_what_nobody_claimed_is_given_back_at_once(place: Place) -> None:
    assert await place.release() == ""


async def test_it_is_given_back_when_the_runner_or_its_janitor_has_cleaned_up(place: Place) -> None:
    place.claimed("n1.cluster.example")
    place.fails()
    assert await place.release() == STILL_CLEANING
    place.tell("cleaned", "n1.cluster.example")
    assert await place.release() == ""


async def test_a_node_on_which_it_never_ran_is_free_of_it(place: Place) -> None:
    place.claimed("n2")
    place.fails()
    assert await place.release("n1") == ""
    assert await place.release("n2") != ""


async def test_after_a_requeue_every_node_has_to_be_clean(place: Place) -> None:
    place.claimed("n1")
    place.tell("claimed", "n2", job_id="1.server")
    place.tell("cleaned", "n2")
    place.fails()
    assert await place.release("n2") == ""
    assert await place.release("n1") != ""


async def test_a_sweep_job_makes_sure_where_nobody_could_speak(place: Place) -> None:
    place.claimed()
    place.fails()
    place.bench.wait(CLEANING_SECONDS)
    assert "is to see that nothing" in await place.release()
    assert "is to see that nothing" in await place.release(), "submitting twice is the manager's to answer"
    spec = place.manager.specs[0]
    assert (spec.job_name, spec.nodes, spec.floating) == (f"{place.attempt}.sweep", ("n1",), False)
    document = json.loads((place.sweep / "job.json").read_text())
    assert (document["kind"], document["sweep"]["attempts"]) == ("sweep", [place.attempt])
    place.swept("success")
    assert await place.release() == ""
    assert not place.sweep.exists()


async def test_a_sweep_that_finds_something_alive_is_told_and_sent_again(place: Place) -> None:
    place.claimed()
    place.fails()
    place.bench.wait(CLEANING_SECONDS)
    await place.release()
    place.swept("failed", detail="it belongs to a run that is still alive")
    assert "still alive" in await place.release()
    assert not place.sweep.exists()
    await place.release()
    assert len(place.manager.specs) == 2


async def test_a_sweep_of_which_nothing_is_heard_is_sent_again(place: Place) -> None:
    place.claimed()
    place.fails()
    place.bench.wait(CLEANING_SECONDS)
    await place.release()
    (place.sweep / "job.json").rename(place.sweep / "claimed.2.server")
    assert "is being swept by job 2.server" in await place.release()
    place.bench.now += SWEEP_LOST_SECONDS + 1
    place.bench.see_nodes()
    assert "nothing was heard" in await place.release()
    assert "is to see" in await place.release()


@pytest.mark.parametrize("state", ["down", "offline", "unknown"])
async def test_on_a_node_out_of_reach_it_stays_booked(place: Place, state: str) -> None:
    place.claimed()
    place.fails()
    place.bench.wait(CLEANING_SECONDS)
    place.bench.tell(o.NodesObserved, nodes=(node("n1", state=state), node("n2", at=place.now())))
    assert f"n1 is {state}" in await place.release()
    assert place.manager.specs == []


async def test_a_node_that_is_not_listed_any_more_keeps_nothing_booked(place: Place) -> None:
    place.claimed()
    place.fails()
    place.bench.tell(o.NodesObserved, nodes=(node("n2", at=place.now()),))
    assert await place.release() == ""


async def test_what_it_staged_and_nobody_publishes_is_removed(place: Place, tmp_path: Path) -> None:
    staging = tmp_path / "results" / f".tiltd-{place.attempt}"
    staging.mkdir(parents=True)
    (staging / "half").touch()
    place.claimed()
    place.fails()
    await place.release()
    assert not staging.exists()
