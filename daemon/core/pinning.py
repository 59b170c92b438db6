"""Is a job pinned to its nodes, or does the resource manager choose; which node is meant by a host name?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from .model import Dataset, NodeInfo, Placement
from .waiting import Want


def settled(
    placement: Placement,
    dataset: Dataset,
    want: Want,
    nodes: Mapping[str, NodeInfo],
    barred: Collection[str],
) -> Placement:
    """The placement as it is submitted.

    A resource manager that chooses knows nothing of the nodes that this series may not have, so it is pinned
    then; and so is one that found too little scratch where it was sent: it goes where the ledger has it.  So
    is a job over several nodes: its runner tells of the first only, and the booking could not follow it to
    the others.
    """
    if placement.mode == "pinned":
        return placement
    request = want.request
    chosen = want.only_node or request.only_nodes or request.not_nodes or want.excluded_nodes
    shut = any(nodes[name].floating for name in barred if name in nodes)
    several = len(placement.nodes) > 1
    if several or chosen or shut or dataset.changes.get("mode") == "pinned":
        return replace(placement, mode="pinned")
    return placement


def known_as(host: str, nodes: Mapping[str, NodeInfo]) -> str:
    """The node that a host name stands for: its own name, or the part of either before the first dot; "" if
    no node is known by it, or several are."""
    if host in nodes:
        return host
    short = host.partition(".")[0]
    alike = [name for name in nodes if short and name.partition(".")[0] == short]
    return alike[0] if len(alike) == 1 else ""
