"""The batch server: queue, nodes, starts and ends.  No process, no socket, no clock of its own.

Time, timers and processes are given to it, so that the same server runs in real time over real processes and
in virtual time over pretended ones.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from . import asking
from .admission import admitted, suits
from .records import TERMINATED, WALLTIME, BatchJob, Node, Queue, Refused

WRONG_STATE = "Request invalid for state of job MSG=invalid state for job - COMPLETE"
NO_MOM = "Server could not connect to MOM"
MOM_TIMED_OUT = (
    "RMFailure  (cannot start job - RM failure, rc: 15043, msg: "
    "'Execution server rejected request MSG=connection to mom timed out')"
)
NO_RESERVATION = "NoResources  (cannot create reservation for job '{}' (intital reservation attempt)\n)"
NO_SIZE_BYTES = 1 << 20
"""What Maui takes a node's disk for when its mom reports none."""


class Execution(Protocol):
    """What runs jobs; it tells their end by :meth:`Batch.finished`."""

    def start(self, job: BatchJob, nodes: Sequence[Node]) -> int:
        """Begin; the session's number."""
        ...

    def signal(self, job: BatchJob, number: int) -> None:
        """To the whole session; to all that the job left behind too if the number is KILL of a node."""
        ...

    def kill_node(self, node: Node) -> None:
        """The machine is off: everything that ever ran there is gone, janitors included."""
        ...

    def deliver(self, job: BatchJob) -> bool:
        """Copy the output back; false where that cannot be done."""
        ...

    def free_bytes(self, node: Node) -> int:
        """Of the node's scratch."""
        ...


@dataclasses.dataclass
class Pace:
    """How fast this cluster is; the defaults are what was measured on the real one."""

    cycle_seconds: float = 0.8
    status_seconds: float = 45.0
    down_after_seconds: float = 200.0
    keep_completed_seconds: float = 300.0
    defer_seconds: float = 3600.0
    kill_after_seconds: float = 0.03
    exiting_seconds: float = 0.1


class Batch:
    """Costs: a submission looks at every node; a cycle at every queued job and free node."""

    def __init__(
        self, nodes: Sequence[Node], execution: Execution, now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object], pace: Pace | None = None,
        queues: Sequence[Queue] = (Queue("batch"),),
    ) -> None:  # fmt: skip
        self.nodes = {node.name: node for node in nodes}
        self.queues = {queue.name: queue for queue in queues}
        self.default_queue = queues[0].name
        self.jobs: dict[int, BatchJob] = {}
        self.pace = pace or Pace()
        self.next_number = 0
        self.started_total = 0
        self._execution, self._now, self._later = execution, now, later
        self._cycling = False
        self._ending: dict[int, int | None] = {}
        for node in nodes:
            self._tell(node)
        self._later(self.pace.status_seconds, self._status)

    def now(self) -> float:
        return self._now()

    # -- what commands ask -----------------------------------------------------------------------------------

    def submit(self, asked: asking.Asked, user: str) -> BatchJob:
        """Raises Refused with Torque's own code and words."""
        queue = self.queues.get(asked.queue or self.default_queue)
        job = admitted(asked, user, queue, self.jobs, self.nodes.values(), self.next_number, self._now())
        self.jobs[job.number] = job
        self.next_number += 1
        self.cycle_soon()
        return job

    def delete(self, job: BatchJob) -> None:
        """qdel.  Raises Refused: of a job that is over, or whose node is away."""
        if job.state == "C":
            raise Refused(170, WRONG_STATE)
        if job.state in "RES":
            if self._away(job):
                raise Refused(224, NO_MOM)
            self._end_by_force(job, TERMINATED)
        else:
            self._over(job, None)

    def hold(self, job: BatchJob, kind: str = "u") -> None:
        """qhold (``u``), or the system's own hold (``s``).  A running job only gets the mark."""
        job.hold = kind
        self._change(job, "H" if job.state in "QHW" else job.state)

    def release(self, job: BatchJob) -> None:
        job.hold, job.deferred = "n", ""
        if job.state == "H":
            self._change(job, "Q")
            self.cycle_soon()

    def rerun(self, job: BatchJob) -> None:
        """R -> Q: its processes are ended, and what they ended with stays in the record, stale."""
        if job.state != "R":
            raise Refused(170, f"Request invalid for state of job MSG=job {job.job_id} is in a bad state")
        self._ending[job.number] = None
        self._execution.signal(job, signal.SIGTERM)
        self._later(self.pace.kill_after_seconds, lambda: self._execution.signal(job, signal.SIGKILL))

    # -- starting --------------------------------------------------------------------------------------------

    def cycle_soon(self) -> None:
        if not self._cycling:
            self._cycling = True
            self._later(self.pace.cycle_seconds, self.cycle)

    def cycle(self) -> None:
        """Start what fits, the oldest first, and what fits behind it."""
        self._cycling = False
        queued = [
            job
            for job in self.jobs.values()
            if job.state == "Q" and not job.deferred and self.queues[job.queue].started
        ]
        for job in sorted(queued, key=lambda job: (-job.priority, job.number)):
            if not any(node.state == "free" and node.free_processors() for node in self.nodes.values()):
                return
            if self._never(job):
                self._defer(job, NO_RESERVATION.format(job.number))
            elif chosen := self._choose(job):
                self._start(job, chosen)

    def _choose(self, job: BatchJob) -> list[tuple[Node, tuple[int, ...]]]:
        """A node with its processors for each that is asked for; empty when they are not all there."""
        chosen: list[tuple[Node, tuple[int, ...]]] = []
        for ask in job.asks:
            fitting = [
                node
                for node in self.nodes.values()
                if node.state == "free"
                and node.name not in [there.name for there, _ in chosen]
                and suits(node, ask)
                and len(node.free_processors()) >= ask.ppn
                and self.disk_left(node) >= job.file_bytes * ask.ppn
            ]
            if len(fitting) < ask.count:
                return []
            chosen += [(node, tuple(node.free_processors()[: ask.ppn])) for node in fitting[: ask.count]]
        return chosen

    def disk_left(self, node: Node) -> int:
        """As Maui counts: configured less the larger of what is used and what is dedicated."""
        configured = node.pretend.scratch_bytes if node.reports_size else NO_SIZE_BYTES
        dedicated = sum(self.jobs[int(job_id.partition(".")[0])].file_bytes for job_id in node.taken.values())
        used = node.pretend.scratch_bytes - node.told_free_bytes if node.reports_size else 0
        return configured - max(used, dedicated)

    def _never(self, job: BatchJob) -> bool:
        return any(
            not any(
                suits(node, ask)
                and job.file_bytes * ask.ppn
                <= (node.pretend.scratch_bytes if node.reports_size else NO_SIZE_BYTES)
                for node in self.nodes.values()
            )
            for ask in job.asks
            if job.file_bytes
        )

    def _defer(self, job: BatchJob, reason: str) -> None:
        job.deferred = reason
        self._later(self.pace.defer_seconds, lambda: self._undefer(job))

    def _undefer(self, job: BatchJob) -> None:
        job.deferred = ""
        self.cycle_soon()

    def _start(self, job: BatchJob, chosen: list[tuple[Node, tuple[int, ...]]]) -> None:
        job.start_count += 1
        job.started_at = self._now()
        if any(node.away_since_at for node, _ in chosen):
            self._change(job, "Q")
            self._defer(job, MOM_TIMED_OUT)
            return
        job.hosts = tuple((node.name, processors) for node, processors in chosen)
        for node, processors in chosen:
            node.taken.update(dict.fromkeys(processors, job.job_id))
        job.ended_at, job.exit_status = 0.0, None
        job.homes = tuple(node.home for node, _ in chosen)
        self.started_total += 1
        self._change(job, "R")
        job.session_id = self._execution.start(job, [node for node, _ in chosen])

    # -- ending ----------------------------------------------------------------------------------------------

    def finished(self, job: BatchJob, status: int, start_count: int) -> None:
        """Told by the execution; a word about an earlier start is not heard."""
        known = self.jobs.get(job.number) is job and job.state == "R" and job.start_count == start_count
        if not known or job.lost:
            return
        if self._away(job):
            job.untold_status = status
            return
        if job.number in self._ending:
            forced = self._ending.pop(job.number)
            if forced is None:
                self._requeue(job, status)
                return
            status = forced
        job.exit_status = status
        self._change(job, "E")
        self._later(self.pace.exiting_seconds, lambda: self._delivered(job))

    def _delivered(self, job: BatchJob) -> None:
        if job.state == "E":
            job.undelivered = not self._execution.deliver(job)
            self._over(job, job.exit_status)

    def _requeue(self, job: BatchJob, status: int) -> None:
        self._free(job)
        job.stale_exit_status, job.session_id = 0, 0
        self._change(job, "Q")
        self.cycle_soon()

    def _over(self, job: BatchJob, status: int | None) -> None:
        self._free(job)
        job.exit_status, job.ended_at = status, self._now()
        self._change(job, "C")
        self._later(self.pace.keep_completed_seconds, lambda: self.forget(job))
        for other in self.jobs.values():
            if other.state == "H" and job.job_id in other.depends_on:
                self.release(other) if status == 0 else self._over(other, TERMINATED)
        self.cycle_soon()

    def _free(self, job: BatchJob) -> None:
        for name, processors in job.hosts:
            for processor in processors:
                if self.nodes[name].taken.get(processor) == job.job_id:
                    del self.nodes[name].taken[processor]

    def _end_by_force(self, job: BatchJob, status: int) -> None:
        """TERM to the session, and KILL when the login shell has died of it."""
        self._ending[job.number] = status
        self._execution.signal(job, signal.SIGTERM)
        self._later(self.pace.kill_after_seconds, lambda: self._execution.signal(job, signal.SIGKILL))

    def forget(self, job: BatchJob) -> None:
        """The server knows it no more, whatever its processes do."""
        if self.jobs.get(job.number) is job:
            del self.jobs[job.number]
            self._free(job)

    def _change(self, job: BatchJob, state: str) -> None:
        job.state = state  # type: ignore[assignment]
        job.changed_at = self._now()

    # -- nodes -----------------------------------------------------------------------------------------------

    def _away(self, job: BatchJob) -> bool:
        return any(self.nodes[name].away_since_at for name in job.nodes())

    def node_lost(self, node: Node, dies: bool) -> None:
        """Out of reach, its jobs running on; or off, with everything that ran there."""
        node.away_since_at = self._now()
        if dies:
            self._execution.kill_node(node)
            for job in self.jobs.values():
                if job.state in "RE" and node.name in job.nodes():
                    job.lost = True

    def node_back(self, node: Node) -> None:
        """A mom that was killed with its jobs tells them as complete, with exit status 0."""
        node.away_since_at = 0.0
        node.state = "free"
        for job in list(self.jobs.values()):
            if self._away(job) or node.name not in job.nodes():
                continue
            if job.lost:
                job.lost = False
                self._over(job, 0)
            elif job.untold_status is not None:
                status, job.untold_status = job.untold_status, None
                self.finished(job, status, job.start_count)
        self._tell(node)
        self.cycle_soon()

    def _status(self) -> None:
        """What every mom does now and then: tell of itself, and end what is beyond its walltime."""
        now = self._now()
        for node in self.nodes.values():
            if not node.away_since_at:
                self._tell(node)
            elif node.state == "free" and now >= node.away_since_at + self.pace.down_after_seconds:
                node.state = "down"
        for job in self.jobs.values():
            late = job.state == "R" and now > job.started_at + job.walltime_seconds
            if late and not self._away(job) and job.number not in self._ending:
                self._end_by_force(job, WALLTIME)
        self._later(self.pace.status_seconds, self._status)

    def _tell(self, node: Node) -> None:
        node.rectime = int(self._now())
        node.told_free_bytes = max(0, self._execution.free_bytes(node))
        node.told_jobs = tuple(dict.fromkeys(node.taken.values()))
        node.told_sessions = tuple(
            self.jobs[int(job_id.partition(".")[0])].session_id
            for job_id in node.told_jobs
            if int(job_id.partition(".")[0]) in self.jobs
        )
        used = node.pretend.scratch_bytes - node.told_free_bytes
        node.most_used_bytes = max(node.most_used_bytes, used)
