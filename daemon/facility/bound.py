"""How fast the hardware could have been: a lower bound on the makespan of a backlog, whatever the schedule.

At any moment a node runs some set of jobs whose cores, memory and scratch fit together; such a set finishes
at most so many series a second.  The best sets of all nodes bound the rate (a job holds its room at least for
staging in and out over its node's own link, and the run between); the bytes that must pass through the file
server, and through each node's link, bound it too.  The shapes are all those that the policy allows: the
bound asks the production code for the request in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from tiltd.daemon.core.model import Features, NodeInfo, Policy, Record, ResourceRequest
from tiltd.plugins.api import Pipeline
from tiltd.policy.rules import count, decide
from tiltd.policy.shape import shape

from .cluster import Hardware
from .work import Arrival, run_seconds


class Shape(Record):
    """One way to run the backlog's series: what it books on a node, and how long it holds it at least."""

    cores: int
    memory_bytes: int
    scratch_bytes: int
    seconds: float


class Bound(Record):
    """Seconds for the whole backlog by each resource alone; the makespan cannot be less than the largest."""

    by_nodes: float
    by_server: float
    by_links: float
    sets: dict[str, tuple[int, ...]]

    @property
    def seconds(self) -> float:
        return max(self.by_nodes, self.by_server, self.by_links)

    @property
    def binding(self) -> str:
        """The resource that the bound is by."""
        named = {
            "cores, memory and scratch": self.by_nodes,
            "file server": self.by_server,
            "links": self.by_links,
        }
        return max(named, key=named.__getitem__)


def bound(
    series: int,
    size_bytes: int,
    result_bytes: int,
    hardware: Hardware,
    request_of: Callable[[int], ResourceRequest],
    cores_max: int,
    margin_bytes: int,
) -> Bound:
    """For a backlog of equal series.  ``request_of(cores)`` is the shaped request in that shape.

    More than one node a series is left out: it holds more and takes longer (2015 study).  Cost: the sets of
    shapes that fit one node, some dozens for each kind of node.
    """
    staging = (size_bytes + result_bytes) / hardware.link_bytes_per_second
    shapes = []
    for cores in range(1, cores_max + 1):
        request = request_of(cores)
        seconds = staging + run_seconds(size_bytes, 1, cores, request.threads)
        shapes.append(
            Shape(
                cores=cores,
                memory_bytes=request.memory_bytes,
                scratch_bytes=request.scratch_bytes,
                seconds=seconds,
            )
        )
    best = {node.name: _best(node, shapes, margin_bytes) for node in hardware.nodes}
    rate = sum(found[0] for found in best.values())
    moved = size_bytes + result_bytes * (1 + hardware.verify_bytes_share)
    links = len(hardware.nodes) * hardware.link_bytes_per_second
    return Bound(
        by_nodes=series / rate,
        by_server=series * moved / hardware.server_bytes_per_second,
        by_links=series * (size_bytes + result_bytes) / links,
        sets={node.name: best[node.name][1] for node in hardware.nodes},
    )


def _best(node: NodeInfo, shapes: Sequence[Shape], margin_bytes: int) -> tuple[float, tuple[int, ...]]:
    """The most series a second on this node, and the cores of the set of jobs that gives it."""

    def fill(first: int, cores: int, memory: int, scratch: int) -> tuple[float, tuple[int, ...]]:
        best: tuple[float, tuple[int, ...]] = (0.0, ())
        for number in range(first, len(shapes)):
            shape = shapes[number]
            left = cores - shape.cores, memory - shape.memory_bytes, scratch - shape.scratch_bytes
            if min(left) < 0:
                continue
            rate, others = fill(number, *left)
            rate += 1.0 / shape.seconds
            if rate > best[0]:
                best = rate, (shape.cores, *others)
        return best

    return fill(0, node.cores, node.memory_bytes, node.scratch_total_bytes - margin_bytes)


def backlog_bound(
    arrivals: Sequence[Arrival], hardware: Hardware, policy: Policy, pipeline: Pipeline
) -> Bound:
    """Of a backlog of equal series, in every shape from one core to the most that the policy ever gives.

    Raises ValueError if the series are not equal.
    """
    series = arrivals[0].sighting.series
    assert series is not None
    if len({(each.size_bytes, each.result_bytes, each.pace) for each in arrivals}) != 1:
        raise ValueError("the bound is for a backlog of equal series")
    size = series.total_bytes
    decision = decide(Features(size_bytes=size), policy)
    asked = pipeline.request(series, {})

    def request_of(cores: int) -> ResourceRequest:
        shaped = replace(decision, cores=cores, threads=cores)
        return shape(asked, size, policy, decision=shaped)

    return bound(
        len(arrivals),
        size,
        arrivals[0].result_bytes,
        hardware,
        request_of,
        cores_max=count(max(policy.resources.cores.at(gb * 1e9) for gb in range(1, 100))),
        margin_bytes=policy.placement.scratch_margin_bytes,
    )
