"""Who may submit what: the server's checks on a submission, in its own order, and the job it makes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from . import asking
from .records import HOST, BatchJob, Node, NodeAsk, Queue, Refused, numbered, seconds, size_bytes

NO_NODES = (
    "Job exceeds queue resource limits MSG=cannot locate feasible nodes (nodes file is empty, "
    "all systems are busy, or no nodes have the requested feature)"
)
_EXCEEDS = "Job exceeds queue resource limits MSG=cannot satisfy queue max {} requirement"
_FULL = (
    "Maximum number of jobs already in queue MSG=total number of jobs in queue exceeds the queue limit: "
    "user {}@" + HOST + ", queue {}"
)
_FULL_FOR_USER = (
    "Maximum number of jobs already in queue for user MSG=total number of current user's jobs exceeds the "
    "queue limit: user {}@" + HOST + ", queue {}"
)


def admitted(
    asked: asking.Asked, user: str, queue: Queue | None, jobs: Mapping[int, BatchJob],
    nodes: Collection[Node], number: int, now: float,
) -> BatchJob:  # fmt: skip
    """The job of a submission.  Raises Refused with Torque's own code and words.  Costs jobs and nodes."""
    if queue is None:
        raise Refused(172, "Unknown queue MSG=requested queue not found")
    if not queue.enabled:
        raise Refused(
            175, f"Queue is not enabled MSG=queue is disabled: user {user}@{HOST}, queue {queue.name}"
        )
    resources = dict(asked.resources)
    asking.check_resources(resources)
    resources.setdefault("nodes", "1")
    asks = asking.node_asks(resources["nodes"])
    if not all(sum(suits(node, ask) for node in nodes) >= ask.count for ask in asks):
        raise Refused(190, NO_NODES)
    resources["nodect"] = str(sum(ask.count for ask in asks))
    resources.setdefault("walltime", "01:00:00")
    _within(queue, resources, user, jobs)
    if any(numbered(jobs, parent) is None for parent in asked.depends_on):
        raise Refused(208, "Invalid Job Dependency")
    return _job(asked, user, queue.name, resources, asks, number, now)


def suits(node: Node, ask: NodeAsk) -> bool:
    """Could this node ever take it?"""
    return (
        ask.host in ("", node.name)
        and ask.ppn <= node.pretend.cores
        and set(ask.properties) <= set(node.pretend.properties)
    )


def _within(queue: Queue, resources: dict[str, str], user: str, jobs: Mapping[int, BatchJob]) -> None:
    if 0 < queue.max_walltime_seconds < seconds(resources["walltime"]):
        raise Refused(190, _EXCEEDS.format("walltime"))
    if 0 < queue.max_memory_bytes < size_bytes(resources.get("mem", "0")):
        raise Refused(190, _EXCEEDS.format("mem"))
    if not queue.max_queuable and not queue.max_user_queuable:
        return
    there = [job for job in jobs.values() if job.queue == queue.name and job.state != "C"]
    if queue.max_queuable and len(there) >= queue.max_queuable:
        raise Refused(200, _FULL.format(user, queue.name))
    if queue.max_user_queuable and sum(job.user == user for job in there) >= queue.max_user_queuable:
        raise Refused(228, _FULL_FOR_USER.format(user, queue.name))


def _job(
    asked: asking.Asked, user: str, queue: str, resources: dict[str, str], asks: tuple[NodeAsk, ...],
    number: int, now: float,
) -> BatchJob:  # fmt: skip
    options = asked.options
    held = asked.hold or bool(asked.depends_on)
    joined = options.get("j") == "oe" and "o" in options
    return BatchJob(
        number=number, name=asked.name, owner=f"{user}@{HOST}", user=user, queue=queue, script=asked.script,
        resources=resources, asks=asks, variables=asked.variables, submit_args=asked.submit_args,
        work_folder=asked.folder, output_path=_path(asked, "o", number),
        error_path=_path(asked, "o" if joined else "e", number), submitted_at=now, changed_at=now,
        queued_at=now,
        state="H" if held else "W" if options.get("a") else "Q",
        hold="u" if asked.hold else "s" if held else "n", join=options.get("j", "n"),
        keep=options.get("k", "n"), mail_points=options.get("m", "a"), mail_users=options.get("M", ""),
        account=options.get("A", ""), shell=options.get("S", ""), priority=int(options.get("p", "0")),
        rerunable=options.get("r", "y") == "y", depends_on=asked.depends_on, arguments=options.get("F", ""),
    )  # fmt: skip


def _path(asked: asking.Asked, letter: str, number: int) -> str:
    name = f"{asked.name}.{letter}{number}"
    path = asking.standard_path(asked.options.get(letter) or name, asked.folder)
    return path + name if path.endswith("/") else path
