"""Figures of one simulation; folded from facts as they come, so that none has to be kept."""

from __future__ import annotations

import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Step

from .heap import HeapClock
from .scene import START_AT


class Report:
    """Memory: 4 bytes a placement, and the datasets that wait for one."""

    def __init__(self) -> None:
        self._waits = array("f")
        self._completed: dict[str, float] = {}
        self._began = time.process_time()
        self._ended: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._placements = 0
        self.facts = 0
        self._count: dict[type[f.Fact], Callable[[Any], None]] = {
            f.DatasetCompleted: self._is_complete,
            f.Placed: self._is_placed,
            f.AttemptFailed: self._has_failed,
            f.ResultStranded: self._is_stranded,
        }

    def step(self, step: Step) -> None:
        self.facts += len(step.facts)
        for fact in step.facts:
            if count := self._count.get(type(fact)):
                count(fact)
        for record in step.records:
            if record.finalized_at is not None:
                self._ended[record.state] += 1
                self._completed.pop(record.dataset_id, None)

    def _is_complete(self, fact: f.DatasetCompleted) -> None:
        self._completed[fact.dataset_id] = fact.at

    def _is_placed(self, fact: f.Placed) -> None:
        self._placements += 1
        completed_at = self._completed.pop(fact.dataset_id, None)
        if completed_at is not None:
            self._waits.append(fact.at - completed_at)

    def _has_failed(self, fact: f.AttemptFailed) -> None:
        self._failures[fact.failure.failure_class] += 1

    def _is_stranded(self, fact: f.ResultStranded) -> None:
        self._failures["stranded"] += 1

    @property
    def finished(self) -> int:
        return sum(self._ended.values())

    def figures(self, clock: HeapClock) -> dict[str, Any]:
        waits = sorted(self._waits)
        world, scene = clock.world, clock.scene
        span = max(1.0, world.now - START_AT)
        return {
            "datasets": scene.datasets,
            "nodes": scene.nodes,
            "seed": scene.seed,
            "failures": scene.failures,
            "ended": dict(sorted(self._ended.items())),
            "failed_attempts": dict(sorted(self._failures.items())),
            "makespan_seconds": round(span, 3),
            "wait_seconds_median": round(waits[len(waits) // 2], 3) if waits else 0.0,
            "wait_seconds_p95": round(waits[int(len(waits) * 0.95)], 3) if waits else 0.0,
            "core_utilisation": round(world.busy_core_seconds / (span * scene.nodes * scene.cores), 4),
            "evaluations_per_placement": round(clock.core.placing.evaluations / max(1, self._placements), 3),
            "observations": clock.events,
            "facts": self.facts,
            "published_twice": len(world.twice),
            "cpu_seconds": round(time.process_time() - self._began, 2),
            "peak_rss_bytes": peak_rss_bytes(),
        }


def peak_rss_bytes() -> int:
    """Of this process so far.  Linux counts in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
