"""Which of the nodes that fit is best: weighted figures between 0 and 1, the weights are the policy's.

A new one is a function here, its name in ``SCORES`` and its weight under ``[placement.weights]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import NodeInfo, ResourceRequest

SCRATCH_STEPS = 16

Score = Callable[[ResourceRequest, NodeInfo, Free], float]


def asked_cores(request: ResourceRequest, node: NodeInfo, free: Free) -> float:
    """1 where it gets the cores it asked for, less where the node has fewer."""
    return min(1.0, (free.cores if request.cores_min else node.cores) / request.cores)


def pack_cores(request: ResourceRequest, node: NodeInfo, free: Free) -> float:
    """1 where the node is full afterwards: whole nodes stay free for the series that need many cores."""
    left = free.cores - min(request.cores, free.cores if request.cores_min else node.cores)
    return 1.0 - left / node.cores


def scratch_step(request: ResourceRequest, node: NodeInfo, free: Free) -> int:
    """How many sixteenths of its scratch the node has to spare afterwards."""
    if node.scratch_total_bytes <= 0:
        return SCRATCH_STEPS
    return SCRATCH_STEPS * (free.scratch_bytes - request.scratch_bytes) // node.scratch_total_bytes


def scratch_fit(request: ResourceRequest, node: NodeInfo, free: Free) -> float:
    """1 where the scratch is used up afterwards: the largest free scratch stays for the largest series.

    In steps of a sixteenth: nodes that are nearly alike are alike, and are looked at once.
    """
    return 1.0 - scratch_step(request, node, free) / SCRATCH_STEPS


def spare_properties(request: ResourceRequest, node: NodeInfo, free: Free) -> float:
    """1 where the node has no property beyond those asked for: special nodes stay free for who needs them."""
    return 1.0 / (1 + max(0, len(node.properties) - len(request.properties)))


SCORES: dict[str, Score] = {
    "asked_cores": asked_cores,
    "pack_cores": pack_cores,
    "scratch_fit": scratch_fit,
    "spare_properties": spare_properties,
}


def total(request: ResourceRequest, node: NodeInfo, free: Free, weights: Mapping[str, float]) -> float:
    """The weighted sum; a weight of 0 costs nothing, an unknown name counts nothing."""
    return sum(
        weight * SCORES[name](request, node, free)
        for name, weight in weights.items()
        if weight and name in SCORES
    )
