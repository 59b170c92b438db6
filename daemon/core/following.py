"""Following a live attempt: from its submission to its proved end.

Two witnesses speak of a job: the resource manager (who may be unreachable, late or wrong) and the runner,
through the spool (late on NFS).  Absence of news is not news; what is concluded from what:

* a claim, or a job shown running: JobStarted;
* the runner's own success marker: JobEnded, and nothing else ever is success;
* any other end of the runner is a hint until the resource manager shows the job completed, or does not
  list it in two complete answers asked for after it was accepted;
* a job that ended without a word from its runner gets ``marker_grace_seconds`` for the word to arrive;
* a job that ended without a claim is revoked before anything is placed anew;
* where it runs is what its runner says, or the resource manager: the booking goes over to there.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from . import facts as f
from . import observations as o
from .desk import Desk
from .ending import Ending
from .followed import BACK_IN_QUEUE, Followed, known_since_at, last_word_may_come, moved, note_move, suspended
from .model import (
    Attempt,
    Dataset,
    Job,
    JobState,
    Progress,
    RunEnd,
    State,
)
from .overdue import Overdue
from .pinning import known_as
from .placing import Placing

UNSEEN = Followed()
NOT_YET = Progress(phase="", at=0.0)
NO_BALLAST = frozenset({"", "claimed", "cleaned"})
"""Phases in which a runner has taken no scratch yet, or has given it back."""
LIVE = frozenset({State.RESERVED, State.QUEUED, State.RUNNING})
DELETED = frozenset({271, 265})
"""Exit statuses of a job that was ended from outside, by qdel or a kill (the torque notes)."""
ENDED_UNCLAIMED = "its job ended before it claimed the attempt"
"""Who asked for a stop, where the job's own end did: whatever the list shows later, we had not deleted it."""


class Following:
    """Costs per observation: the attempts it names; one job query looks once at every live attempt."""

    def __init__(self, desk: Desk, placing: Placing) -> None:
        self._desk = desk
        self._placing = placing
        self.ending = Ending(desk, placing.deciding)
        self.seen: dict[str, Followed] = {}
        self._live: dict[str, str] = {}
        self._came: set[str] = set()
        self._went: set[str] = set()
        self._overdue = Overdue(desk, placing)
        self.forgotten = 0
        """Jobs that vanished from the list without ever being shown completed, counted since the start."""
        desk.listen(self._changed, lambda was, now: (was in LIVE) is not (now in LIVE))

    def _changed(self, before: Dataset | None, after: Dataset | None) -> None:
        was = before.attempts[-1] if before is not None and before.attempts else None
        now = after.live_attempt if after is not None else None
        left = was is not None and (now is None or now.attempt_id != was.attempt_id)
        if was is not None and left and self._live.pop(was.attempt_id, ""):
            note_move(was.attempt_id, self._went, self._came)
        if now is not None and after is not None:
            self._live[now.attempt_id] = after.dataset_id
            note_move(now.attempt_id, self._came, self._went)

    def recount(self) -> None:
        """Know the live attempts again after a restart; their deadlines, and the silence of their nodes,
        count from now."""
        self._overdue.since_at = self._desk.now
        for dataset in self._desk.state.datasets.values():
            self._changed(None, dataset)
            self.consider(dataset)

    def forget(self, dataset: Dataset) -> None:
        for attempt in dataset.attempts:
            self.seen.pop(attempt.attempt_id, None)

    def live(self) -> dict[str, str]:
        """Attempt id -> dataset id of every attempt that could still publish."""
        return self._live

    def live_changes(self) -> tuple[list[str], list[str]]:
        """Attempt ids of those that came, and of those that went, since this was last asked: for the one who
        looks at the spool, who would have to compare all of them at every look."""
        came, went, self._came, self._went = self._came, self._went, set(), set()
        return sorted(came), sorted(went)

    # -- news ----------------------------------------------------------------------------------------------

    def spool(self, seen: o.SpoolObserved) -> None:
        dataset = self._desk.dataset(self._live.get(seen.attempt_id, "")) or self._owner(seen.attempt_id)
        if dataset is None or dataset.attempt_called(seen.attempt_id) is None:
            return
        known = self.seen.get(seen.attempt_id, UNSEEN)
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
        """Tell the ledger since when the attempt's ballast is in the figures of the node it stands on."""
        ledger = self._desk.state.ledger
        booked = ledger.booked.get(attempt_id, ())
        for node in booked:
            told = seen.progress if seen.progress is not None else NOT_YET
            if told.phase not in NO_BALLAST and self._stands_on(node, booked, told.node):
                ledger.materialised(attempt_id, node, told.at)
            if seen.end is not None and seen.end.outcome != "stranded":
                ledger.vanished(attempt_id, node, seen.end.ended_at)
                self._placing.roomier(node)

    def _stands_on(self, node: str, booked: tuple[str, ...], host: str) -> bool:
        """Of several nodes the first has the ballast; of a job that was queued again, the new one."""
        return len(booked) == 1 or known_as(host, self._placing.nodes) in (node, "")

    def jobs(self, seen: o.JobsObserved) -> None:
        by_id = {job.job_id: job for job in seen.jobs}
        datasets = self._desk.state.datasets
        for attempt_id, dataset_id in list(self._live.items()):
            dataset = datasets.get(dataset_id)
            if dataset is None or not (attempt := dataset.attempts[-1]).job_id:
                continue
            job = by_id.get(attempt.job_id)
            if job is not None:
                self._listed(dataset, attempt_id, job, seen.asked_at)
            elif seen.complete and known_since_at(attempt) < seen.asked_at:
                self._unlisted(dataset, attempt_id, seen.asked_at)

    def _listed(self, dataset: Dataset, attempt_id: str, job: Job, asked_at: float) -> None:
        known = self.seen.get(attempt_id, UNSEEN)
        if known.job == job and known.absent_asked_at is None:
            if job.state in BACK_IN_QUEUE and dataset.state is State.RUNNING:
                self.seen[attempt_id] = replace(known, job_asked_at=asked_at)
                self.consider(dataset)
            return
        ended_at = None
        if job.state is JobState.COMPLETED:
            ended_at = known.ended_at if known.ended_at is not None else self._desk.now
        self.seen[attempt_id] = replace(
            suspended(known, job, self._desk.now),
            job=job,
            job_asked_at=asked_at,
            ended_at=ended_at,
            absent_asked_at=None,
            news_at=self._desk.now,
            moved=moved(known.job, job),
        )
        if job.state is JobState.HELD:
            self._tell_held(dataset, job)
        self.consider(dataset)

    def _tell_held(self, dataset: Dataset, job: Job) -> None:
        said = f": {job.comment}" if job.comment else ""
        self._desk.notice(
            "job_held",
            f"{dataset.dataset_id}: the resource manager holds its job {job.job_id}{said}; release it there "
            "(qrls), or 'tiltd cancel' it",
            job.job_id,
            dataset,
        )

    def _unlisted(self, dataset: Dataset, attempt_id: str, asked_at: float) -> None:
        """Once is a hint; a second complete answer, or the runner's own end, proves it."""
        known = self.seen.get(attempt_id, UNSEEN)
        if known.absent_asked_at is None and known.job is not None and known.ended_at is None:
            self._forgot()
        if known.absent_asked_at is None:
            self.seen[attempt_id] = replace(known, absent_asked_at=asked_at)
            if known.end is None:
                return
        if known.ended_at is None:
            self.seen[attempt_id] = replace(self.seen[attempt_id], ended_at=self._desk.now)
        self.consider(dataset)

    def is_close(self) -> bool:
        """Is the resource manager's next word waited for: an end to be proved, a job to be gone or to be
        seen for the first time?  Costs the live attempts."""
        for attempt_id, dataset_id in self._live.items():
            dataset = self._desk.dataset(dataset_id)
            seen = self.seen.get(attempt_id, UNSEEN)
            if dataset is None or dataset.state is State.RESERVED:
                continue
            ended = seen.end is not None or seen.absent_asked_at is not None
            if ended or seen.job is None or dataset.stop_requested is not None:
                return True
        return False

    def job_ids(self) -> list[str]:
        """Of all live attempts that were accepted."""
        datasets = map(self._desk.dataset, self._live.values())
        attempts = [dataset.live_attempt for dataset in datasets if dataset is not None]
        return [attempt.job_id for attempt in attempts if attempt is not None and attempt.job_id]

    def _forgot(self) -> None:
        """A job that was listed and is not any more, without ever having been shown completed."""
        self.forgotten += 1
        if self._desk.site.queues:
            self._desk.notice(
                "jobs_forgotten",
                "the resource manager forgot a job before it was shown completed: its keep_completed is "
                "too short (set it to 300 seconds at least), and ends are proved late",
                f"{self._overdue.since_at:.0f}",
            )

    def listed_states(self) -> Counter[str]:
        """Jobs of live attempts by the state they were last listed in; ``unlisted``: not seen yet."""
        states: Counter[str] = Counter()
        for attempt_id in self._live:
            job = self.seen.get(attempt_id, UNSEEN).job
            states[job.state.value if job is not None else "unlisted"] += 1
        return states

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
        if dataset.state not in LIVE or (attempt := dataset.attempts[-1]).ended_at is not None:
            return
        seen = self.seen.get(attempt.attempt_id, UNSEEN)
        if seen.end is not None and seen.end.outcome == "success" and not attempt.fenced:
            self._succeeded(dataset, attempt, seen.end)
            return
        now = self._progressed(dataset, attempt, seen)
        if now is not dataset:
            dataset, attempt = now, now.live_attempt or attempt
            seen = self.seen.get(attempt.attempt_id, seen)
        if seen.ended_at is None:
            self._overdue.look(dataset, attempt, seen)
        elif attempt.started_at is None and not seen.claimed_by:
            self._withdraw(dataset, attempt, ENDED_UNCLAIMED)
        elif (
            last_word_may_come(seen, dataset.stop_requested is not None)
            and self._desk.now < seen.ended_at + self._desk.policy.marker_grace_seconds
        ):
            self._desk.wake(
                seen.ended_at + self._desk.policy.marker_grace_seconds, "dataset", dataset.dataset_id
            )
        else:
            booked = self._desk.state.ledger.booked.get(attempt.attempt_id, ())
            status = _failed_unclaimed(seen)
            if status and dataset.stop_requested is None:
                self.ending.never_claimed(dataset, attempt, status)
            else:
                self.ending.finish(dataset, attempt, seen.end, seen.job)
            for node in booked:
                self._placing.roomier(node)

    def _succeeded(self, dataset: Dataset, attempt: Attempt, end: RunEnd) -> None:
        self._desk.record(
            f.JobEnded(
                at=self._desk.now, dataset_id=dataset.dataset_id, attempt_id=attempt.attempt_id, end=end
            )
        )

    def _progressed(self, dataset: Dataset, attempt: Attempt, seen: Followed) -> Dataset:
        """Queued -> running by the claim or the listing; running -> queued by a requeue."""
        job = seen.job
        if dataset.state is State.RUNNING and job is not None and self._is_requeued(dataset, seen):
            self._requeued(dataset, attempt, seen)
            dataset = self._desk.dataset(dataset.dataset_id) or dataset
            attempt, seen = dataset.attempts[-1], self.seen[attempt.attempt_id]
            if not seen.moved:
                return dataset
        listed_running = job is not None and job.state in (JobState.RUNNING, JobState.SUSPENDED)
        if attempt.started_at is None and (seen.claimed_by or listed_running):
            self._started(dataset, attempt, seen)
            return self._desk.dataset(dataset.dataset_id) or dataset
        return dataset

    @staticmethod
    def _is_requeued(dataset: Dataset, seen: Followed) -> bool:
        """Listed as waiting again, by an answer that is newer than its start; or started anew elsewhere."""
        job = seen.job
        if job is None:
            return False
        return seen.moved or (job.state in BACK_IN_QUEUE and seen.job_asked_at > dataset.state_since_at)

    def _requeued(self, dataset: Dataset, attempt: Attempt, seen: Followed) -> None:
        """Queued again, and started again later: what the first run's runner said is void."""
        desk = self._desk
        self.seen[attempt.attempt_id] = replace(
            seen, claimed_by="", claimed_node="", claimed_at=None, end=None, progress=None
        )
        desk.state.ledger.restarted(attempt.attempt_id)
        desk.record(f.JobRequeued(at=desk.now, dataset_id=dataset.dataset_id, attempt_id=attempt.attempt_id))

    def _started(self, dataset: Dataset, attempt: Attempt, seen: Followed) -> None:
        desk = self._desk
        # The node's clock may be wrong: it cannot have started before it was placed, nor after now.
        claimed_at = seen.claimed_at if seen.claimed_at is not None else desk.now
        booked = desk.state.ledger.booked.get(attempt.attempt_id, ())
        nodes = self._where(attempt, seen)
        if seen.moved:
            self.seen[attempt.attempt_id] = replace(seen, moved=False)
        desk.record(
            f.JobStarted(
                at=desk.now,
                dataset_id=dataset.dataset_id,
                attempt_id=attempt.attempt_id,
                nodes=nodes,
                started_at=min(max(claimed_at, attempt.placed_at), desk.now),
                job_id=seen.claimed_by or attempt.job_id,
            )
        )
        for node in booked:
            if node not in nodes:
                self._placing.roomier(node)

    def _where(self, attempt: Attempt, seen: Followed) -> tuple[str, ...]:
        """The nodes it runs on: its runner's own word if that is a node that is known, else the resource
        manager's, else those it was placed on."""
        placed = attempt.placement.nodes
        claimed = known_as(seen.claimed_node, self._placing.nodes) if seen.claimed_node else ""
        if claimed and len(placed) == 1:
            return (claimed,)
        hosts = seen.job.exec_host if seen.job is not None else ()
        return tuple(dict.fromkeys(known_as(host, self._placing.nodes) or host for host in hosts)) or placed

    def replace_attempt(self, dataset: Dataset, why: str) -> None:
        """Withdraw an attempt of which nobody knows whether it was submitted, and place it anew."""
        self._overdue.stop(dataset, "replace", why)

    def _withdraw(self, dataset: Dataset, attempt: Attempt, why: str) -> None:
        if attempt.revoked:
            self.revoked(dataset, attempt)
        else:
            self._overdue.stop(dataset, "replace", why)

    def revoked(self, dataset: Dataset, attempt: Attempt) -> None:
        """No runner can claim it any more.  A job that ended by itself before it could claim is a failure of
        the node's set-up, and one that vanished may vanish again: neither comes again at once, without end.
        Any other is withdrawn as asked."""
        seen = self.seen.get(attempt.attempt_id, UNSEEN)
        status = _failed_unclaimed(seen)
        by_itself = dataset.stop_by == ENDED_UNCLAIMED
        if dataset.stop_requested not in (None, "replace"):
            self.ending.revoked(dataset, attempt)
        elif status or (by_itself and status == 0):
            self.ending.never_claimed(dataset, attempt, status)
        elif by_itself and (seen.job is None or seen.job.state is not JobState.COMPLETED):
            self.ending.vanished(dataset, attempt)
        else:
            self.ending.revoked(dataset, attempt)


def _failed_unclaimed(seen: Followed) -> int | None:
    """The exit status (0 where none is known) of a job that ended by itself before its runner could claim;
    ``None`` for any other."""
    job = seen.job
    if job is None or job.state is not JobState.COMPLETED or seen.claimed_by or seen.end is not None:
        return None
    # Killed by its limits it was at work, though the spool has not told of it.
    named = job.ending in ("walltime", "memory", "cpu time", "deleted")
    return None if named or job.exit_status in DELETED else job.exit_status or 0
