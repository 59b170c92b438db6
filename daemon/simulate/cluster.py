"""The nodes and jobs of the simulated resource manager, as it would list them."""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from tiltd.daemon.core.model import Attempt, Job, JobState, NodeInfo

from .draws import Draws
from .scene import Scene

KEPT_SECONDS = 300.0
"""How long an ended job stays listed."""


class Node:
    """One node: what it has, and what runners have taken of its scratch."""

    __slots__ = ("cores", "memory_bytes", "name", "scratch_bytes", "seen_at", "up_at", "used_bytes")

    def __init__(self, name: str, scene: Scene) -> None:
        self.name = name
        self.cores = scene.cores
        self.memory_bytes = scene.memory_bytes
        self.scratch_bytes = scene.scratch_bytes
        self.used_bytes = 0
        self.up_at = 0.0
        self.seen_at = 0.0

    def is_up(self, now: float) -> bool:
        return now >= self.up_at

    def info(self, now: float) -> NodeInfo:
        """As observed now; of a node that is down only old figures are known."""
        up = self.is_up(now)
        if up:
            self.seen_at = now
        return NodeInfo(
            name=self.name,
            state="free" if up else "down",
            cores=self.cores,
            cores_free=self.cores,
            memory_bytes=self.memory_bytes,
            scratch_total_bytes=self.scratch_bytes,
            scratch_free_bytes=self.scratch_bytes - self.used_bytes,
            scratch_path="/scratch",
            observed_at=self.seen_at,
        )


class Folder:
    """The spool folder of one attempt, and its fate."""

    __slots__ = (
        "attempt",
        "cancels",
        "claimed_at",
        "claimed_by",
        "claimed_node",
        "collects",
        "draws",
        "fate",
        "fenced",
        "jobs",
        "releases",
        "revoked",
        "seconds",
        "submits",
    )

    def __init__(self, attempt: Attempt, draws: Draws, fate: str, seconds: float) -> None:
        self.attempt = attempt
        self.draws = draws
        self.fate = fate
        self.seconds = seconds
        self.claimed_by = self.claimed_node = ""
        self.claimed_at: float | None = None
        self.revoked = self.fenced = False
        self.submits = self.collects = self.releases = self.cancels = 0
        self.jobs: list[SimJob] = []


class SimJob:
    """One job: its row in the list of the resource manager, and whether its runner is at work."""

    __slots__ = ("folder", "gone_at", "job", "node", "ran", "running", "taken_bytes")

    def __init__(self, folder: Folder, job: Job, node: Node) -> None:
        self.folder = folder
        self.job = job
        self.node = node
        self.running = False
        self.ran = 0
        self.taken_bytes = 0
        self.gone_at: float | None = None

    @property
    def ended(self) -> bool:
        return self.gone_at is not None

    def take(self) -> None:
        """The runner's ballast stands on the node from now on."""
        self.running = True
        self.ran += 1
        self.taken_bytes = self.folder.attempt.placement.scratch_bytes
        self.node.used_bytes += self.taken_bytes

    def give_back(self) -> None:
        self.running = False
        self.node.used_bytes -= self.taken_bytes
        self.taken_bytes = 0


class Server:
    """The list of jobs.  Costs per question: the jobs that are alive or ended lately."""

    def __init__(self) -> None:
        self.jobs: dict[str, SimJob] = {}
        self._rows: dict[str, Job] = {}
        self._ended: deque[tuple[float, str]] = deque()

    def submit(self, folder: Folder, node: Node, at: float) -> SimJob:
        job_id = f"{folder.attempt.attempt_id}/{len(folder.jobs) + 1}"
        row = Job(
            job_id=job_id,
            job_name=folder.attempt.attempt_id,
            owner="tiltd",
            state=JobState.QUEUED,
            submitted_at=at,
        )
        job = SimJob(folder, row, node)
        folder.jobs.append(job)
        self.jobs[job_id] = job
        self._rows[job_id] = row
        return job

    def show(self, job: SimJob, state: JobState, exit_status: int | None = None) -> None:
        """From now on it is listed in this state."""
        hosts = (job.node.name,) if state is JobState.RUNNING else job.job.exec_host
        job.job = replace(job.job, state=state, exec_host=hosts, exit_status=exit_status)
        if job.job.job_id in self._rows:
            self._rows[job.job.job_id] = job.job

    def end(self, job: SimJob, exit_status: int, at: float) -> None:
        self.show(job, JobState.COMPLETED, exit_status)
        job.gone_at = at + KEPT_SECONDS
        self._ended.append((job.gone_at, job.job.job_id))

    def vanish(self, job: SimJob, at: float) -> None:
        """It is not listed any more, from one moment to the next."""
        job.gone_at = at
        self._drop(job.job.job_id)

    def _drop(self, job_id: str) -> None:
        self.jobs.pop(job_id, None)
        self._rows.pop(job_id, None)

    def listed(self, now: float) -> tuple[Job, ...]:
        while self._ended and self._ended[0][0] <= now:
            self._drop(self._ended.popleft()[1])
        return tuple(self._rows.values())
