"""The queue of READY datasets: buckets of those that ask for the same, oldest first.

Memory only; what stands in it can be made again from the state.
"""

from __future__ import annotations

import heapq
from operator import itemgetter

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
    """Alike datasets, oldest first; the first really waits (others may have left).  ``blocked`` says why the
    head could not be placed when last tried."""

    def __init__(self, want: Want) -> None:
        self.want = want
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
        known = self.where.get(dataset.dataset_id)
        if known == want:
            return
        if known is not None:
            self.leave(dataset.dataset_id)
        bucket = self.buckets.get(want)
        if bucket is None:
            bucket = self.buckets[want] = Bucket(want)
        self.where[dataset.dataset_id] = bucket.want
        heapq.heappush(bucket.waiting, order_of(dataset))
        if bucket.blocked is None:
            self.dirty.add(want)

    def leave(self, dataset_id: str) -> None:
        """It waits no more; its place in the bucket is cleared when it comes to the front."""
        want = self.where.pop(dataset_id, None)
        bucket = self.buckets.get(want) if want is not None else None
        if bucket is None or want is None:
            return
        while bucket.waiting and self.where.get(bucket.waiting[0][1]) is not bucket.want:
            heapq.heappop(bucket.waiting)
        if not bucket.waiting:
            del self.buckets[want]

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
        """The oldest dataset that waits in this bucket; ``None`` when there is no such bucket."""
        bucket = self.buckets.get(want)
        return self._desk.dataset(bucket.waiting[0][1]) if bucket is not None else None

    def order(self, want: Want) -> Order:
        bucket = self.buckets.get(want)
        return bucket.waiting[0] if bucket is not None else LAST

    def that_may_fit(self, node: NodeInfo, free: Free) -> list[tuple[Order, Bucket]]:
        """The buckets that wait for room on a node and do not plainly ask for more than this one has, by the
        age of their heads.  Costs a comparison a bucket, and the sorting of those."""
        found: list[tuple[Order, Bucket]] = []
        for bucket in self.buckets.values():
            request, blocked = bucket.want.request, bucket.blocked
            if (
                blocked is not None
                and "node" in blocked.unblocked_by
                and free.cores >= min(request.cores, node.cores)
                and (free.scratch_bytes >= request.scratch_bytes or not request.scratch_bytes)
            ):
                found.append((bucket.waiting[0], bucket))
        found.sort(key=itemgetter(0))
        return found


def order_of(dataset: Dataset) -> Order:
    """The place in the queue: since when it is complete."""
    completed_at = dataset.completed_at
    return (completed_at if completed_at is not None else dataset.found_at, dataset.dataset_id)
