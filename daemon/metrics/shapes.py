"""What a run was given, as labels: few combinations, since every one of them is a whole histogram."""

from __future__ import annotations

from tiltd.daemon.core.model import Placement

MAX_RUNS = 16
"""Combinations of pipeline, outcome and shape that have a histogram of their own; what failed has half of
the room, so that results always find some."""

Shape = tuple[str, str, str]
RESULTS = ("good", "doubtful")
OTHER: Shape = ("other", "other", "other")


def shape_of(placement: Placement | None) -> Shape:
    """Cores a node, threads and number of nodes."""
    if placement is None:
        return OTHER
    return str(placement.cores), str(placement.threads), str(len(placement.nodes))


class BoundedShapes:
    """Remembers which combinations there were; of those that come later the shape is ``other``."""

    def __init__(self, max_runs: int = MAX_RUNS) -> None:
        self._max_runs = max_runs
        self._known: set[tuple[str, str, Shape]] = set()

    def labels(self, pipeline: str, outcome: str, shape: Shape) -> dict[str, str]:
        key = (pipeline, outcome, shape)
        room = self._max_runs if outcome in RESULTS else self._max_runs // 2
        if key not in self._known and len(self._known) >= room:
            shape = OTHER
        else:
            self._known.add(key)
        cores, threads, nodes = shape
        return {
            "pipeline": pipeline,
            "outcome": outcome,
            "cores": cores,
            "threads": threads,
            "nodes": nodes,
        }
