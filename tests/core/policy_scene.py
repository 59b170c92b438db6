"""A core with two feeds, some nodes and policies from text; jobs start and end as the test says."""

from __future__ import annotations

from collections.abc import Iterable

from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.model import (
    CivilTime,
    Dataset,
    Failure,
    FilePrint,
    Fingerprint,
    JobSteps,
    Measured,
    NodeInfo,
    Options,
    Outcome,
    Placement,
    Policy,
    ResourceRequest,
    RunEnd,
    Sighting,
    State,
    TiltSeries,
    Verdict,
)
from tiltd.daemon.core.site import FeedInfo, Site
from tiltd.daemon.core.state import CoreState
from tiltd.policy.policy import Known, load

GB = 10**9
AT = 1_700_000_000.0
KNOWN = Known(zones={"Europe/Berlin", "America/New_York"}, pipelines={"p", "q"})


class Pipeline:
    """Asks little; remembers with which options it was asked."""

    def __init__(self) -> None:
        self.asked: list[Options] = []
        self.failure_class = "program"

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        self.asked.append(options)
        return ResourceRequest(memory_bytes=GB, scratch_bytes=2 * GB, result_bytes=GB, walltime_seconds=600.0)

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        return JobSteps(steps=())

    def judge(self, outcome: Outcome) -> Verdict:
        failure = Failure(failure_class=self.failure_class, reason="exit", detail="it failed")  # type: ignore[arg-type]
        return Verdict(verdict="failed", failure=failure)


def policy(*texts: str) -> Policy:
    """The built-in defaults with these texts over them; quiet at once."""
    quick = '[completeness]\nquiet_min = "1s"\n[placement]\nscratch_margin = "0B"\n'
    found = load([(f"{n}.toml", text) for n, text in enumerate((quick, *texts))], known=KNOWN)
    assert isinstance(found, Policy), found
    return found


class Scene:
    """Each step is a second later than the last."""

    def __init__(
        self,
        *texts: str,
        nodes: int = 4,
        cores: int = 4,
        state: CoreState | None = None,
        options: Options | None = None,
    ) -> None:
        feeds = {
            name: FeedInfo(
                name=name, pipeline="p", destination="/results/{series}", options=dict(options or {})
            )
            for name in ("f", "g")
        }
        self.pipelines = {"p": Pipeline(), "q": Pipeline()}
        self.core = Core(Site(feeds=feeds), policy(*texts), dict(self.pipelines), state)
        self.now = AT
        self.effects: list[e.Effect] = []
        self.facts: list[object] = []
        self.jobs = 0
        self.shape = (nodes, cores)
        self.core.recover(AT)
        self.look_at_nodes()

    def step(self, kind: type[o.Observation], seconds: float = 1.0, **fields: object) -> Step:
        self.now += seconds
        done = self.core.handle(kind(at=self.now, **fields))
        assert self.core.bugs == []
        self.effects += done.effects
        self.facts += done.facts
        return done

    def wait(self, seconds: float) -> None:
        """Let the time pass, and be woken whenever the core asked for it."""
        until_at = self.now + seconds
        while (at := self.core.next_wake_at) is not None and at <= until_at:
            self.step(o.TimeReached, max(0.0, at - self.now))
        self.now = max(self.now, until_at)

    def look_at_nodes(self) -> None:
        count, cores = self.shape
        nodes = tuple(
            NodeInfo(
                name=f"n{number}",
                state="free",
                cores=cores,
                cores_free=cores,
                memory_bytes=64 * GB,
                scratch_total_bytes=1000 * GB,
                scratch_free_bytes=1000 * GB,
                scratch_path="/scratch",
                observed_at=self.now,
            )
            for number in range(count)
        )
        self.step(o.NodesObserved, nodes=nodes)

    def adopt(self, *texts: str, civil: Iterable[CivilTime] = ()) -> Policy:
        new = policy(*texts)
        self.step(o.PolicyLoaded, policy=new, reason="change", civil=tuple(civil))
        return new

    def see(self, name: str, *, feed: str = "f", size: int = GB, content: str = "1", **labels: str) -> None:
        self.step(
            o.FilesObserved, feed=feed, up=True, sightings=(sighting(name, size, content, labels),), gone=()
        )

    def see_all(self, names: Iterable[str]) -> None:
        """Series that are complete at one instant."""
        self.step(
            o.FilesObserved,
            feed="f",
            up=True,
            sightings=tuple(sighting(n, GB, "1", {}) for n in names),
            gone=(),
        )
        self.wait(3.0)

    def complete(self, name: str, **more: object) -> Dataset:
        """Seen, and quiet for long enough."""
        self.see(name, **more)  # type: ignore[arg-type]
        self.wait(3.0)
        return self.of(name)

    def of(self, name: str) -> Dataset:
        (found,) = (d for d in self.core.state.datasets.values() if d.tilt_series_name == name)
        return found

    def state(self, name: str) -> State:
        return self.of(name).state

    def running(self) -> list[str]:
        """Names of those with a live attempt, by the time at which they were placed."""
        live = [d for d in self.core.state.datasets.values() if d.live_attempt is not None]
        return [d.tilt_series_name for d in sorted(live, key=lambda d: d.attempts[-1].placed_at)]

    # -- jobs ----------------------------------------------------------------------------------------------

    def start(self, name: str, phase: str = "") -> None:
        self.jobs += 1
        attempt_id, job = self.of(name).attempts[-1].attempt_id, str(self.jobs)
        self.step(o.SubmitAnswered, attempt_id=attempt_id, job_id=job)
        self.step(o.SpoolObserved, attempt_id=attempt_id, claimed_by=job, claimed_at=self.now)

    def finish(self, name: str, seconds: float = 100.0, outcome: str = "success", **fields: object) -> None:
        """Start it, let ``seconds`` pass, and end it; delivered and released if it was a success."""
        self.start(name)
        self.now += seconds
        self.end(name, seconds, outcome, **fields)

    def end(self, name: str, seconds: float = 100.0, outcome: str = "success", **fields: object) -> None:
        """The end of what runs: delivered and released if it was a success."""
        attempt = self.of(name).attempts[-1]
        node = attempt.placement.nodes[0]
        end = RunEnd(
            job_id=attempt.job_id,
            nonce="n",
            outcome=outcome,  # type: ignore[arg-type]
            ended_at=self.now,
            node=node,
            measured=Measured(run_seconds=seconds, peak_memory_bytes=GB, peak_scratch_bytes=GB),
            **fields,  # type: ignore[arg-type]
        )
        self.step(o.SpoolObserved, attempt_id=attempt.attempt_id, end=end)
        if outcome == "success":
            self.step(
                o.CollectAnswered,
                attempt_id=attempt.attempt_id,
                result_path=f"/results/{name}",
                result_bytes=GB,
                verdict="good",
                measured=end.measured,
            )
        else:
            for _ in range(2):
                self.step(o.JobsObserved, jobs=(), complete=True, asked_at=self.now)
        self.step(o.ReleaseAnswered, attempt_id=attempt.attempt_id, node=node)

    def ask(self, action: str, name: str, **fields: object) -> e.Reply:
        done = self.step(
            o.OperatorAsked,
            action=action,
            dataset_id=self.of(name).dataset_id,
            by="op",
            request_id="1",
            **fields,
        )
        (reply,) = (effect for effect in done.effects if isinstance(effect, e.Reply))
        return reply


def sighting(name: str, size: int, content: str, labels: dict[str, str]) -> Sighting:
    files = Fingerprint(
        files=(FilePrint(relative_path=name, size_bytes=size, piece_bytes=65536, head_sha256=content),)
    )
    series = TiltSeries(
        tilt_series_name=name,
        kind="stack",
        fingerprint=files,
        stack_path=name,
        mdoc_path=f"{name}.mdoc",
        tilt_angles_deg=tuple(3.0 * n for n in range(41)),
        image_size=(4096, 4096),
        pixel_spacing_angstrom=2.2,
    )
    return Sighting(
        series_key=name,
        tilt_series_name=name,
        kind="stack",
        size_bytes=size,
        mtime_ns=1,
        stat_signature=f"{name}-{content}",
        labels=labels,
        series=series,
        section_count=41,
    )
