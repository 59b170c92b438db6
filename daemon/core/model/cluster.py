"""Nodes, placements and reservations: where a job can run and what it takes there."""

from __future__ import annotations

from typing import Literal

from .series import Record

NodeState = Literal["free", "busy", "offline", "down", "unknown"]
Mode = Literal["pinned", "floating"]
"""``pinned``: the job runs on the nodes of its placement and nowhere else.  ``floating``: they are booked for
it, the resource manager chooses, and the booking follows to where the job starts."""
UnblockedBy = Literal["node", "limit", "time", "destination", "server", "policy", "operator"]


class NodeInfo(Record):
    """A node as the resource manager describes it.  ``observed_at`` is the node's own time stamp;
    ``comment`` says in a sentence why it is not usable, where that is known.  ``floating``: jobs are not
    pinned to it; the resource manager's scheduler chooses among the nodes of its kind (shared nodes)."""

    name: str
    state: NodeState
    cores: int
    cores_free: int
    memory_bytes: int
    scratch_total_bytes: int
    scratch_free_bytes: int
    scratch_path: str
    observed_at: float
    gpus: int = 0
    properties: tuple[str, ...] = ()
    comment: str = ""
    floating: bool = False


class ResourceRequest(Record):
    """What a pipeline wants for one series, before the policy and the nodes have had their say.

    ``walltime_seconds`` is for ``cores`` cores as asked.  ``scratch_bytes`` is the peak in the job's
    scratch folder, input copy included; ``result_bytes`` what arrives at the destination.
    ``memory_bytes_least`` is the largest single need of its programs: whatever history tells, no less is
    asked (0: the pipeline does not say).  ``cores_min`` and what follows ``queue`` are the policy's own: with
    0 it gets ``cores`` or none; ``only_nodes`` and ``not_nodes`` are patterns of node names,
    ``walltime_seconds_max`` of 0 is the policy's.
    """

    nodes: int = 1
    cores: int = 4
    threads: int = 4
    memory_bytes: int = 0
    scratch_bytes: int = 0
    result_bytes: int = 0
    walltime_seconds: float = 0.0
    properties: tuple[str, ...] = ()
    queue: str = ""
    walltime_seconds_max: float = 0.0
    only_nodes: tuple[str, ...] = ()
    not_nodes: tuple[str, ...] = ()
    account: str = ""
    priority: int = 0
    directives: tuple[str, ...] = ()
    rule: str = ""
    memory_bytes_least: int = 0
    cores_min: int = 0


class Placement(Record):
    """The decision: where and with what a series runs.  ``cores`` is per node; ``properties`` are those that
    a node must have, for a ``floating`` job."""

    nodes: tuple[str, ...]
    cores: int
    threads: int
    memory_bytes: int
    scratch_bytes: int
    walltime_seconds: float
    queue: str
    rule: str
    policy_version: str
    account: str = ""
    priority: int = 0
    directives: tuple[str, ...] = ()
    mode: Mode = "pinned"
    properties: tuple[str, ...] = ()


class Unplaceable(Record):
    """No node now: how many nodes each reason rejected, and which event could change that.

    ``best_effort_node`` is the node that comes closest: the one an aged head of the queue waits for.
    ``permanent`` means that no known node could ever take it, even empty.
    """

    rejected: dict[str, int]
    unblocked_by: tuple[UnblockedBy, ...]
    best_effort_node: str = ""
    permanent: bool = False
    detail: str = ""


class Reservation(Record):
    """Scratch booked for one attempt on one node; it outlives its dataset.

    ``cores`` and ``memory_bytes`` are booked beside it, for resource managers without a queue of their own.
    """

    attempt_id: str
    node: str
    reserved_bytes: int
    cores: int
    memory_bytes: int
    reserved_at: float
