"""Why those who wait are not placed: asked by people and scrapes, never by a placement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .gates import Gates
from .model import Placement, Unplaceable
from .waiting import Waiting, Want


class Blocked:
    """Evaluates all nodes once per bucket and step; changes nothing."""

    def __init__(
        self, queue: Waiting, gates: Gates, evaluate: Callable[[Want], Placement | Unplaceable]
    ) -> None:
        self._queue = queue
        self._gates = gates
        self._evaluate = evaluate
        self._asked: dict[Want, Unplaceable | None] = {}
        self.forget = self._asked.clear
        """For when something may have changed."""

    def by(self, dataset_id: str) -> Unplaceable | None:
        """Why a queued dataset waits, as things stand now; ``None`` when it does not wait for a place."""
        want = self._queue.where.get(dataset_id)
        return self._why(want) if want is not None else None

    def waiting(self) -> dict[str, int]:
        """How many wait for a place, by the reasons that block them."""
        counts: Counter[str] = Counter()
        for want in self._queue.where.values():
            blocked = self._why(want)
            counts.update(blocked.rejected if blocked is not None else ("placing",))
        return dict(counts)

    def _why(self, want: Want) -> Unplaceable | None:
        if want not in self._asked:
            found = self._gates.stopped(want) or self._evaluate(want)
            self._asked[want] = found if isinstance(found, Unplaceable) else None
        return self._asked[want]
