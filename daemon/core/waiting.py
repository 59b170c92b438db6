"""The queue of READY datasets: buckets of those that ask for the same, oldest first, and their order.

Between buckets: what is soon due, then priority, then the project that has used least of its share, then age.

Memory only; what stands in it can be made again from the state.
"""

from __future__ import annotations

import heapq
from operator import itemgetter

from tiltd.policy.filters import least_cores

from .desk import Desk
from .ledger import Free
from .model import Dataset, NodeInfo, Record, ResourceRequest, Unplaceable
from .sharing import Sharing

Age = tuple[float, str]
Order = tuple[int, int, float, float, str]
"""(0 if soon due, else 1; minus the priority; used of its share; complete since; dataset id)."""
BY_NODE = ("node",)
LAST: Order = (2, 0, 0.0, float("inf"), "")


class Want(Record, cache_hash=True):
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
    """Alike datasets, oldest first; the first really waits (others may have left).  ``blocked`` says why the
    head could not be placed when last tried."""

    def __init__(self, want: Want) -> None:
        self.want = want
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
        self._not_by_nodes: set[Want] = set()
        """Buckets that wait for something else than room on a node."""

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
            self.dirty.add(bucket.want)

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
            self._not_by_nodes.discard(want)

    def clear(self) -> None:
        self.buckets.clear()
        self._not_by_nodes.clear()
        self.where.clear()
        self.dirty.clear()

    def again(self, unblocked_by: frozenset[str]) -> None:
        """Try again what any of these events could unblock, beside room on a node."""
        for want in self._not_by_nodes:
            blocked = self.buckets[want].blocked
            if blocked is not None and not unblocked_by.isdisjoint(blocked.unblocked_by):
                self.dirty.add(want)

    def block(self, want: Want, why: Unplaceable) -> None:
        """The head of this bucket cannot be placed now."""
        self.buckets[want].blocked = why
        if why.unblocked_by == BY_NODE:
            self._not_by_nodes.discard(want)
        else:
            self._not_by_nodes.add(want)

    def head(self, want: Want) -> Dataset | None:
        """The oldest dataset that waits in this bucket; ``None`` when there is no such bucket."""
        bucket = self.buckets.get(want)
        return self._desk.dataset(bucket.waiting[0][1]) if bucket is not None else None

    def order(self, want: Want) -> Order:
        bucket = self.buckets.get(want)
        return self._order_at(bucket.waiting[0], want) if bucket is not None else LAST

    def order_for(self, dataset: Dataset, want: Want) -> Order:
        """The place of this one dataset of a bucket, as things stand now."""
        return self._order_at(order_of(dataset), want)

    def _order_at(self, age: Age, want: Want) -> Order:
        later = 1
        if want.due_seconds:
            urgent_at = age[0] + want.due_seconds - self._desk.policy.deadlines.urgent_seconds
            later = int(self._desk.now < urgent_at)
        return (later, -want.request.priority, self._sharing.ratio(want.project), *age)

    def that_may_fit(self, node: NodeInfo, free: Free) -> list[tuple[Order, Bucket]]:
        """The buckets that wait for room on a node and do not plainly ask for more than this one has, in the
        order of their heads.  Costs a comparison a bucket, and the sorting of those."""
        found: list[tuple[Order, Bucket]] = []
        for bucket in self.buckets.values():
            request, blocked = bucket.want.request, bucket.blocked
            if (
                blocked is not None
                and "node" in blocked.unblocked_by
                and free.cores >= least_cores(request, node)
                and (free.memory_bytes >= request.memory_bytes or not node.memory_bytes)
                and (free.scratch_bytes >= request.scratch_bytes or not request.scratch_bytes)
            ):
                found.append((self._order_at(bucket.waiting[0], bucket.want), bucket))
        found.sort(key=itemgetter(0))
        return found


def order_of(dataset: Dataset) -> Age:
    """The place in its bucket: since when it is complete."""
    completed_at = dataset.completed_at
    return (completed_at if completed_at is not None else dataset.found_at, dataset.dataset_id)
