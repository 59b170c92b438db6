"""Following a live attempt: from its submission to its proved end.

Two witnesses speak of a job: the resource manager (who may be unreachable, late or wrong) and the runner,
through the spool (late on NFS).  Absence of news is not news; what is concluded from what:

* a claim, or a job shown running: JobStarted;
* the runner's own success marker: JobEnded, and nothing else ever is success;
* any other end of the runner is a hint until the resource manager shows the job completed, or does not
  list it in two complete answers asked for after it was accepted;
* a job that ended without a word from its runner gets ``marker_grace_seconds`` for the word to arrive;
* a job that ended without a claim is revoked before anything is placed anew.
"""

from __future__ import annotations

from msgspec.structs import replace

from . import facts as f
from . import observations as o
from .desk import Desk
from .ending import Ending
from .model import (
    Attempt,
    Dataset,
    Job,
    JobState,
    Progress,
    Record,
    RunEnd,
    State,
)
from .placing import Placing

LIVE = frozenset({State.RESERVED, State.QUEUED, State.RUNNING})
DEADLINE_GRACE_SECONDS = 600.0
"""Beyond its walltime a job is ended by its runner, then by the resource manager; then by us."""


class Followed(Record):
    """What was seen of one live attempt; memory, not history."""

    job: Job | None = None
    job_asked_at: float = 0.0
    ended_at: float | None = None
    absent_asked_at: float | None = None
    claimed_by: str = ""
    claimed_node: str = ""
    claimed_at: float | None = None
    progress: Progress | None = None
    end: RunEnd | None = None
    news_at: float = 0.0


NOTHING_SEEN = Followed()


class Following:
    """Costs per observation: the attempts it names; one job query looks once at every live attempt."""

    def __init__(self, desk: Desk, placing: Placing) -> None:
        self._desk = desk
        self._placing = placing
        self.ending = Ending(desk, placing.deciding)
        self.seen: dict[str, Followed] = {}
        self._live: dict[str, str] = {}
        self._looking_since_at = 0.0
        desk.listen(self._changed, lambda was, now: (was in LIVE) is not (now in LIVE))

    def _changed(self, before: Dataset | None, after: Dataset | None) -> None:
        was = before.attempts[-1] if before is not None and before.attempts else None
        now = after.live_attempt if after is not None else None
        if was is not None and (now is None or now.attempt_id != was.attempt_id):
            self._live.pop(was.attempt_id, None)
        if now is not None and after is not None:
            self._live[now.attempt_id] = after.dataset_id

    def recount(self) -> None:
        """Know the live attempts again after a restart; their deadlines, and the silence of their nodes,
        count from now."""
        self._looking_since_at = self._desk.now
        for dataset in self._desk.state.datasets.values():
            self._changed(None, dataset)
            self.consider(dataset)

    def forget(self, dataset: Dataset) -> None:
        for attempt in dataset.attempts:
            self.seen.pop(attempt.attempt_id, None)

    def live(self) -> dict[str, str]:
        """Attempt id -> dataset id of every attempt that could still publish."""
        return self._live

    # -- news ----------------------------------------------------------------------------------------------

    def spool(self, seen: o.SpoolObserved) -> None:
        dataset = self._desk.dataset(self._live.get(seen.attempt_id, "")) or self._owner(seen.attempt_id)
        if dataset is None or seen.attempt_id not in [a.attempt_id for a in dataset.attempts]:
            return
        known = self.seen.get(seen.attempt_id, NOTHING_SEEN)
        if seen.claimed_by and known.job is not None and known.job.job_id != seen.claimed_by:
            # What was listed so far was another job for this attempt, which lost the claim.
            known = replace(known, job=None, ended_at=None, absent_asked_at=None)
        now = replace(
            known,
            claimed_by=seen.claimed_by or known.claimed_by,
            claimed_node=seen.claimed_node or known.claimed_node,
            claimed_at=seen.claimed_at if seen.claimed_at is not None else known.claimed_at,
            progress=seen.progress or known.progress,
            end=seen.end or known.end,
            news_at=self._desk.now,
        )
        self.seen[seen.attempt_id] = now
        self._materialise(dataset, seen.attempt_id, now)
        if now.progress is not None:
            self._placing.staged(seen.attempt_id, now.progress.phase)
        self.consider(dataset)

    def _owner(self, attempt_id: str) -> Dataset | None:
        return self._desk.dataset(attempt_id.rpartition(".a")[0])

    def _materialise(self, dataset: Dataset, attempt_id: str, seen: Followed) -> None:
        """Tell the ledger since when the attempt's ballast is in the node's own figures."""
        ledger = self._desk.state.ledger
        for node in ledger.booked.get(attempt_id, ()):
            if seen.progress is not None and seen.progress.phase != "claimed":
                ledger.materialised(attempt_id, node, seen.progress.at)
            if seen.end is not None and seen.end.outcome != "stranded":
                ledger.vanished(attempt_id, node, seen.end.ended_at)
                self._placing.roomier(node)

    def jobs(self, seen: o.JobsObserved) -> None:
        by_id = {job.job_id: job for job in seen.jobs}
        datasets = self._desk.state.datasets
        for attempt_id, dataset_id in list(self._live.items()):
            dataset = datasets.get(dataset_id)
            attempt = dataset.live_attempt if dataset is not None else None
            if dataset is None or attempt is None or not attempt.job_id:
                continue
            job = by_id.get(attempt.job_id)
            if job is not None:
                known = self.seen.get(attempt_id, NOTHING_SEEN)
                if known.job != job or known.absent_asked_at is not None:
                    self._listed(dataset, known, job, seen.asked_at)
            elif seen.complete and attempt.accepted_at is not None and seen.asked_at > attempt.accepted_at:
                self._unlisted(dataset, attempt_id, seen.asked_at)

    def _listed(self, dataset: Dataset, known: Followed, job: Job, asked_at: float) -> None:
        """Its row in the list has changed, or it is back in the list."""
        ended_at = None
        if job.state is JobState.COMPLETED:
            ended_at = known.ended_at if known.ended_at is not None else self._desk.now
        self.seen[dataset.attempts[-1].attempt_id] = replace(
            known,
            job=job,
            job_asked_at=asked_at,
            ended_at=ended_at,
            absent_asked_at=None,
            news_at=self._desk.now,
        )
        self.consider(dataset)

    def _unlisted(self, dataset: Dataset, attempt_id: str, asked_at: float) -> None:
        """Once is a hint; a second complete answer, or the runner's own end, proves it."""
        known = self.seen.get(attempt_id, NOTHING_SEEN)
        if known.absent_asked_at is None:
            self.seen[attempt_id] = replace(known, absent_asked_at=asked_at)
            if known.end is None:
                return
        if known.ended_at is None:
            self.seen[attempt_id] = replace(self.seen[attempt_id], ended_at=self._desk.now)
        self.consider(dataset)

    def nodes(self) -> None:
        """After a look at the nodes: whose node is down may be lost sooner than its deadline."""
        for name, node in self._placing.nodes.items():
            if node.state != "down":
                continue
            for attempt_id in list(self._desk.state.ledger.of(name)):
                dataset = self._desk.dataset(self._live.get(attempt_id, ""))
                if dataset is not None:
                    self.consider(dataset)

    # -- conclusions ---------------------------------------------------------------------------------------

    def consider(self, dataset: Dataset) -> None:
        """Draw what follows from everything seen of this dataset's live attempt.  Doing it twice is once.

        A bug stops this dataset, and neither the others of the same look nor a start.
        """
        try:
            self._conclude(dataset)
        except Exception as bug:
            self._desk.bug(bug, dataset.dataset_id)

    def _conclude(self, dataset: Dataset) -> None:
        attempt = dataset.live_attempt
        if attempt is None or dataset.state not in LIVE:
            return
        seen = self.seen.get(attempt.attempt_id, NOTHING_SEEN)
        if seen.end is not None and seen.end.outcome == "success" and not attempt.fenced:
            self._succeeded(dataset, attempt, seen.end)
            return
        now = self._progressed(dataset, attempt, seen)
        if now is not dataset:
            dataset, attempt = now, now.live_attempt or attempt
        if seen.ended_at is None:
            self._overdue(dataset, attempt, seen)
        elif attempt.started_at is None and not seen.claimed_by:
            self._withdraw(dataset, attempt, "its job ended before it claimed the attempt")
        elif seen.end is None and self._desk.now < seen.ended_at + self._desk.policy.marker_grace_seconds:
            self._desk.wake(
                seen.ended_at + self._desk.policy.marker_grace_seconds, "dataset", dataset.dataset_id
            )
        else:
            status = seen.job.exit_status if seen.job is not None else None
            self.ending.finish(dataset, attempt, seen.end, status)
            for node in attempt.placement.nodes:
                self._placing.roomier(node)

    def _succeeded(self, dataset: Dataset, attempt: Attempt, end: RunEnd) -> None:
        self._desk.record(
            f.JobEnded(
                at=self._desk.now, dataset_id=dataset.dataset_id, attempt_id=attempt.attempt_id, end=end
            )
        )

    def _progressed(self, dataset: Dataset, attempt: Attempt, seen: Followed) -> Dataset:
        """Queued -> running by the claim or the listing; running -> queued by a requeue."""
        desk, job = self._desk, seen.job
        listed_running = job is not None and job.state in (JobState.RUNNING, JobState.SUSPENDED)
        if attempt.started_at is None and (seen.claimed_by or listed_running):
            nodes = (job.exec_host if job is not None else ()) or attempt.placement.nodes
            # The node's clock may be wrong: it cannot have started before it was placed, nor after now.
            claimed_at = seen.claimed_at if seen.claimed_at is not None else desk.now
            started_at = min(max(claimed_at, attempt.placed_at), desk.now)
            desk.record(
                f.JobStarted(
                    at=desk.now,
                    dataset_id=dataset.dataset_id,
                    attempt_id=attempt.attempt_id,
                    nodes=nodes,
                    started_at=started_at,
                    job_id=seen.claimed_by or attempt.job_id,
                )
            )
        elif (
            dataset.state is State.RUNNING
            and job is not None
            and job.state is JobState.QUEUED
            and seen.job_asked_at > dataset.state_since_at  # an older answer is no news of a requeue
        ):
            if seen.claimed_by:
                # Queued again, and started again later: what the first run's runner said is void.
                self.seen[attempt.attempt_id] = replace(seen, claimed_by="", end=None, progress=None)
            desk.record(
                f.JobRequeued(at=desk.now, dataset_id=dataset.dataset_id, attempt_id=attempt.attempt_id)
            )
        else:
            return dataset
        return desk.dataset(dataset.dataset_id) or dataset

    def _overdue(self, dataset: Dataset, attempt: Attempt, seen: Followed) -> None:
        """No end is proved.  Far beyond its walltime it is cancelled; on a lost node it is fenced."""
        desk = self._desk
        if attempt.started_at is None or attempt.lost:
            return
        # From the start of the daemon at the earliest: the clock may have jumped before it.  The runner, and
        # the resource manager, know the walltime themselves.
        since_at = max(attempt.started_at, self._looking_since_at)
        deadline_at = since_at + attempt.placement.walltime_seconds + DEADLINE_GRACE_SECONDS
        lost_at = self._lost_at(attempt, seen)
        if lost_at is not None and desk.now >= lost_at:
            self._stop(dataset, "lost", "its node is out of reach")
        elif desk.now >= deadline_at and dataset.stop_requested is None:
            self._stop(dataset, "deadline", "it is far beyond its walltime")
        else:
            for at in (lost_at, deadline_at):
                if at is not None and at > desk.now:
                    desk.wake(at, "dataset", dataset.dataset_id)

    def _lost_at(self, attempt: Attempt, seen: Followed) -> float | None:
        """When a running attempt counts as lost: its node down or silent, and no news, for long enough."""
        if not attempt.nodes:
            return None
        policy, now, nodes = self._desk.policy, self._desk.now, self._placing.nodes
        news_at = max(seen.news_at, attempt.started_at or 0.0, self._looking_since_at)
        for name in attempt.nodes:
            node = nodes.get(name)
            if node is None:
                continue
            if node.state != "down" and now - node.observed_at < policy.placement.node_stale_seconds:
                return None
            news_at = max(news_at, node.observed_at)
        return news_at + policy.node_lost_after_seconds

    def _stop(self, dataset: Dataset, intent: str, by: str) -> None:
        if dataset.stop_requested is None or intent == "lost":
            self._desk.record(
                f.StopRequested(
                    at=self._desk.now,
                    dataset_id=dataset.dataset_id,
                    intent=intent,  # type: ignore[arg-type]
                    by=by,
                )
            )

    def _withdraw(self, dataset: Dataset, attempt: Attempt, why: str) -> None:
        if attempt.revoked:
            self.ending.revoked(dataset, attempt)
        else:
            self._stop(dataset, "replace", why)
