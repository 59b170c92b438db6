"""What is simulated: how many series, which nodes, how much goes wrong."""

from __future__ import annotations

from collections.abc import Mapping

from tiltd.daemon.core.model import (
    Failure,
    JobSteps,
    Options,
    Outcome,
    Placement,
    Policy,
    Record,
    ResourceRequest,
    TiltSeries,
    Verdict,
)
from tiltd.daemon.core.site import FeedInfo, Site
from tiltd.plugins.api import Pipeline

GB = 1_000_000_000
START_AT = 1_000_000_000.0
MEAN_CORE_SECONDS = 1300.0
"""What one series takes of the cluster, with the sizes of :mod:`.arrivals` and the shipped policy."""
FEEDS = ("north", "south")


class Scene(Record):
    """One simulation.  ``failures`` is the share of everything that goes wrong; ``load`` the share of the
    cluster that the arriving series ask for on average."""

    datasets: int
    seed: int = 1
    failures: float = 0.02
    nodes: int = 64
    cores: int = 16
    memory_bytes: int = 128 * GB
    scratch_bytes: int = 2000 * GB
    load: float = 0.85
    scan_seconds: float = 15.0
    jobs_seconds: float = 60.0
    nodes_seconds: float = 120.0

    @property
    def interval_seconds(self) -> float:
        """Between two series."""
        return MEAN_CORE_SECONDS / (self.load * self.nodes * self.cores)


class SimulatedPipeline:
    """Asks by size; its verdict stands in the runner's own reason."""

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        size = series.total_bytes
        return ResourceRequest(memory_bytes=2 * size, scratch_bytes=5 * size, result_bytes=size // 4)

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        return JobSteps(steps=())

    def judge(self, outcome: Outcome) -> Verdict:
        end = outcome.end
        if end.outcome == "success":
            return Verdict(verdict="good")
        reason = end.reason if end.reason in ("memory", "environment", "input") else "program"
        failure = Failure(failure_class=reason, reason=reason, detail=f"simulated: {reason}")  # type: ignore[arg-type]
        return Verdict(verdict="failed", failure=failure)


def site(scene: Scene) -> Site:
    """Two feeds; the second is imported before it is run."""
    return Site(
        feeds={
            name: FeedInfo(
                name=name,
                pipeline="simulated",
                destination=f"/results/{name}/{{series}}",
                imports=name == "south",
            )
            for name in FEEDS
        }
    )


def pipelines() -> Mapping[str, Pipeline]:
    return {"simulated": SimulatedPipeline()}


def default_policy() -> Policy:
    """The values of the shipped policy, which are those of the model too."""
    return Policy(version="simulated")
