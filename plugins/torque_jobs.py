"""From the fields of a record of ``qstat -x`` or ``pbsnodes -x`` to a job or a node.  Pure."""

from __future__ import annotations

import re

from tiltd.daemon.core.model import Job, JobState, NodeInfo
from tiltd.daemon.core.model.cluster import NodeState
from tiltd.daemon.text import shown
from tiltd.plugins import torque_errors
from tiltd.plugins.torque_settings import TorqueSettings
from tiltd.plugins.torque_xml import Fields

JOB_ID = re.compile(r"[0-9]{1,12}(\[[0-9]*\])?(\.[A-Za-z0-9][A-Za-z0-9._-]{0,254})?", re.ASCII)
JOB_FIELDS = (
    "Job_Id",
    "Job_Name",
    "Job_Owner",
    "job_state",
    "queue",
    "exec_host",
    "exit_status",
    "comment",
    "sched_hint",
    "ctime",
    "start_time",
    "comp_time",
    "mtime",
    "start_count",
)
NODE_FIELDS = ("name", "state", "np", "properties", "jobs", "status", "note", "gpus")
STATES = {
    "Q": JobState.QUEUED,
    "W": JobState.QUEUED,
    "T": JobState.QUEUED,
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "E": JobState.RUNNING,  # still copying its output, or cleaning up: not done
    "S": JobState.SUSPENDED,
    "C": JobState.COMPLETED,
}
_STARTED = frozenset("RESC")
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_KIB = re.compile(r"([0-9]{1,15})kb:([0-9]{1,15})kb", re.ASCII)


def state(letter: str) -> JobState:
    return STATES.get(letter, JobState.UNKNOWN)


def owner_of(account: str) -> str:
    """The account without the host behind ``@``: the one it was submitted from, which may change."""
    return account.partition("@")[0]


def owner(fields: Fields) -> str:
    return owner_of(fields.get("Job_Owner", ""))


def job(fields: Fields, name: str) -> Job:
    """A job of ours, as the daemon calls it.  Times are whole epoch seconds.

    Recorded: a requeued job is R with the exit status of its first run, and a failed start leaves Q with a
    start time; so those are read only in the states in which they are true.
    """
    letter = fields.get("job_state", "")
    done = letter == "C"
    exit_status = whole(fields.get("exit_status", "")) if done else None
    words = [fields.get("comment", ""), fields.get("sched_hint", "") if done else ""]
    started_at = epoch(fields.get("start_time", "")) if letter in _STARTED else None
    return Job(
        job_id=fields["Job_Id"],
        job_name=name,
        owner=owner(fields),
        state=state(letter),
        queue=fields.get("queue", ""),
        exec_host=hosts(fields.get("exec_host", "")) if letter in _STARTED else (),
        exit_status=exit_status,
        ending=(
            "deleted" if started_at is None and exit_status is None else torque_errors.ending(exit_status)
        )
        if done
        else "",
        comment=shown(" ".join(word for word in words if word)[:500]),
        submitted_at=epoch(fields.get("ctime", "")),
        started_at=started_at,
        ended_at=epoch(fields.get("comp_time", "") or fields.get("mtime", "")) if done else None,
        native_state=shown(letter[:8]),
        start_count=whole(fields.get("start_count", "")) or 0,
    )


def hosts(exec_host: str) -> tuple[str, ...]:
    """``core-014/0-1,3-4+core-012/2`` -> the nodes, each once, in order."""
    names = (part.partition("/")[0] for part in exec_host.split("+"))
    return tuple(dict.fromkeys(name for name in names if name))


def node(fields: Fields, settings: TorqueSettings) -> NodeInfo:
    """A node.  Its state is the server's; the ``state=`` inside its status is stale when it is gone.

    Sizes: ``size=free:total`` in kB of 1024 bytes, of the file system that the node's mom was told to watch.
    """
    name = fields.get("name", "")
    status = dict(part.partition("=")[::2] for part in fields.get("status", "").split(","))
    kind = settings.of_node(name)
    free_bytes, total_bytes = _size(status.get("size", ""), kind.scratch_bytes)
    cores = max(1, whole(fields.get("np", "")) or 1)
    letters = node_state(fields.get("state", ""))
    return NodeInfo(
        name=name,
        state=letters,
        cores=cores,
        cores_free=max(0, cores - slots(fields.get("jobs", ""))) if letters in ("free", "busy") else 0,
        memory_bytes=_kib(status.get("physmem", "")),
        scratch_total_bytes=total_bytes,
        scratch_free_bytes=free_bytes,
        scratch_path=kind.scratch or settings.scratch,
        observed_at=epoch(status.get("rectime", "")) or 0.0,
        gpus=max(0, whole(fields.get("gpus", "")) or 0),
        properties=tuple(part.strip() for part in fields.get("properties", "").split(",") if part.strip()),
        comment=_comment(fields, letters, total_bytes),
        floating=kind.mode == "floating",
    )


def node_state(words: str) -> NodeState:
    """``down,offline`` and the like: whatever keeps jobs away longest counts."""
    found = {word.strip() for word in words.split(",")}
    if "down" in found:
        return "down"
    if "offline" in found:
        return "offline"
    if found & {"job-exclusive", "job-sharing", "busy", "reserve", "time-shared"}:
        return "busy"
    return "free" if found == {"free"} else "unknown"


def slots(jobs: str) -> int:
    """Cores in use, of ``0-1,3-4/68.server,5/69.server`` (newer) or ``0/12.server, 1/12.server`` (older)."""
    used: set[int] = set()
    for part in jobs.split(","):
        first, _, last = part.partition("/")[0].strip().partition("-")
        low, high = whole(first), whole(last or first)
        if low is not None and high is not None and 0 <= low <= high < 100_000:
            used.update(range(low, high + 1))
    return len(used)


def _comment(fields: Fields, letters: NodeState, total_bytes: int) -> str:
    said = [f"pbsnodes says {fields.get('state', '')}"] if letters not in ("free", "busy") else []
    if fields.get("note"):
        said.append(f"note: {fields['note']}")
    if letters in ("free", "busy") and not total_bytes:
        said.append("it reports no scratch; add size[fs=/scratch] to its mom's config")
    return shown("; ".join(said)[:300])


def _size(reported: str, fallback_bytes: int) -> tuple[int, int]:
    found = _KIB.search(reported)
    if found is None:
        return fallback_bytes, fallback_bytes
    free_bytes, total_bytes = int(found.group(1)) * 1024, int(found.group(2)) * 1024
    return min(free_bytes, total_bytes), total_bytes


def _kib(value: str) -> int:
    return max(0, whole(value.removesuffix("kb")) or 0) * 1024


def whole(value: str) -> int | None:
    """A signed whole number of at most 18 digits, or nothing."""
    return int(value) if _WHOLE.fullmatch(value) else None


def epoch(value: str) -> float | None:
    seconds = whole(value)
    return float(seconds) if seconds is not None and 0 < seconds < 10**11 else None
