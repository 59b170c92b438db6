"""A core with one feed, one node and a pipeline that can be told to misbehave; time is what the test says."""

from __future__ import annotations

from collections.abc import Sequence

from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.model import (
    Dataset,
    Failure,
    FilePrint,
    Fingerprint,
    JobSteps,
    NodeInfo,
    Options,
    Outcome,
    Placement,
    Policy,
    ResourceRequest,
    RunEnd,
    Sighting,
    TiltSeries,
    Verdict,
)
from tiltd.daemon.core.site import FeedInfo, Site
from tiltd.daemon.core.state import CoreState
from tiltd.plugins.api import Permanent

GB = 10**9
AT = 1_000_000.0


class Pipeline:
    """``bug``: the name of the method that raises."""

    def __init__(self, bug: str = "") -> None:
        self.bug = bug

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        if "nosuch" in options:
            raise Permanent("no such option")
        if self.bug == "request":
            raise KeyError("a bug of the pipeline")
        return ResourceRequest(cores=1, threads=1, scratch_bytes=GB, memory_bytes=GB, walltime_seconds=3600.0)

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        return JobSteps(steps=())

    def judge(self, outcome: Outcome) -> Verdict:
        if self.bug == "judge":
            raise ZeroDivisionError("a bug of the pipeline")
        failure = Failure(failure_class="program", reason="exit", detail="it failed")
        return Verdict(verdict="failed", failure=failure)


class Scene:
    """``step`` handles an observation ``seconds`` later than the last."""

    def __init__(
        self, bug: str = "", state: CoreState | None = None, at: float = AT, imports: bool = False
    ) -> None:
        info = FeedInfo(name="f", pipeline="p", destination="/results/{series}", imports=imports)
        self.core = Core(Site(feeds={"f": info}), Policy(version="1"), {"p": Pipeline(bug)}, state)
        self.now = at
        self.effects: list[e.Effect] = []
        self.core.recover(at)

    def step(self, kind: type[o.Observation], seconds: float = 1.0, **fields: object) -> Step:
        self.now += seconds
        done = self.core.handle(kind(at=self.now, **fields))
        self.effects += done.effects
        return done

    def wait(self, seconds: float) -> None:
        """Let the time pass, and be woken whenever the core asked for it."""
        until_at = self.now + seconds
        while (at := self.core.next_wake_at) is not None and at <= until_at:
            self.step(o.TimeReached, max(0.0, at - self.now))
        self.now = until_at

    def nodes(self, *, cores: int = 4, scratch_bytes: int = 100 * GB) -> None:
        node = NodeInfo(
            name="n",
            state="free",
            cores=cores,
            cores_free=cores,
            memory_bytes=16 * GB,
            scratch_total_bytes=scratch_bytes,
            scratch_free_bytes=scratch_bytes,
            scratch_path="/scratch",
            observed_at=self.now,
        )
        self.step(o.NodesObserved, nodes=(node,))

    def see(self, *sightings: Sighting, gone: Sequence[str] = ()) -> Step:
        return self.step(o.FilesObserved, feed="f", up=True, sightings=sightings, gone=tuple(gone))

    def complete(self, name: str = "TS", **changes: object) -> Dataset:
        """Seen, and quiet for long enough."""
        self.see(sighting(name, **changes))
        self.wait(4000.0)
        return self.dataset(name)

    def running(self, name: str = "TS") -> Dataset:
        """Complete, placed, accepted and claimed."""
        self.nodes()
        attempt_id = f"{self.complete(name).dataset_id}.a1"
        self.nodes()
        self.step(o.SubmitAnswered, attempt_id=attempt_id, job_id="7")
        self.step(o.SpoolObserved, attempt_id=attempt_id, claimed_by="7", claimed_at=self.now)
        return self.dataset(name)

    def ended(self, dataset: Dataset, **fields: object) -> Step:
        """Its runner said its last word, and the job is listed no more."""
        attempt_id = dataset.attempts[-1].attempt_id
        end = RunEnd(job_id="7", nonce="n", ended_at=self.now, node="n", **fields)  # type: ignore[arg-type]
        self.step(o.SpoolObserved, attempt_id=attempt_id, end=end)
        return self.step(o.JobsObserved, jobs=(), complete=True, asked_at=self.now)

    def ask(self, action: str, dataset: Dataset, **fields: object) -> e.Reply:
        done = self.step(
            o.OperatorAsked, action=action, dataset_id=dataset.dataset_id, by="op", request_id="1", **fields
        )
        (reply,) = (effect for effect in done.effects if isinstance(effect, e.Reply))
        return reply

    def dataset(self, name: str = "TS") -> Dataset:
        (found,) = (d for d in self.core.state.datasets.values() if d.tilt_series_name == name)
        return found


def sighting(name: str = "TS", content: str = "1", kind: str = "stack", **changes: object) -> Sighting:
    files = Fingerprint(
        files=(FilePrint(relative_path=name, size_bytes=GB, piece_bytes=65536, head_sha256=content),)
    )
    series = TiltSeries(
        tilt_series_name=name,
        kind=kind,  # type: ignore[arg-type]
        fingerprint=files,
        stack_path=name,
        mdoc_path=f"{name}.mdoc",
        tilt_angles_deg=tuple(3.0 * n for n in range(41)),
        image_size=(4096, 4096),
    )
    fields: dict[str, object] = {
        "series_key": name,
        "tilt_series_name": name,
        "kind": kind,
        "size_bytes": GB,
        "mtime_ns": 1,
        "stat_signature": content,
        "series": series,
        "section_count": 41,
    }
    return Sighting(**{**fields, **changes})  # type: ignore[arg-type]
