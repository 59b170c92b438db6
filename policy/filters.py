"""May this request go to this node now?  One small function a reason, each in the tuple ``FILTERS``.

A filter gives "" or its reason, a word that is counted in ``Unplaceable.rejected``.  A new one is a function
here, its name in the tuple and its key in ``default.toml``.  The tuple is in order of cost and of meaning:
a node that is down is counted as down, not as short of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import NodeInfo, Record, ResourceRequest

from .rules import matches

UP = frozenset({"free", "busy"})
"""A busy node is up: whether it has room is for the ledger to say, whose figures are newer."""


class Terms(Record):
    """What else a decision depends on.

    ``now`` of ``None``: no node counts as stale.  ``only_node``: no other node will do (results to be rescued
    lie there, or an aged head of the queue waits for it).  ``excluded`` maps the names of nodes that must not
    be taken to the reason that is counted for it.
    """

    excluded: Mapping[str, str] = {}
    only_node: str = ""
    now: float | None = None
    stale_seconds: float = 300.0
    margin_bytes: int = 0


Filter = Callable[[ResourceRequest, NodeInfo, Free, Terms], str]


def cores_on(request: ResourceRequest, node: NodeInfo) -> int:
    """The cores it gets there: as asked, or the node's maximum where it has fewer (2015 study)."""
    return min(request.cores, node.cores)


def least_cores(request: ResourceRequest, node: NodeInfo) -> int:
    """The fewest with which it may run there."""
    return min(request.cores_min or request.cores, node.cores)


def other_node(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    return "other_node" if terms.only_node and node.name != terms.only_node else ""


def node_state(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    return "" if node.state in UP else f"node_{node.state}"


def stale(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    """Its figures are too old to build on.  The time stamp is the node's own; one ahead of us is fresh."""
    return "stale" if terms.now is not None and terms.now - node.observed_at > terms.stale_seconds else ""


def excluded(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    """The caller keeps it off: it failed there, a breaker is open, an aged head waits for it."""
    return terms.excluded.get(node.name, "") if terms.excluded else ""


def named(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    """The policy keeps it off this node, by name."""
    if request.only_nodes and not matches(request.only_nodes, node.name):
        return "only_nodes"
    return "not_nodes" if request.not_nodes and matches(request.not_nodes, node.name) else ""


def properties(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    if not request.properties:
        return ""
    return "" if all(wanted in node.properties for wanted in request.properties) else "properties"


def cores(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    return "cores" if node.cores < 1 or free.cores < least_cores(request, node) else ""


def memory(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    """A node that does not tell its memory (0) is not refused for it."""
    return "memory" if node.memory_bytes and 0 < request.memory_bytes > free.memory_bytes else ""


def scratch(request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms) -> str:
    """Who needs none (a rescue of stranded results) may go to a node that has none left."""
    return "scratch" if 0 < request.scratch_bytes > free.scratch_bytes else ""


FILTERS: tuple[Filter, ...] = (
    other_node,
    node_state,
    stale,
    excluded,
    named,
    properties,
    cores,
    memory,
    scratch,
)
"""In this order; the first reason counts."""

CAPACITY: tuple[Filter, ...] = (other_node, named, properties, cores, memory, scratch)
"""Those that an empty node in the best of states could still refuse by: they decide what is permanent."""

REASONS: tuple[str, ...] = (
    "other_node",
    "node_offline",
    "node_down",
    "node_unknown",
    "stale",
    "excluded",
    "only_nodes",
    "not_nodes",
    "properties",
    "cores",
    "memory",
    "scratch",
)
"""Every reason there is here, for documents and metrics; callers of ``excluded`` may bring more."""


def first_reason(
    filters: tuple[Filter, ...], request: ResourceRequest, node: NodeInfo, free: Free, terms: Terms
) -> str:
    for reject in filters:
        if reason := reject(request, node, free, terms):
            return reason
    return ""


def empty(node: NodeInfo, terms: Terms) -> Free:
    """What the node would have with nothing on it."""
    return Free(
        cores=node.cores,
        memory_bytes=node.memory_bytes,
        scratch_bytes=node.scratch_total_bytes - terms.margin_bytes,
    )
