"""The queue of READY datasets, and who is placed when.

Datasets that ask for the same thing wait in one bucket, oldest first.  A bucket is tried over all nodes
once; if nothing fits it is *blocked* and looked at again only by the event that could unblock it: a node
that gained room (then only that node is evaluated), a limit, a destination, a breaker, the time.  So a
placement costs about one evaluation per distinct request that waits, not one per node or per dataset.

Order: the oldest first; a younger one may overtake it only where the oldest does not fit.  A head that has
waited longer than ``placement.aged_seconds`` keeps the node that comes closest for itself.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict

from msgspec.structs import replace

from tiltd.plugins.api import Permanent
from tiltd.policy import breaker, place
from tiltd.policy.shape import round_up_bytes, shape

from . import facts as f
from .desk import Desk
from .ledger import Free
from .model import (
    WITH_ATTEMPT,
    Attempt,
    Dataset,
    Failure,
    NodeInfo,
    Placement,
    Record,
    ResourceRequest,
    State,
    Unplaceable,
    attempt_id,
)

Order = tuple[float, str]


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


class Placing:
    """Memory only; rebuilt from the state at the start and at every reload of the policy."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.nodes: dict[str, NodeInfo] = {}
        self.destination_free: dict[str, int | None] = {}
        self.evaluations = 0
        self._buckets: dict[Want, Bucket] = {}
        self._where: dict[str, Want] = {}
        self._dirty: set[Want] = set()
        self._roomier: dict[str, None] = {}
        self._kept_node: tuple[Order, str] | None = None
        self._live: Counter[str] = Counter()
        self._result_bytes: Counter[str] = Counter()
        desk.listeners.append(self._changed)

    # -- what changes ----------------------------------------------------------------------------------

    def _changed(self, before: Dataset | None, after: Dataset | None) -> None:
        self._count(before, -1)
        self._count(after, +1)
        dataset = after or before
        assert dataset is not None
        if (
            before is not None
            and before.state in WITH_ATTEMPT
            and (after is None or after.state is not before.state)
        ):
            self._limits_eased()
        if after is not None and after.state is State.READY:
            self.consider(after)
        else:
            self._where.pop(dataset.dataset_id, None)

    def _count(self, dataset: Dataset | None, sign: int) -> None:
        if dataset is None or dataset.state not in WITH_ATTEMPT:
            return
        self._live[""] += sign
        self._live[f"project:{dataset.project}"] += sign
        attempt = dataset.attempt
        if attempt is not None:
            self._result_bytes[dataset.feed] += sign * attempt.request.result_bytes

    def _limits_eased(self) -> None:
        for want, bucket in self._buckets.items():
            if bucket.blocked is not None and {"limit", "destination"} & set(bucket.blocked.unblocked_by):
                self._dirty.add(want)

    def roomier(self, node: str) -> None:
        """This node may have gained room: released scratch, or new figures of its own."""
        self._roomier[node] = None

    def observe(self, nodes: tuple[NodeInfo, ...]) -> None:
        """Take all nodes' figures; a node that is not named any more is forgotten."""
        seen = {node.name for node in nodes}
        for gone in [name for name in self.nodes if name not in seen]:
            del self.nodes[gone]
            self._desk.state.ledger.forget(gone)
        for node in nodes:
            self.nodes[node.name] = node
            self._desk.state.ledger.observe(node)
            self.roomier(node.name)

    def observe_destinations(self, free_bytes: dict[str, int | None]) -> None:
        self.destination_free = free_bytes
        self._limits_eased()

    def consider(self, dataset: Dataset) -> None:
        """Queue a READY dataset if nothing but room stands in its way; else take it out."""
        want = self._want(dataset) if self._may_be_placed(dataset) else None
        if want is None:
            self._where.pop(dataset.dataset_id, None)
            return
        if self._where.get(dataset.dataset_id) == want:
            return
        self._where[dataset.dataset_id] = want
        bucket = self._buckets.setdefault(want, Bucket())
        heapq.heappush(bucket.waiting, (dataset.completed_at or dataset.found_at, dataset.dataset_id))
        if bucket.blocked is None:
            self._dirty.add(want)

    def _may_be_placed(self, dataset: Dataset) -> bool:
        feed = self._desk.site.feeds.get(dataset.feed)
        if dataset.holds or dataset.series is None or feed is None:
            return False
        if dataset.retry_not_before_at > self._desk.now:
            self._desk.wake(dataset.retry_not_before_at, "dataset", dataset.dataset_id)
            return False
        return not feed.imports or bool(dataset.imported_path)

    def reload(self) -> None:
        """Judge all waiting datasets afresh (new policy)."""
        self._buckets.clear()
        self._where.clear()
        self._dirty.clear()
        self._kept_node = None
        for dataset in self._desk.state.datasets.values():
            if dataset.state is State.READY:
                self.consider(dataset)

    def recount(self) -> None:
        """Count live attempts afresh (after a restart)."""
        self._live.clear()
        self._result_bytes.clear()
        for dataset in self._desk.state.datasets.values():
            self._count(dataset, +1)

    # -- what a dataset asks for -------------------------------------------------------------------------

    def _want(self, dataset: Dataset) -> Want | None:
        """The bucket of this dataset.  A pipeline that cannot take it rejects it here."""
        desk = self._desk
        assert dataset.series is not None
        only_node = ""
        if dataset.rescue:
            stranded = next(a for a in dataset.attempts if a.attempt_id == dataset.rescue)
            only_node = (stranded.nodes or stranded.placement.nodes)[0]
            request = ResourceRequest(
                cores=1, threads=1, walltime_seconds=3600.0, result_bytes=stranded.request.result_bytes
            )
        else:
            try:
                asked = desk.pipelines[dataset.pipeline].request(dataset.series, dataset.options)
            except (Permanent, KeyError) as error:
                self._reject(dataset, error)
                return None
            request = self._shaped(dataset, asked)
        return Want(
            request=request,
            feed=dataset.feed,
            pipeline=dataset.pipeline,
            project=dataset.project,
            only_node=only_node,
            excluded_nodes=() if only_node else dataset.excluded_nodes,
        )

    def _shaped(self, dataset: Dataset, asked: ResourceRequest) -> ResourceRequest:
        """The policy's word over the pipeline's.  What the result takes is rounded like the rest, so that
        the bucket's head speaks for all of it."""
        assert dataset.series is not None
        shaped = shape(
            asked,
            dataset.series.total_bytes,
            self._desk.policy,
            pipeline=dataset.pipeline,
            samples=self._desk.state.samples,
            changes=dataset.changes,
        )
        return replace(shaped, result_bytes=round_up_bytes(asked.result_bytes))

    def _reject(self, dataset: Dataset, error: Exception) -> None:
        if isinstance(error, KeyError):
            self._desk.hold(
                dataset, "no_pipeline", f"the pipeline {dataset.pipeline} of its feed is not installed"
            )
            return
        failure = Failure(failure_class="config", reason="rejected", detail=str(error), spent=False)
        self._desk.record(
            f.DatasetRejected(at=self._desk.now, dataset_id=dataset.dataset_id, failure=failure)
        )
        self._desk.notice(
            "failed", f"{dataset.dataset_id} cannot be run: {error}", dataset.dataset_id, dataset
        )

    # -- placing -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Place what can be placed.  Costs one node evaluation per waiting request and roomier node, and
        one per node for a request that waits anew."""
        while self._roomier:
            node = next(iter(self._roomier))
            del self._roomier[node]
            self._fill(node)
        for want in sorted(self._dirty, key=self._head_order):
            self._dirty.discard(want)
            self._drain(want)

    def _head(self, want: Want) -> Dataset | None:
        """The oldest dataset that really still waits in this bucket; empty buckets are dropped."""
        bucket = self._buckets.get(want)
        while bucket is not None and bucket.waiting:
            dataset_id = bucket.waiting[0][1]
            dataset = self._desk.dataset(dataset_id)
            if dataset is not None and self._where.get(dataset_id) == want:
                return dataset
            heapq.heappop(bucket.waiting)
        self._buckets.pop(want, None)
        return None

    def _head_order(self, want: Want) -> Order:
        head = self._head(want)
        return (head.completed_at or head.found_at, head.dataset_id) if head else (float("inf"), "")

    def _drain(self, want: Want) -> None:
        """Place one bucket's datasets over all nodes until its head does not fit."""
        while (head := self._head(want)) is not None:
            found = self._stopped(want) or self._choose(want)
            if isinstance(found, Unplaceable):
                self._block(want, head, found)
                return
            self._place(head, want, found)

    def _fill(self, node_name: str) -> None:
        """Give one node's room to those who wait, oldest first."""
        placed = True
        while placed and (node := self.nodes.get(node_name)) is not None:
            placed = False
            for want in sorted(self._buckets, key=self._head_order):
                bucket, head = self._buckets.get(want), self._head(want)
                if head is None or bucket is None or bucket.blocked is None:
                    continue
                if "node" not in bucket.blocked.unblocked_by or not self._fits(want, node):
                    continue
                self._place(head, want, place.on(want.request, [node], self._desk.policy))
                placed = True
                break

    def _fits(self, want: Want, node: NodeInfo) -> bool:
        """Evaluate one node for a bucket that waits for nodes.  A job over several nodes is tried whole."""
        if want.request.nodes > 1:
            self._dirty.add(want)
            return False
        if self._stopped(want):
            return False
        self.evaluations += 1
        desk = self._desk
        return not place.fits(
            want.request,
            node,
            self._free_of(node),
            desk.policy,
            excluded=self._barred(want),
            only_node=want.only_node,
            now=desk.now,
        )

    def _choose(self, want: Want) -> Placement | Unplaceable:
        """Evaluate all nodes for a bucket."""
        desk = self._desk
        self.evaluations += len(self.nodes)
        return place.place(
            want.request,
            self.nodes.values(),
            self._free_of,
            desk.policy,
            excluded=self._barred(want),
            only_node=want.only_node,
            now=desk.now,
        )

    def _free_of(self, node: NodeInfo) -> Free:
        return self._desk.state.ledger.free(node, self._desk.policy.placement.scratch_margin_bytes)

    def _barred(self, want: Want) -> dict[str, str]:
        """Nodes that this bucket may not have now, whatever room they have, and why."""
        desk = self._desk
        barred = dict.fromkeys(
            breaker.blocked_nodes(desk.state.breakers, desk.now, desk.policy.breaker), "breaker"
        )
        if want.excluded_nodes:
            still = place.still_excluded(want.request, self.nodes.values(), desk.policy, want.excluded_nodes)
            barred.update(dict.fromkeys(still, "excluded"))
        if self._kept_node is not None and self._kept_node[0] < self._head_order(want):
            barred[self._kept_node[1]] = "kept_for_aged"
        return barred

    def _stopped(self, want: Want) -> Unplaceable | None:
        """Reasons that have nothing to do with nodes: breakers, limits, the destination's space."""
        desk, limits = self._desk, self._desk.policy.limits
        for scope in breaker.blocking(desk.state.breakers, _scopes(want), desk.now, desk.policy.breaker):
            detail = f"the breaker of {scope} is open: {breaker.reason(desk.state.breakers, scope)}"
            return _stop("breaker", "time", detail)
        if limits.running_max and self._live[""] >= limits.running_max:
            return _stop("limit", "limit", f"{limits.running_max} attempts are live (limits.running_max)")
        if limits.per_project_max and self._live[f"project:{want.project}"] >= limits.per_project_max:
            return _stop("limit", "limit", f"{limits.per_project_max} attempts of its project are live")
        if want.feed not in self.destination_free:
            return None
        free = self.destination_free[want.feed]
        if free is None:
            return _stop("destination", "destination", "its destination cannot be read")
        left = free - self._result_bytes[want.feed]
        if left < want.request.result_bytes:
            detail = f"its result needs {want.request.result_bytes} bytes, its destination has {left} left"
            return _stop("destination", "destination", detail)
        return None

    def _block(self, want: Want, head: Dataset, found: Unplaceable) -> None:
        desk = self._desk
        self._buckets[want].blocked = found
        for reason in found.rejected:
            desk.refusals[reason] += 1
        if "breaker" in found.rejected:
            self._wake_for_probe()
        if "node" in found.unblocked_by and found.best_effort_node:
            self._keep_for_aged(head, found.best_effort_node)

    def _wake_for_probe(self) -> None:
        desk = self._desk
        for scope in breaker.open_scopes(desk.state.breakers):
            at = breaker.next_probe_at(desk.state.breakers, scope, desk.policy.breaker)
            if at is not None:
                desk.wake(max(at, desk.now), "breaker")

    def _keep_for_aged(self, head: Dataset, node: str) -> None:
        order = (head.completed_at or head.found_at, head.dataset_id)
        if self._kept_node is not None and self._kept_node[0] <= order:
            return
        aged_at = order[0] + self._desk.policy.placement.aged_seconds
        if aged_at <= self._desk.now:
            self._kept_node = (order, node)
        else:
            self._desk.wake(aged_at, "aged", head.dataset_id)

    def look_again(self, key: tuple[str, ...]) -> None:
        """A wake-up of ours: a breaker's probe is due, or a head has aged."""
        if key[0] == "aged":
            want = self._where.get(key[1])
            if want is not None:
                self._dirty.add(want)
            return
        self._dirty.update(self._buckets)
        for node in self.nodes:
            self.roomier(node)

    def _place(self, dataset: Dataset, want: Want, placement: Placement) -> None:
        desk = self._desk
        for name in placement.nodes:
            desk.state.ledger.require(self.nodes[name], placement.scratch_bytes)
        number = len(dataset.attempts) + 1
        stranded = next((a for a in dataset.attempts if a.attempt_id == dataset.rescue), None)
        attempt = Attempt(
            attempt_id=attempt_id(dataset.dataset_id, number),
            number=number,
            kind="rescue" if stranded else "run",
            placement=placement,
            request=want.request,
            placed_at=desk.now,
            rescues_attempt_id=dataset.rescue,
            rescue_path=stranded.end.stranded_path if stranded and stranded.end else "",
        )
        self._probing(dataset, want, placement)
        if self._kept_node is not None and self._kept_node[0][1] == dataset.dataset_id:
            self.roomier(self._kept_node[1])
            self._kept_node = None
        desk.record(f.Placed(at=desk.now, dataset_id=dataset.dataset_id, attempt=attempt))

    def _probing(self, dataset: Dataset, want: Want, placement: Placement) -> None:
        """A dataset placed under an open breaker is its probe."""
        desk = self._desk
        for scope in (*_scopes(want), *(f"node:{node}" for node in placement.nodes)):
            if breaker.is_open(desk.state.breakers, scope):
                desk.record(f.BreakerProbed(at=desk.now, scope=scope, dataset_id=dataset.dataset_id))

    # -- questions -----------------------------------------------------------------------------------------

    def blocked_by(self, dataset_id: str) -> Unplaceable | None:
        """Why a queued dataset waits; ``None`` when it does not wait for a place."""
        want = self._where.get(dataset_id)
        bucket = self._buckets.get(want) if want is not None else None
        return bucket.blocked if bucket is not None else None

    def waiting(self) -> dict[str, int]:
        """How many wait for a place, by the reasons that block them."""
        counts: dict[str, int] = defaultdict(int)
        for dataset_id in self._where:
            blocked = self.blocked_by(dataset_id)
            for reason in blocked.rejected if blocked else ("placing",):
                counts[reason] += 1
        return dict(counts)


def _stop(reason: str, by: str, detail: str) -> Unplaceable:
    return Unplaceable(rejected={reason: 1}, unblocked_by=(by,), detail=detail)  # type: ignore[arg-type]


def _scopes(want: Want) -> tuple[str, ...]:
    return (f"feed:{want.feed}", f"pipeline:{want.pipeline}", f"destination:{want.feed}")
