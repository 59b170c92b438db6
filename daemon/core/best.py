"""The best node for a request, remembering what was worked out before.

A memory of scores only: what it chooses is what :func:`tiltd.policy.place.place` would choose, which the
invariants of the simulation check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tiltd.policy import place

from .ledger import Free
from .model import NodeInfo, Policy, ResourceRequest

REQUESTS_MAX = 64
"""Shaped requests are few (the policy rounds them); the one that came first is forgotten first."""

Known = tuple[Free, tuple[object, ...], float | None]


class Best:
    """Costs, per question, a look-up a node, and an evaluation of those that changed since the last one."""

    def __init__(self) -> None:
        self.evaluations = 0
        self._scores: dict[ResourceRequest, dict[str, Known]] = {}
        self._traits: dict[str, tuple[NodeInfo, tuple[object, ...]]] = {}

    def of(
        self,
        request: ResourceRequest,
        nodes: Mapping[str, NodeInfo],
        free_of: Callable[[NodeInfo], Free],
        policy: Policy,
        now: float,
    ) -> NodeInfo | None:
        """``None`` if no node fits."""
        scores = self._scores.get(request)
        if scores is None:
            scores = self._remember(request)
        stale_before = now - policy.placement.node_stale_seconds
        best: tuple[float, str] | None = None
        for name, node in nodes.items():
            if node.observed_at < stale_before:
                continue
            score = self._score(scores, request, node, free_of(node), policy)
            if score is not None and (best is None or (-score, name) < best):
                best = (-score, name)
        return nodes[best[1]] if best is not None else None

    def _score(
        self,
        scores: dict[str, Known],
        request: ResourceRequest,
        node: NodeInfo,
        free: Free,
        policy: Policy,
    ) -> float | None:
        traits = self._traits_of(node)
        known = scores.get(node.name)
        if known is not None and known[0] is free and known[1] is traits:
            return known[2]
        self.evaluations += 1
        score = place.score(request, node, free, policy)
        scores[node.name] = (free, traits, score)
        return score

    def _traits_of(self, node: NodeInfo) -> tuple[object, ...]:
        """What counts of a node beside its free room; the same object while it is the same."""
        known = self._traits.get(node.name)
        if known is not None and known[0] is node:
            return known[1]
        traits: tuple[object, ...] = (
            node.state, node.cores, node.memory_bytes, node.scratch_total_bytes, node.properties
        )  # fmt: skip
        if known is not None and known[1] == traits:
            traits = known[1]
        self._traits[node.name] = (node, traits)
        return traits

    def _remember(self, request: ResourceRequest) -> dict[str, Known]:
        while len(self._scores) >= REQUESTS_MAX:
            del self._scores[next(iter(self._scores))]
        return self._scores.setdefault(request, {})

    def forget(self, node: str) -> None:
        self._traits.pop(node, None)
        for scores in self._scores.values():
            scores.pop(node, None)

    def clear(self) -> None:
        """Under another policy nothing of it is true."""
        self._scores.clear()
