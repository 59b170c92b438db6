"""The queue of READY datasets: buckets of those that ask for the same, oldest first.

Memory only; what stands in it can be made again from the state.
"""

from __future__ import annotations

import heapq

from .desk import Desk
from .ledger import Free
from .model import Dataset, NodeInfo, Record, ResourceRequest, Unplaceable

Order = tuple[float, str]
LAST: Order = (float("inf"), "")


class Want(Record):
    """What makes two waiting datasets alike: a bucket's key."""

    request: ResourceRequest
    feed: str
    pipeline: str
    project: str
    only_node: str
    excluded_nodes: tuple[str, ...]


class Bucket:
    """Alike datasets, oldest first.  ``blocked`` says why the head could not be placed when last tried."""

    def __init__(self) -> None:
        self.waiting: list[Order] = []
        self.blocked: Unplaceable | None = None


class Waiting:
    """All buckets.  ``dirty`` are those whose head is to be tried over all nodes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
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
        return order_of(head) if head is not None else LAST

    def that_may_fit(self, node: NodeInfo, free: Free) -> list[Want]:
        """The buckets that wait for room on a node and do not plainly ask for more than this one has, by the
        age of their heads.  Costs a comparison a bucket, and the sorting of those."""
        found = []
        for want, bucket in self.buckets.items():
            request, blocked = want.request, bucket.blocked
            if (
                blocked is not None
                and "node" in blocked.unblocked_by
                and free.cores >= min(request.cores, node.cores)
                and (free.scratch_bytes >= request.scratch_bytes or not request.scratch_bytes)
            ):
                found.append(want)
        return sorted(found, key=self.order) if len(found) > 1 else found


def order_of(dataset: Dataset) -> Order:
    """The place in the queue: since when it is complete."""
    completed_at = dataset.completed_at
    return (completed_at if completed_at is not None else dataset.found_at, dataset.dataset_id)
