"""Scratch that comes back with the end of its job: where the runner told of both, nobody need look again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import facts as f
from . import observations as o
from .desk import Desk
from .model import NodeInfo, RunSeen, State
from .pinning import known_as
from .placing import Placing


def left_nothing(runs: Sequence[RunSeen], node: str, nodes: Mapping[str, NodeInfo]) -> bool:
    """No run of an attempt was on this node, or each has said that it left nothing there.  Where a run was
    on a node that is not known by its name, nothing is known."""
    return not any(not run.cleaned and known_as(run.node, nodes) in (node, "") for run in runs)


class GivingBack:
    """Costs the nodes of one attempt.  Whatever is not given back here is asked for as ``ReleaseScratch``."""

    def __init__(self, desk: Desk, placing: Placing) -> None:
        self._desk = desk
        self._placing = placing

    def told(self, seen: o.SpoolObserved) -> None:
        """The runner's word, once the attempt has ended with a result.  What a failed one has staged is for
        ``ReleaseScratch`` to remove, and on this machine the daemon looks for itself."""
        desk = self._desk
        if not desk.site.queues:
            return
        dataset = desk.dataset(seen.attempt_id.rpartition(".a")[0])
        attempt = dataset.attempt if dataset is not None and dataset.state is State.COLLECTING else None
        if attempt is None or attempt.attempt_id != seen.attempt_id or attempt.fenced:
            return
        for node in desk.state.ledger.booked.get(seen.attempt_id, ()):
            if left_nothing(seen.runs, node, self._placing.nodes):
                desk.record(f.ScratchReleased(at=desk.now, attempt_id=seen.attempt_id, node=node))
                self._placing.roomier(node)
