"""The best node for a request, remembering what was worked out before.

A memory of scores only: what it chooses is what :func:`tiltd.policy.place.place` would choose, which the
invariants of the simulation check.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Mapping
from math import inf

from tiltd.policy import place
from tiltd.policy.filters import UP
from tiltd.policy.scores import scratch_step

from .ledger import Free, Ledger, Mark
from .model import NodeInfo, Policy, ResourceRequest

REQUESTS_MAX = 64
"""Shaped requests are few (the policy rounds them); the one that came first is forgotten first."""

ALIKE_MAX = 4096
"""States of nodes remembered for a request."""

TURNED_MAX = 8192
"""Nodes that turned, kept with their pictures so that each request looks only at those it has not seen."""

Traits = tuple[object, ...]
Picture = tuple[Free, Traits, float]
"""What any request could see of a node: its room, the rest of it, and the cores that are too few for who asks
for more (infinity where something else comes before cores, or it gives what it has)."""


class Scores:
    """Of one request: what each node scored last, and the scores in order (old ones among them).

    ``by_name``: it names nodes, so that no two nodes are alike to it.  ``cores``: so many free ones a node
    must have if nothing else can be said against it before; 0 where something can.  ``seen``: how far in the
    list of nodes that turned it has looked.
    """

    def __init__(self, score: place.Score, request: ResourceRequest) -> None:
        self.score = score
        self.by_name = bool(request.only_nodes or request.not_nodes)
        self.cores = 0 if self.by_name or request.properties else request.cores_min or request.cores
        self.request = request
        self.seen: Mark = (-1, 0)
        self.known: dict[str, float | str] = {}
        self.order: list[tuple[float, str]] = []
        self.alike: dict[tuple[object, ...], float | str] = {}


class Best:
    """Costs, per question, an evaluation of the nodes that turned since the last one for this request."""

    def __init__(self) -> None:
        self.evaluations = 0
        self._scores: dict[tuple[object, ...], Scores] = {}
        self._pictures: dict[str, Picture] = {}
        self._traits: dict[str, tuple[NodeInfo, Traits]] = {}
        self._mark: Mark = (-1, 0)
        self._turned: list[tuple[str, Picture | None]] = []
        self._turned_number = 0

    def of(
        self,
        request: ResourceRequest,
        nodes: Mapping[str, NodeInfo],
        ledger: Ledger,
        policy: Policy,
        now: float,
        barred: Container[str] = (),
    ) -> NodeInfo | None:
        """``None`` if no node fits, those that are ``barred`` left out."""
        key = place.scored_by(request)
        scores = self._scores.get(key)
        if scores is None:
            scores = self._scores[key] = self._remember(request, policy)
        self._look(nodes, ledger, policy.placement.scratch_margin_bytes)
        number, seen = scores.seen
        turned: dict[str, Picture | None] = (
            dict(self._turned[seen:])
            if number == self._turned_number
            else {**dict.fromkeys(scores.known), **self._pictures}
        )
        scores.seen = (self._turned_number, len(self._turned))
        known, cores = scores.known, scores.cores
        for name, picture in turned.items():
            if picture is None:
                known.pop(name, None)
            elif picture[2] < cores:
                known[name] = "cores"  # the commonest no, by one comparison
            else:
                score = self._score(scores, nodes[name], picture)
                if known.get(name) != score:
                    known[name] = score
                    if isinstance(score, float):
                        heapq.heappush(scores.order, (-score, name))
        if len(scores.order) > 8 * len(nodes) + 64:
            scores.order = [(-score, n) for n, score in scores.known.items() if isinstance(score, float)]
            heapq.heapify(scores.order)
        return self._first(scores, nodes, now - policy.placement.node_stale_seconds, barred)

    def reasons(
        self,
        request: ResourceRequest,
        nodes: Mapping[str, NodeInfo],
        policy: Policy,
        now: float,
        barred: Mapping[str, str],
    ) -> dict[str, int]:
        """Why no node fits, counted; to be asked after :meth:`of` found none."""
        known = self._scores[place.scored_by(request)].known
        stale_before = now - policy.placement.node_stale_seconds
        counts: Counter[str] = Counter()
        for name, node in nodes.items():
            said = known[name]
            reason = said if isinstance(said, str) else "stale"
            if node.observed_at < stale_before and not reason.startswith("node_"):
                reason = "stale"
            elif name in barred and not reason.startswith("node_"):
                reason = barred[name]
            counts[reason] += 1
        return dict(counts)

    @staticmethod
    def _first(
        scores: Scores, nodes: Mapping[str, NodeInfo], stale_before: float, barred: Container[str]
    ) -> NodeInfo | None:
        """The best that is still true; what is stale may be fresh again, and what is barred free, so both
        are kept."""
        order = scores.order
        aside: list[tuple[float, str]] = []
        found: NodeInfo | None = None
        while order and found is None:
            minus_score, name = order[0]
            if scores.known.get(name) != -minus_score or (aside and aside[-1] == order[0]):
                heapq.heappop(order)
            elif nodes[name].observed_at < stale_before or name in barred:
                aside.append(heapq.heappop(order))
            else:
                found = nodes[name]
        for item in aside:
            heapq.heappush(order, item)
        return found

    def _look(self, nodes: Mapping[str, NodeInfo], ledger: Ledger, margin_bytes: int) -> None:
        """Find the nodes that turned since anybody asked; once for all requests."""
        touched, self._mark = ledger.changed_since(self._mark)
        if touched is None:
            touched = {**self._pictures, **nodes}
        if len(self._turned) >= TURNED_MAX:
            self._turned.clear()
            self._turned_number += 1
        for name in touched:
            node, known = nodes.get(name), self._pictures.get(name)
            if node is None:
                if self._pictures.pop(name, None) is not None:
                    self._turned.append((name, None))
                continue
            free, traits = ledger.free(node, margin_bytes), self._traits_of(node)
            if known is None or known[0] is not free or known[1] is not traits:
                counts = node.state in UP and free.cores < node.cores
                picture = self._pictures[name] = (free, traits, free.cores if counts else inf)
                self._turned.append((name, picture))

    def _score(self, scores: Scores, node: NodeInfo, picture: Picture) -> float | str:
        """Of a node with cores enough.  Nodes that are alike and have the same room score the same: it is
        worked out once for all."""
        free, traits, _ = picture
        if scores.cores and node.state in UP:  # the commonest noes, by one comparison each
            if node.memory_bytes and 0 < scores.request.memory_bytes > free.memory_bytes:
                return "memory"
            if 0 < scores.request.scratch_bytes > free.scratch_bytes:
                return "scratch"
            # Memory and scratch fit: of them only what is scored counts.
            state: tuple[object, ...] = (free.cores, scratch_step(scores.request, node, free), traits)
        else:
            name = node.name if scores.by_name else ""
            state = (free.cores, free.memory_bytes, free.scratch_bytes, traits, name)
        known = scores.alike.get(state)
        if known is None:
            if len(scores.alike) >= ALIKE_MAX:
                scores.alike.clear()
            self.evaluations += 1
            known = scores.alike[state] = scores.score(node, free)
        return known

    def _traits_of(self, node: NodeInfo) -> Traits:
        """What counts of a node beside its free room; the same object while it is the same."""
        known = self._traits.get(node.name)
        if known is not None and known[0] is node:
            return known[1]
        traits: Traits = (
            node.state, node.cores, node.memory_bytes, node.scratch_total_bytes, node.properties,
        )  # fmt: skip
        if known is not None and known[1] == traits:
            traits = known[1]
        self._traits[node.name] = (node, traits)
        return traits

    def _remember(self, request: ResourceRequest, policy: Policy) -> Scores:
        while len(self._scores) >= REQUESTS_MAX:
            del self._scores[next(iter(self._scores))]
        return Scores(place.scorer(request, policy), request)

    def clear(self) -> None:
        """Under another policy nothing of it is true."""
        self._scores.clear()
