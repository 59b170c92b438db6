"""Drives the production core through a modelled facility, with a heap of what happens next for a clock.

A series goes the same way as in the service: seen in its feed, complete after the policy's quiet time,
placed, submitted, claimed, staged in over the file server, run, staged out, verified, published, its scratch
released.  A run that exceeds the walltime asked for is killed.  Deterministic: no randomness, ties go to
what was born first.

Cost: some seven observations a series, and one look at the nodes a minute: a millisecond or two a series.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from msgspec.structs import replace

from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.model import (
    CivilTime,
    Dataset,
    Job,
    JobState,
    Measured,
    Policy,
    Progress,
    Record,
    RunEnd,
    TiltSeries,
)
from tiltd.daemon.core.site import Site
from tiltd.daemon.perform import VERIFYING
from tiltd.daemon.policies import civil_times
from tiltd.plugins.api import Pipeline

from .cluster import Hardware
from .figures import Run, run_of
from .server import FileServer
from .work import Arrival, run_seconds

SUBMIT_SECONDS = 1.0
CLAIM_SECONDS = 1.0
NOTICED_SECONDS = 0.5
RELEASE_SECONDS = 1.0
NODES_SECONDS = 60.0
IDLE_SECONDS = 86400.0
HORIZON_SECONDS = 30 * 86400.0
DAEMON_HOST = "(daemon)"


class Told(Record):
    """What one simulated run of the facility led to.  ``waiting_most`` is the longest queue."""

    runs: tuple[Run, ...]
    unfinished: tuple[str, ...]
    killed: int
    moved_bytes: float
    evaluations: int
    observations: int


Act = Callable[[], None]


class Facility:
    """One run.  ``day`` lets things happen until all is finished, or until nothing has come about for
    ``IDLE_SECONDS``, or until ``HORIZON_SECONDS`` after the last arrival.  ``keep`` gets every step that has
    facts (``Journal.append_now`` makes a history of them)."""

    def __init__(
        self,
        hardware: Hardware,
        site: Site,
        policy: Policy,
        pipelines: Mapping[str, Pipeline],
        keep: Callable[[Step], None] | None = None,
    ) -> None:
        self.hardware = hardware
        self.core = Core(site, policy, pipelines)
        self.now = 0.0
        self._keep = keep
        self.killed = 0
        self.observations = 0
        self._order = count()
        self._heap: list[tuple[float, int, Act]] = []
        self._server = FileServer(
            hardware.server_bytes_per_second,
            hardware.link_bytes_per_second,
            {DAEMON_HOST: hardware.server_bytes_per_second},
        )
        self._after: dict[str, Act] = {}
        self._arrivals: dict[tuple[str, str], Arrival] = {}
        self._runs: list[Run] = []
        self._left: set[str] = set()
        self._began: dict[str, float] = {}
        self._woken_at: float | None = None
        self._collecting = 0
        self._to_collect: deque[Act] = deque()
        self._moved_at = 0.0
        self._last_at = 0.0
        self._expected = 0

    def day(self, arrivals: Sequence[Arrival]) -> Told:
        self._last_at = max((arrival.at for arrival in arrivals), default=0.0)
        start = min((arrival.at for arrival in arrivals), default=0.0)
        self.now = start - 1.0
        self._at(self.now, self._begin)
        by_instant: dict[tuple[float, str], list[Arrival]] = {}
        for arrival in arrivals:
            self._arrivals[arrival.feed, arrival.sighting.series_key] = arrival
            by_instant.setdefault((arrival.at, arrival.feed), []).append(arrival)
        self._expected = len(arrivals)
        for (at, _), together in by_instant.items():
            self._at(at, lambda together=together: self._arrive(together))  # type: ignore[misc]
        self._turn()
        live = self.core.state.datasets
        unfinished = tuple(sorted(live.keys() - {run.dataset_id for run in self._runs}))
        return Told(
            runs=tuple(self._runs),
            unfinished=unfinished,
            killed=self.killed,
            moved_bytes=self._server.moved_bytes,
            evaluations=self.core.placing.evaluations,
            observations=self.observations,
        )

    # -- time ------------------------------------------------------------------------------------------

    def _at(self, at: float, act: Act) -> None:
        heapq.heappush(self._heap, (at, next(self._order), act))

    def _turn(self) -> None:
        while self._heap or self._after:
            transfer_at = self._server.next_end_at()
            event_at = self._heap[0][0] if self._heap else float("inf")
            if transfer_at is not None and transfer_at <= event_at:
                self.now = max(self.now, transfer_at)
                for transfer in self._server.ended(self.now):
                    self._after.pop(transfer)()
                continue
            if len(self._runs) >= self._expected and not self._after:
                return
            if event_at > min(
                max(self._moved_at, self._last_at) + IDLE_SECONDS, self._last_at + HORIZON_SECONDS
            ):
                return
            self.now = event_at
            heapq.heappop(self._heap)[2]()

    def _copy(self, transfer: str, host: str, size_bytes: float, then: Act) -> None:
        self._server.start(transfer, host, size_bytes, self.now)
        self._after[transfer] = then

    # -- the world speaks --------------------------------------------------------------------------------

    def _begin(self) -> None:
        civil = civil_times(self.core.policy, self.now)
        self._see(o.PolicyLoaded(at=self.now, policy=self.core.policy, reason="start", civil=civil))
        self._await_hour(civil)
        for feed in self.core.desk.site.feeds:
            self._see(o.FilesObserved(at=self.now, feed=feed, up=True, first=True))
        self._nodes()

    def _await_hour(self, civil: Sequence[CivilTime]) -> None:
        """Rules on hours and weekdays hold in the model too."""
        if civil:
            self._at(min(time.valid_until_at for time in civil) + 0.001, self._hour)

    def _hour(self) -> None:
        civil = civil_times(self.core.policy, self.now)
        self._see(o.CivilTimeObserved(at=self.now, civil=civil))
        self._await_hour(civil)

    def _nodes(self) -> None:
        seen = tuple(
            replace(node, observed_at=self.now)  # the ledger knows what of it is ours
            for node in self.hardware.nodes
        )
        self._see(o.NodesObserved(at=self.now, nodes=seen))
        if len(self._runs) < self._expected:
            self._at(self.now + NODES_SECONDS, self._nodes)

    def _arrive(self, together: Sequence[Arrival]) -> None:
        sightings = tuple(arrival.sighting for arrival in together)
        self._see(o.FilesObserved(at=self.now, feed=together[0].feed, up=True, sightings=sightings))

    def _see(self, observation: o.Observation) -> None:
        self.observations += 1
        step = self.core.handle(observation)
        if step.facts:
            self._moved_at = self.now
            if self._keep is not None:
                self._keep(step)
        self._note(step)
        for effect in step.effects:
            self._perform(effect)
        wake_at = self.core.next_wake_at
        if wake_at is not None and (self._woken_at is None or wake_at < self._woken_at):
            self._woken_at = wake_at
            # A real clock is never early: a wait that ends a rounding error too soon would never end.
            self._at(max(wake_at, self.now) + 0.001, self._wake)

    def _wake(self) -> None:
        self._woken_at = None
        self._see(o.TimeReached(at=self.now))

    def _note(self, step: Step) -> None:
        for record in step.records:
            if record.finalized_at is not None:
                self._runs.append(run_of(record))

    # -- effects -------------------------------------------------------------------------------------------

    def _perform(self, effect: e.Effect) -> None:
        match effect:
            case e.SubmitJob():
                self._at(self.now + SUBMIT_SECONDS, lambda: self._submitted(effect.attempt_id))
            case e.CollectResult():
                self._collect(effect.attempt_id, effect.dataset_id)
            case e.ReleaseScratch():
                answer = o.ReleaseAnswered(
                    at=self.now + RELEASE_SECONDS, attempt_id=effect.attempt_id, node=effect.node
                )
                self._at(answer.at, lambda: self._see(answer))
            case e.ImportSeries():
                path = f"/imported/{effect.dataset_id}"
                imported = o.ImportAnswered(at=self.now, dataset_id=effect.dataset_id, path=path)
                self._at(self.now, lambda: self._see(imported))
            case e.SendNotice():
                told = o.NoticeAnswered(at=self.now, notice_id=effect.notice_id, to=effect.to)
                self._at(self.now, lambda: self._see(told))
            case e.CancelJob() | e.RevokeAttempt() | e.FenceAttempt():
                pass  # nothing is lost or withdrawn in the model

    def _submitted(self, attempt_id: str) -> None:
        self._see(o.SubmitAnswered(at=self.now, attempt_id=attempt_id, job_id=f"job.{attempt_id}"))
        self._at(self.now + CLAIM_SECONDS, lambda: self._claim(attempt_id))

    def _claim(self, attempt_id: str) -> None:
        dataset = self._owner(attempt_id)
        if dataset is None or dataset.series is None or dataset.attempt is None:
            return
        self._began[attempt_id] = self.now
        placement = dataset.attempt.placement
        node = placement.nodes[0]
        self._left.add(attempt_id)
        self._at(self.now + placement.walltime_seconds, lambda: self._kill(attempt_id))
        self._see(
            o.SpoolObserved(
                at=self.now, attempt_id=attempt_id, claimed_by=f"job.{attempt_id}", claimed_node=node,
                claimed_at=self.now,
            )
        )  # fmt: skip
        series = dataset.series
        self._copy(f"{attempt_id}:in", node, series.total_bytes, lambda: self._run(attempt_id, series))

    def _run(self, attempt_id: str, series: TiltSeries) -> None:
        dataset = self._owner(attempt_id)
        if dataset is None or attempt_id not in self._left or dataset.attempt is None:
            return
        staged_at, placement = self.now, dataset.attempt.placement
        progress = Progress(phase="run", at=self.now, node=placement.nodes[0])
        self._see(o.SpoolObserved(at=self.now, attempt_id=attempt_id, progress=progress))
        arrival = self._arrivals[dataset.feed, dataset.series_key]
        seconds = arrival.pace * run_seconds(
            series.total_bytes, len(placement.nodes), placement.cores, placement.threads
        )
        node = placement.nodes[0]
        self._at(
            self.now + seconds,
            lambda: self._copy(
                f"{attempt_id}:out", node, arrival.result_bytes,
                lambda: self._ended(attempt_id, staged_at, seconds, arrival),
            )
            if attempt_id in self._left else None,
        )  # fmt: skip

    def _ended(self, attempt_id: str, staged_at: float, seconds: float, arrival: Arrival) -> None:
        dataset = self._owner(attempt_id)
        if dataset is None or attempt_id not in self._left or dataset.attempt is None:
            return
        self._left.discard(attempt_id)
        placement, decided = dataset.attempt.placement, dataset.attempt.decided
        assert decided is not None  # nothing is rescued in the model
        measured = Measured(
            stage_in_seconds=staged_at - self._began.pop(attempt_id),
            run_seconds=seconds,
            stage_out_seconds=max(0.0, self.now - staged_at - seconds),
            peak_memory_bytes=arrival.peak_memory_bytes or decided.asked_memory_bytes,
            peak_scratch_bytes=arrival.peak_scratch_bytes or decided.asked_scratch_bytes,
            stage_in_bytes=arrival.size_bytes,
            stage_out_bytes=arrival.result_bytes,
        )
        end = self._end(attempt_id, placement.nodes[0], measured)
        self._at(self.now + NOTICED_SECONDS, lambda: self._spool_end(attempt_id, end))

    def _kill(self, attempt_id: str) -> None:
        """The walltime is over."""
        if attempt_id not in self._left:
            return
        self._left.discard(attempt_id)
        self._began.pop(attempt_id, None)
        for part in ("in", "out"):
            self._server.cancel(f"{attempt_id}:{part}", self.now)
            self._after.pop(f"{attempt_id}:{part}", None)
        dataset = self._owner(attempt_id)
        if dataset is None or dataset.attempt is None:
            return
        self.killed += 1
        end = replace(
            self._end(attempt_id, dataset.attempt.placement.nodes[0], Measured()),
            outcome="failed", reason="walltime", detail="the walltime is over",
        )  # fmt: skip
        self._spool_end(attempt_id, end)
        job = Job(
            job_id=f"job.{attempt_id}", job_name=attempt_id, owner="", state=JobState.COMPLETED, exit_status=1
        )
        self._see(o.JobsObserved(at=self.now, jobs=(job,), complete=False, asked_at=self.now))

    def _end(self, attempt_id: str, node: str, measured: Measured) -> RunEnd:
        return RunEnd(
            job_id=f"job.{attempt_id}", nonce="", outcome="success", ended_at=self.now, node=node,
            measured=measured,
        )  # fmt: skip

    def _spool_end(self, attempt_id: str, end: RunEnd) -> None:
        self._see(o.SpoolObserved(at=self.now, attempt_id=attempt_id, claimed_by=end.job_id, end=end))

    def _collect(self, attempt_id: str, dataset_id: str) -> None:
        dataset = self.core.state.datasets[dataset_id]
        arrival = self._arrivals[dataset.feed, dataset.series_key]
        verified = self.hardware.verify_bytes_share * arrival.result_bytes

        def publish() -> None:
            attempt = dataset.attempt
            self._see(
                o.CollectAnswered(
                    at=self.now, attempt_id=attempt_id, result_path=f"/results/{dataset_id}",
                    result_bytes=arrival.result_bytes, verdict="good",
                    measured=attempt.end.measured if attempt is not None and attempt.end else Measured(),
                )
            )  # fmt: skip

        def verify() -> None:
            self._collecting += 1
            self._copy(f"{attempt_id}:verify", DAEMON_HOST, verified, next_one)

        def next_one() -> None:
            self._collecting -= 1
            publish()
            if self._to_collect and self._collecting < VERIFYING:
                self._to_collect.popleft()()

        if self._collecting < VERIFYING:
            verify()
        else:
            self._to_collect.append(verify)

    def _owner(self, attempt_id: str) -> Dataset | None:
        return self.core.state.datasets.get(attempt_id.rpartition(".a")[0])
