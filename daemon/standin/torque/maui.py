"""Maui's words on why a job waits: checkjob, showq, showstart.

Maui has a picture of its own and shows it when the server is away; nothing may be concluded from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from .admission import suits
from .batch import Batch
from .records import BatchJob, Refused, clock_time, numbered

_STATES = {"Q": "Idle", "H": "Hold", "W": "Hold", "R": "Running", "E": "Running", "S": "Suspended"}
_QUEUE_HEAD = "JOBNAME            USERNAME      STATE  PROC     WCLIMIT            QUEUETIME\n\n"


def _when(instant: float) -> str:
    return datetime.fromtimestamp(instant).astimezone().strftime("%a %b %e %H:%M:%S")


def located(batch: Batch, command: str, job_id: str, indent: int) -> BatchJob:
    """Raises Refused with Maui's two lines.  A job that is over is not known to it."""
    job = numbered(batch.jobs, job_id)
    if job is None or job.state == "C":
        blanks = " " * indent
        raise Refused(1, f"ERROR:    '{command}' failed\nERROR:{blanks}cannot locate job '{job_id}'\n\n")
    return job


def showq(batch: Batch, away: bool) -> str:
    """``away``: the server does not answer, and Maui believes that nothing runs."""
    jobs = [job for job in batch.jobs.values() if job.state != "C"]
    active = [] if away else [job for job in jobs if job.state in "RE"]
    blocked = [job for job in jobs if job.state in "HW" or job.deferred]
    idle = [] if away else [job for job in jobs if job.state == "Q" and not job.deferred]
    processors = sum(node.pretend.cores for node in batch.nodes.values())
    busy = sum(len(node.taken) for node in batch.nodes.values()) if active else 0
    nodes, busy_nodes = len(batch.nodes), sum(bool(node.taken) for node in batch.nodes.values())
    active_lines = "".join(_active(job, batch.now()) for job in active)
    count = f"{len(active)} Active Job{' ' if len(active) == 1 else 's'}"
    return (
        "ACTIVE JOBS--------------------\n"
        "JOBNAME            USERNAME      STATE  PROC   REMAINING            STARTTIME\n\n"
        f"{active_lines}\n"
        f"     {count:<14} {busy:>6} of {processors:>4} Processors Active ({_percent(busy, processors)})\n"
        f"{'':20}{busy_nodes:>6} of {nodes:>4} Nodes Active      ({_percent(busy_nodes, nodes)})\n\n"
        f"IDLE JOBS----------------------\n{_QUEUE_HEAD}{''.join(_waiting(job) for job in idle)}\n"
        f"{len(idle)} Idle Job{' ' if len(idle) == 1 else 's'}\n\n"
        f"BLOCKED JOBS----------------\n{_QUEUE_HEAD}{''.join(_waiting(job) for job in blocked)}\n"
        f"Total Jobs: {len(active) + len(idle) + len(blocked)}   Active Jobs: {len(active)}   "
        f"Idle Jobs: {len(idle)}   Blocked Jobs: {len(blocked)}\n"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f}%"


def _active(job: BatchJob, now: float) -> str:
    left = clock_time(job.started_at + job.walltime_seconds - now)
    return (
        f"{job.number:<18} {job.user:<10} {_state(job):>10} {job.processors:>5} {left:>11}  "
        f"{_when(job.started_at)}\n"
    )


def _waiting(job: BatchJob) -> str:
    return (
        f"{job.number:<18} {job.user:<10} {_state(job):>10} {job.processors:>5} "
        f"{clock_time(job.walltime_seconds):>11}  {_when(job.submitted_at)}\n"
    )


def _state(job: BatchJob) -> str:
    return "Deferred" if job.deferred else _STATES.get(job.state, "Idle")


# -- checkjob ------------------------------------------------------------------------------------------------


def checkjob(batch: Batch, job: BatchJob, verbose: bool) -> str:
    """Raises nothing; costs every node."""
    now = batch.now()
    head = f"checking job {job.number}" + (f" (RM job '{job.job_id}')" if verbose else "")
    spent = clock_time(now - job.started_at if job.state in "RE" else 0)
    waited = clock_time((job.started_at if job.state in "RE" else now) - job.submitted_at)
    started = f"StartTime: {_when(job.started_at)}\n" if job.state in "RE" else ""
    deferred = "  EState: Deferred" if job.deferred else ""
    return (
        f"\n\n{head}\n\nState: {_STATES.get(job.state, 'Idle')}{deferred}\n"
        f"Creds:  user:{job.user}  group:{job.user}  class:{job.queue}  qos:DEFAULT\n"
        f"WallTime: {spent} of {clock_time(job.walltime_seconds)}\n"
        f"SubmitTime: {_when(job.submitted_at)}\n"
        f"  (Time Queued  Total: {waited}  Eligible: {waited})\n\n"
        f"{started}Total Tasks: {job.processors}\n\n"
        f"Req[0]  TaskCount: {job.processors}  Partition: {'ALL' if job.deferred else 'DEFAULT'}\n"
        f"Network: [NONE]  Memory >= 0  Disk >= {_disk(job)}  Swap >= 0\n"
        f"Opsys: [NONE]  Arch: [NONE]  Features: {_features(job)}\n"
        f"{_dedicated(job)}{_allocated(job)}\n\n"
        f"IWD: [NONE]  Executable:  [NONE]\nBypass: 0  StartCount: {job.start_count}\n"
        f"PartitionMask: [ALL]\nFlags:       RESTARTABLE\n{_host_list(job)}{_reason(batch, job)}\n"
    )


def _disk(job: BatchJob) -> str:
    return f"{job.file_bytes >> 20}M" if job.file_bytes else "0"


def _dedicated(job: BatchJob) -> str:
    if not job.file_bytes:
        return ""
    return f"Dedicated Resources Per Task: PROCS: 1  DISK: {_disk(job)}\n"


def _features(job: BatchJob) -> str:
    names = [name for ask in job.asks for name in ask.properties]
    return "".join(f"[{name}]" for name in names) or "[NONE]"


def _allocated(job: BatchJob) -> str:
    if job.state not in "RE":
        return "\n"
    nodes = "".join(f"[{name}:{len(processors)}]" for name, processors in job.hosts)
    return f"NodeCount: {len(job.hosts)}\nAllocated Nodes:\n{nodes}\n"


def _host_list(job: BatchJob) -> str:
    hosts = "".join(f"[{ask.host}:{ask.ppn}]" for ask in job.asks if ask.host)
    return f"HostList: \n  {hosts}\n" if hosts else ""


def _reason(batch: Batch, job: BatchJob) -> str:
    """Why it does not run: the part for which anyone asks."""
    if job.state in "RE":
        return f"PE:  {job.processors:.2f}  StartPriority:  1\n"
    if job.deferred or job.state in "HW":
        hold = job.deferred.partition(" ")[0] or "User"
        said = f"job is deferred.  Reason:  {job.deferred}\n" if job.deferred else ""
        return (
            f"{said}Holds:    {'Defer' if job.deferred else 'User'}  (hold reason:  {hold})\n"
            f"PE:  {job.processors:.2f}  StartPriority:  1\n"
            f"cannot select job {job.number} for partition DEFAULT (job hold active)\n\n"
        )
    rejected = rejections(batch, job)
    idle = sum(len(node.free_processors()) for node in batch.nodes.values() if node.state == "free")
    listed = "".join(f"[{name:<13}: {count:4}]" for name, count in sorted(rejected.items()))
    return (
        f"PE:  {job.processors:.2f}  StartPriority:  1\n"
        "job cannot run in partition DEFAULT (idle procs do not meet requirements : "
        f"0 of {job.processors} procs found)\n"
        f"idle procs: {idle:3}  feasible procs: {0:3}\n\nRejection Reasons: {listed}\n\n"
    )


def rejections(batch: Batch, job: BatchJob) -> dict[str, int]:
    """Reason -> how many nodes it rejects, as Maui counts them."""
    found: dict[str, int] = {}
    for node in batch.nodes.values():
        for ask in job.asks[:1]:
            if ask.host not in ("", node.name):
                reason = "HostList"
            elif not suits(node, ask):
                reason = "Features"
            elif node.shown_state() != "free":
                reason = "State"
            elif batch.disk_left(node) < job.file_bytes * ask.ppn:
                reason = "Disk"
            else:
                reason = "CPU"
            found[reason] = found.get(reason, 0) + 1
    return found


def showstart(batch: Batch, job: BatchJob) -> str:
    """The estimate: when the first job that is in the way reaches its walltime."""
    starts_in = _earliest(batch, job)
    return (
        f"job {job.number} requires {job.processors} procs for {clock_time(job.walltime_seconds)}\n"
        + _estimate("start in        ", starts_in, batch.now())
        + _estimate("completion in   ", starts_in + job.walltime_seconds, batch.now())
        + "Best Partition: DEFAULT\n\n"
    )


def _estimate(what: str, in_seconds: float, now: float) -> str:
    return f"Earliest {what} {clock_time(in_seconds)} on {_when(now + in_seconds)}\n"


def _earliest(batch: Batch, job: BatchJob) -> float:
    hosts = {ask.host for ask in job.asks if ask.host}
    running: Iterable[BatchJob] = [other for other in batch.jobs.values() if other.state == "R"]
    ends: Sequence[float] = [
        other.started_at + other.walltime_seconds - batch.now()
        for other in running
        if not hosts or hosts & set(other.nodes())
    ]
    return max(0.0, min(ends, default=0.0)) if job.state == "Q" else 0.0
