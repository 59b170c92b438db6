"""Where does this series run?  (request, nodes, free, policy) -> Placement | Unplaceable.

    request --shape.py--> shaped request --filters.py--> nodes that fit --scores.py--> the best of them

Deterministic: the same question has the same answer, ties go to the lower node name.  One node costs about
a microsecond and a half (eight filters, four scores); the decision grows linearly with the nodes, and is
measured by ``tests/benchmarks/bench_place.py``.  The core asks :func:`fits` about the one node that woke a
waiting bucket, and :func:`place` only for what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import NodeInfo, Placement, Policy, ResourceRequest, Unplaceable
from tiltd.daemon.core.units import show_bytes

from .filters import CAPACITY, FILTERS, UP, Terms, cores_on, empty, first_reason, least_cores
from .scores import total
from .shape import on_cores, shape

__all__ = [
    "FreeOf",
    "Score",
    "each_of",
    "fits",
    "given",
    "on",
    "place",
    "scored_by",
    "scorer",
    "shape",
    "still_excluded",
]

FreeOf = Callable[[NodeInfo], Free]
"""What a node could still give (cores, memory, scratch), the policy's scratch margin already taken off."""

Score = Callable[[NodeInfo, Free], float | str]

Excluded = Mapping[str, str] | Iterable[str]
"""Nodes that must not be taken: node -> the reason to be counted, or names alone (reason "excluded")."""


def place(
    request: ResourceRequest,
    nodes: Iterable[NodeInfo],
    free: FreeOf,
    policy: Policy,
    *,
    excluded: Excluded = (),
    only_node: str = "",
    now: float | None = None,
    each: int | None = None,
) -> Placement | Unplaceable:
    """Decide for one shaped request (see :func:`tiltd.policy.shape.shape`).

    ``excluded`` holds strictly, whatever ``nodes`` are given: soften what a retry excluded by
    :func:`still_excluded` beforehand.  ``only_node`` names the one node that will do.  ``now`` of ``None``
    leaves staleness out.  ``each`` as in :func:`on`.  ``permanent`` in the answer is about the ``nodes``.
    """
    nodes = tuple(nodes)
    terms = _terms(policy, excluded, only_node, now)
    rejected: dict[str, int] = {}
    fitting: list[tuple[float, str, NodeInfo]] = []
    weights = policy.placement.weights
    for node in nodes:
        left = free(node)
        if reason := first_reason(FILTERS, request, node, left, terms):
            rejected[reason] = rejected.get(reason, 0) + 1
        else:
            fitting.append((-total(request, node, left, weights), node.name, node))
    if len(fitting) >= request.nodes:
        best = sorted(fitting, key=lambda scored: scored[:2])[: request.nodes]
        return on(request, [node for _, _, node in best], policy, free, each)
    if fitting:
        rejected["too_few_nodes"] = len(fitting)
    return _unplaceable(request, nodes, free, terms, rejected)


def fits(
    request: ResourceRequest,
    node: NodeInfo,
    free: Free,
    policy: Policy,
    *,
    excluded: Excluded = (),
    only_node: str = "",
    now: float | None = None,
) -> str:
    """ "" if this one node can take the shaped request now, else the reason.  Constant cost.

    Arguments as in :func:`place`.
    """
    return first_reason(FILTERS, request, node, free, _terms(policy, excluded, only_node, now))


def scored_by(request: ResourceRequest) -> tuple[object, ...]:
    """What of a request its scores depend on; requests that share it can share them."""
    return (
        request.cores,
        request.cores_min,
        request.memory_bytes,
        request.scratch_bytes,
        request.properties,
        request.only_nodes,
        request.not_nodes,
    )


def scorer(request: ResourceRequest, policy: Policy) -> Score:
    """(node, free) -> how good this one node is for the shaped request, or the reason why it does not fit.

    Greater is better.  The best score, and among equals the lower name, is what :func:`place` chooses on one
    node.  Staleness is left to the caller.
    """
    terms, weights = _terms(policy, (), "", None), policy.placement.weights

    def score(node: NodeInfo, free: Free) -> float | str:
        reason = first_reason(FILTERS, request, node, free, terms)
        return reason or total(request, node, free, weights)

    return score


def on(
    request: ResourceRequest,
    nodes: Sequence[NodeInfo],
    policy: Policy,
    free: FreeOf,
    each: int | None = None,
) -> Placement:
    """The placement on exactly these nodes, with the cores that the smallest of them gives (:func:`given`).

    With fewer cores than asked the walltime is stretched by :data:`tiltd.policy.shape.CORES_EXPONENT`.
    """
    names: list[str] = []
    cores, threads, floating = request.cores, request.threads, True
    for node in nodes:
        names.append(node.name)
        cores = min(cores, given(request, node, free(node), each))
        threads = min(threads, node.cores)
        floating = floating and node.floating
    walltime = on_cores(request.walltime_seconds, request.cores, cores)
    ceiling = request.walltime_seconds_max or policy.resources.walltime_seconds_max
    return Placement(
        nodes=tuple(sorted(names)),
        cores=cores,
        threads=min(threads, cores) if request.cores_min else threads,
        memory_bytes=request.memory_bytes,
        scratch_bytes=request.scratch_bytes,
        walltime_seconds=min(walltime, max(ceiling, request.walltime_seconds)),
        queue=request.queue,
        rule=request.rule or policy.resources.rule,
        policy_version=policy.version,
        account=request.account,
        priority=request.priority,
        directives=request.directives,
        mode="floating" if floating else "pinned",
        properties=request.properties,
    )


def given(request: ResourceRequest, node: NodeInfo, free: Free, each: int | None = None) -> int:
    """How many cores of this node it gets: as asked, or the node's maximum where it has fewer (2015 study).

    With ``cores_min`` it gets between that and ``cores``: its even part of the node's free cores among as
    many of its like as the free cores, memory and scratch hold.  Run time falls slower than cores grow, so
    many at once are done sooner than one after another, and no core is left idle.  ``each`` is how many free
    cores there are for each series that waits (``None``: it waits alone); so with few waiting it gets more.
    """
    if not request.cores_min:
        return cores_on(request, node)
    least, most = least_cores(request, node), min(cores_on(request, node), free.cores)
    if each is None:
        return max(least, most)
    alike = free.cores // least
    if request.memory_bytes and node.memory_bytes:
        alike = min(alike, free.memory_bytes // request.memory_bytes)
    if request.scratch_bytes:
        alike = min(alike, free.scratch_bytes // request.scratch_bytes)
    return max(least, min(most, max(each, free.cores // max(1, alike))))


def each_of(nodes: Iterable[NodeInfo], free: FreeOf, waiting: int) -> int:
    """The free cores of the nodes that are up for each of so many that wait.  Costs the nodes."""
    return sum(max(0, free(node).cores) for node in nodes if node.state in UP) // max(1, waiting)


def still_excluded(
    request: ResourceRequest, nodes: Iterable[NodeInfo], policy: Policy, excluded_nodes: Iterable[str]
) -> frozenset[str]:
    """The exclusions that hold: all of them, or none when no other node that is up could ever take it.

    "Try another node" must not stop a series for good where there is only one node that can run it.
    """
    excluded = frozenset(excluded_nodes)
    if not excluded:
        return excluded
    terms = _terms(policy, (), "", None)
    others = (node for node in nodes if node.name not in excluded and node.state in UP)
    return excluded if any(_could(request, node, terms) for node in others) else frozenset()


def _terms(policy: Policy, excluded: Excluded, only_node: str, now: float | None) -> Terms:
    return Terms(
        excluded=excluded if isinstance(excluded, Mapping) else dict.fromkeys(excluded, "excluded"),
        only_node=only_node,
        now=now,
        stale_seconds=policy.placement.node_stale_seconds,
        margin_bytes=policy.placement.scratch_margin_bytes,
    )


def _could(request: ResourceRequest, node: NodeInfo, terms: Terms) -> bool:
    """Could the node take it if nothing else ran there?"""
    return not first_reason(CAPACITY, request, node, empty(node, terms), terms)


def _untold(node: NodeInfo) -> bool:
    """A node out of reach that never told what it has: nothing follows from its zeros."""
    return node.state not in UP and (node.cores < 1 or node.scratch_total_bytes <= 0)


def _unplaceable(
    request: ResourceRequest,
    nodes: tuple[NodeInfo, ...],
    free: FreeOf,
    terms: Terms,
    rejected: dict[str, int],
) -> Unplaceable:
    capable = [node for node in nodes if _could(request, node, terms) or _untold(node)]
    permanent = bool(nodes) and not terms.only_node and len(capable) < request.nodes
    reachable = [node for node in capable if node.state in UP and node.name not in terms.excluded]
    closest = min(((_shortage(request, node, free(node)), node.name) for node in reachable), default=None)
    return Unplaceable(
        rejected=rejected,
        unblocked_by=("node", "policy") if permanent else ("node",),
        best_effort_node=closest[1] if closest is not None else "",
        permanent=permanent,
        detail=_detail(request, nodes, terms, permanent, rejected),
    )


def _shortage(request: ResourceRequest, node: NodeInfo, free: Free) -> float:
    """How far the node is from taking it: the largest lack, as a share of what is asked."""
    lacks = (
        (least_cores(request, node), free.cores),
        (request.memory_bytes if node.memory_bytes else 0, free.memory_bytes),
        (request.scratch_bytes, free.scratch_bytes),
    )
    return max((asked - left) / asked if asked > left and asked else 0.0 for asked, left in lacks)


def _detail(
    request: ResourceRequest,
    nodes: tuple[NodeInfo, ...],
    terms: Terms,
    permanent: bool,
    rejected: dict[str, int],
) -> str:
    if not nodes:
        return "no node is known yet"
    if not permanent:
        counted = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()))
        return f"no node can take it now: {counted}"
    scratch = max(node.scratch_total_bytes for node in nodes) - terms.margin_bytes
    memory = max(node.memory_bytes for node in nodes)
    most = f"{show_bytes(max(0, scratch))} and {show_bytes(memory)}"
    return (
        f"no node could ever take it: it needs {_plural(request.nodes)}{_wants(request)}, "
        f"{show_bytes(request.scratch_bytes)} of scratch and {show_bytes(request.memory_bytes)} of memory; "
        f"the most that any of {len(nodes)} known has is {most}"
    )


def _wants(request: ResourceRequest) -> str:
    wants = f" with {', '.join(request.properties)}" if request.properties else ""
    wants += f" named {' or '.join(request.only_nodes)}" if request.only_nodes else ""
    return wants + (f" not named {' or '.join(request.not_nodes)}" if request.not_nodes else "")


def _plural(nodes: int) -> str:
    return "a node" if nodes == 1 else f"{nodes} nodes"
