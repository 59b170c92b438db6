"""A small core to be asked questions: one feed, nodes by name, and an attempt brought to any point."""

from __future__ import annotations

from typing import Any

from tiltd.daemon.core import effects as e
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.model import (
    Dataset,
    FilePrint,
    Fingerprint,
    Job,
    JobState,
    NodeInfo,
    Policy,
    RunEnd,
    Sighting,
    TiltSeries,
)
from tiltd.daemon.core.site import FeedInfo, Site
from tiltd.daemon.simulate.scene import SimulatedPipeline

GB = 10**9
SITE = Site(
    feeds={
        name: FeedInfo(name=name, pipeline="simulated", destination="/results/{series}")
        for name in ("a", "b")
    }
)


def node(name: str = "n1", at: float = 0.0, **changes: Any) -> NodeInfo:
    known: dict[str, Any] = {
        "state": "free",
        "cores": 4,
        "cores_free": changes.get("cores", 4),
        "memory_bytes": 64 * GB,
        "scratch_total_bytes": 200 * GB,
        "scratch_free_bytes": 200 * GB,
    }
    return NodeInfo(name=name, scratch_path="/scratch", observed_at=at, **(known | changes))


def sighting(name: str, content: str = "1", size_bytes: int = 2 * GB, **changes: Any) -> Sighting:
    stack = FilePrint(relative_path=f"{name}.mrc", size_bytes=size_bytes, piece_bytes=1, head_sha256=content)
    series = TiltSeries(
        tilt_series_name=name,
        kind="stack",
        fingerprint=Fingerprint(files=(stack,)),
        stack_path=f"{name}.mrc",
        tilt_angles_deg=tuple(float(n) for n in range(-20, 21)),
        image_size=(64, 64),
    )
    known: dict[str, Any] = {"series": series, "section_count": 41, "stat_signature": content}
    return Sighting(
        series_key=f"{name}.mrc",
        tilt_series_name=name,
        kind="stack",
        size_bytes=size_bytes,
        mtime_ns=1,
        **(known | changes),
    )


class Bench:
    """A core with a clock that the test turns.  Every observation is kept legal by ``bugs`` staying empty."""

    def __init__(self, *nodes: NodeInfo, policy: Policy | None = None) -> None:
        self.core = Core(SITE, policy or Policy(version="test"), {"simulated": SimulatedPipeline()})
        self.now = 0.0
        self.facts: list[f.Fact] = []
        self.effects: list[e.Effect] = []
        self.nodes = nodes or (node(),)
        self.see_nodes()

    def take(self, observation: o.Observation) -> Step:
        step = self.core.handle(observation)
        self.facts += step.facts
        self.effects += step.effects
        assert self.core.bugs == []
        return step

    def tell(self, kind: type[o.Observation], **fields: Any) -> Step:
        return self.take(kind(at=self.now, **fields))

    def wait(self, seconds: float, *, nodes: bool = True) -> None:
        """Let time pass, waking the core whenever it asked for it."""
        until = self.now + seconds
        while (at := self.core.next_wake_at) is not None and at <= until:
            self.now = max(self.now, at)
            if nodes:
                self.see_nodes()
            self.tell(o.TimeReached)
        self.now = until
        if nodes:
            self.see_nodes()

    def see_nodes(self, *nodes: NodeInfo) -> None:
        from msgspec.structs import replace

        self.nodes = nodes or self.nodes
        seen = tuple(n if n.state == "down" else replace(n, observed_at=self.now) for n in self.nodes)
        self.tell(o.NodesObserved, nodes=seen)

    def see(
        self, *sightings: Sighting, feed: str = "a", gone: tuple[str, ...] = (), first: bool = False
    ) -> Step:
        return self.tell(o.FilesObserved, feed=feed, up=True, sightings=sightings, gone=gone, first=first)

    def arrive(self, name: str = "TS", feed: str = "a", **changes: Any) -> str:
        """A series that is complete; its dataset's id."""
        self.see(sighting(name, **changes), feed=feed)
        self.wait(301.0)
        return next(d.dataset_id for d in self.core.state.datasets.values() if d.tilt_series_name == name)

    def submitted(self, name: str = "TS", **changes: Any) -> str:
        """A series with an accepted job; the attempt's id (the job's is ``job``)."""
        dataset_id = self.arrive(name, **changes)
        attempt_id = f"{dataset_id}.a{len(self.of(dataset_id).attempts)}"
        self.tell(o.SubmitAnswered, attempt_id=attempt_id, job_id="job")
        return attempt_id

    def running(self, name: str = "TS", **changes: Any) -> str:
        attempt_id = self.submitted(name, **changes)
        self.tell(o.SpoolObserved, attempt_id=attempt_id, claimed_by="job", claimed_at=self.now)
        return attempt_id

    def end(self, attempt_id: str, outcome: str = "success", reason: str = "", **changes: Any) -> Step:
        end = RunEnd(
            job_id="job",
            nonce="",
            outcome=outcome,
            ended_at=self.now,
            node="n1",
            reason=reason,
            **changes,  # type: ignore[arg-type]
        )
        return self.tell(o.SpoolObserved, attempt_id=attempt_id, claimed_by="job", end=end)

    def jobs(
        self, state: JobState | None = None, *, complete: bool = True, job_id: str = "job", **changes: Any
    ) -> Step:
        """One answer; without a state the job is not in it."""
        self.now += 1.0
        listed = () if state is None else (Job(job_id=job_id, job_name="", owner="", state=state, **changes),)
        return self.tell(o.JobsObserved, jobs=listed, complete=complete, asked_at=self.now)

    def ask(self, action: str, dataset_id: str, **fields: Any) -> e.Reply:
        step = self.tell(
            o.OperatorAsked, action=action, dataset_id=dataset_id, by="op", request_id="1", **fields
        )
        return next(effect for effect in step.effects if isinstance(effect, e.Reply))

    def release(self, attempt_id: str, node_name: str = "n1") -> None:
        self.tell(o.ReleaseAnswered, attempt_id=attempt_id, node=node_name)

    def of(self, some_id: str) -> Dataset:
        """The dataset of this id, or of this attempt's."""
        return self.core.state.datasets[some_id.partition(".a")[0]]

    def outstanding(self) -> set[str]:
        return {type(effect).__name__ for effect in self.core.outstanding()}

    def kinds(self) -> list[str]:
        return [type(fact).__name__ for fact in self.facts]
