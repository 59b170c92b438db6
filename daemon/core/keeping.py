"""The node that an aged head keeps for itself, so that small series do not overtake it for ever."""

from __future__ import annotations

from collections.abc import Callable

from .desk import Desk
from .model import Dataset, Placement, Unplaceable
from .waiting import Waiting, Want, order_of


class Keeping:
    """At most one head keeps one node: the first in the order of the queue.  Memory only."""

    def __init__(self, desk: Desk, queue: Waiting) -> None:
        self._desk = desk
        self._queue = queue
        self._head = ""
        self.node = ""

    def clear(self) -> None:
        self._head = self.node = ""

    def left(self, dataset_id: str) -> str:
        """It waits no more; gives the node that it kept, "" for none."""
        if not self.node or self._head != dataset_id:
            return ""
        node = self.node
        self.clear()
        return node

    def bars(self, want: Want) -> bool:
        """Is the node kept from this bucket: does the aged head come before its head, as the order is now?"""
        if not self.node:
            return False
        kept, kept_want = self._desk.dataset(self._head), self._queue.where.get(self._head)
        if kept is None or kept_want is None:
            return False
        return self._queue.order_for(kept, kept_want) < self._queue.order(want)

    def blocked(self, head: Dataset, want: Want, evaluate: Callable[[Want], Placement | Unplaceable]) -> str:
        """A head found no node: if it has aged it keeps the one that comes closest from now on, else it is
        looked at again when it has.  Gives the node that was kept before and is so no more, "" for none."""
        if self.node and self._head != head.dataset_id and self.bars(want):
            return ""
        aged_at = order_of(head)[0] + self._desk.policy.placement.aged_seconds
        if aged_at > self._desk.now:
            self._desk.wake(aged_at, "aged", head.dataset_id)
            return ""
        found = evaluate(want)
        node = found.best_effort_node if isinstance(found, Unplaceable) else ""
        if not node or (self._head, self.node) == (head.dataset_id, node):
            return ""
        before, self._head, self.node = self.node, head.dataset_id, node
        return before
