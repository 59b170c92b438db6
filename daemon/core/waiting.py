"""The queue of READY datasets: buckets of those that ask for the same, oldest first, and their order.

Between buckets: what is soon due, then priority, then the project that has used least of its share, then age.

Memory only; what stands in it can be made again from the state.
"""

from __future__ import annotations

import heapq

from .desk import Desk
from .model import Dataset, Record, ResourceRequest, Unplaceable
from .sharing import Sharing

Age = tuple[float, str]
Order = tuple[int, int, float, float, str]
"""(0 if soon due, else 1; minus the priority; used of its share; complete since; dataset id)."""
LAST: Order = (2, 0, 0.0, float("inf"), "")


class Want(Record):
    """What makes two waiting datasets alike: a bucket's key."""

    request: ResourceRequest
    feed: str
    pipeline: str
    project: str
    only_node: str
    excluded_nodes: tuple[str, ...]
    due_seconds: float = 0.0
    destination: str = ""


class Bucket:
    """Alike datasets, oldest first.  ``blocked`` says why the head could not be placed when last tried."""

    def __init__(self) -> None:
        self.waiting: list[Age] = []
        self.blocked: Unplaceable | None = None


class Waiting:
    """All buckets.  ``dirty`` are those whose head is to be tried over all nodes."""

    def __init__(self, desk: Desk, sharing: Sharing) -> None:
        self._desk = desk
        self._sharing = sharing
        self.buckets: dict[Want, Bucket] = {}
        self.where: dict[str, Want] = {}
        self.dirty: set[Want] = set()

    def add(self, dataset: Dataset, want: Want) -> None:
        """Queue it, or move it to another bucket.  Costs the logarithm of the bucket."""
        if self.where.get(dataset.dataset_id) == want:
            return
        self.where[dataset.dataset_id] = want
        bucket = self.buckets.setdefault(want, Bucket())
        heapq.heappush(bucket.waiting, order_of(dataset))
        if bucket.blocked is None:
            self.dirty.add(want)

    def leave(self, dataset_id: str) -> None:
        """It waits no more; its place in the bucket is cleared when it comes to the front."""
        self.where.pop(dataset_id, None)

    def clear(self) -> None:
        self.buckets.clear()
        self.where.clear()
        self.dirty.clear()

    def again(self, unblocked_by: frozenset[str]) -> None:
        """Try again what any of these events could unblock."""
        for want, bucket in self.buckets.items():
            if bucket.blocked is not None and not unblocked_by.isdisjoint(bucket.blocked.unblocked_by):
                self.dirty.add(want)

    def head(self, want: Want) -> Dataset | None:
        """The oldest dataset that really still waits in this bucket; empty buckets are dropped."""
        bucket = self.buckets.get(want)
        while bucket is not None and bucket.waiting:
            dataset_id = bucket.waiting[0][1]
            dataset = self._desk.dataset(dataset_id)
            if dataset is not None and self.where.get(dataset_id) == want:
                return dataset
            heapq.heappop(bucket.waiting)
        self.buckets.pop(want, None)
        return None

    def order(self, want: Want) -> Order:
        head = self.head(want)
        return self.order_for(head, want) if head is not None else LAST

    def order_for(self, dataset: Dataset, want: Want) -> Order:
        """The place of this one dataset of a bucket, as things stand now."""
        age = order_of(dataset)
        urgent_at = age[0] + want.due_seconds - self._desk.policy.deadlines.urgent_seconds
        later = not want.due_seconds or self._desk.now < urgent_at
        return (int(later), -want.request.priority, self._sharing.ratio(want.project), *age)

    def for_nodes(self) -> list[Want]:
        """The buckets that wait for room on a node, in the order of their heads."""
        return sorted(
            (
                want
                for want, bucket in list(self.buckets.items())
                if bucket.blocked is not None
                and "node" in bucket.blocked.unblocked_by
                and self.head(want) is not None
            ),
            key=self.order,
        )


def order_of(dataset: Dataset) -> Age:
    """The place in its bucket: since when it is complete."""
    completed_at = dataset.completed_at
    return (completed_at if completed_at is not None else dataset.found_at, dataset.dataset_id)
