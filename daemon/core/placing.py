"""Who is placed when, and where.

Datasets that ask for the same thing wait in one bucket, oldest first.  A bucket is tried over all nodes
once; if nothing fits it is *blocked* and looked at again only by the event that could unblock it: a node
that gained room (then only that node is evaluated), a limit, a destination, a breaker, the time.  So a
placement costs about one evaluation per distinct request that waits, not one per node or per dataset.

Order: the oldest first; a younger one may overtake it only where the oldest does not fit.  A head that has
waited longer than ``placement.aged_seconds`` keeps the node that comes closest for itself.
"""

from __future__ import annotations

from collections import defaultdict

from msgspec.structs import replace

from tiltd.plugins.api import Permanent
from tiltd.policy import place
from tiltd.policy.shape import round_up_bytes, shape

from . import facts as f
from .desk import Desk
from .gates import Gates
from .ledger import Free
from .model import (
    Attempt,
    Dataset,
    Failure,
    NodeInfo,
    Placement,
    ResourceRequest,
    State,
    TiltSeries,
    Unplaceable,
    attempt_id,
)
from .waiting import Order, Waiting, Want, order_of

ATTEMPT_ENDED = frozenset({"limit", "destination"})


class Placing:
    """Memory only; rebuilt from the state at the start and at every reload of the policy."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.nodes: dict[str, NodeInfo] = {}
        self.gates = Gates(desk)
        self.queue = Waiting(desk)
        self.evaluations = 0
        self._roomier: dict[str, None] = {}
        self._kept_node: tuple[Order, str] | None = None
        self._asked: dict[Want, Unplaceable | None] = {}
        desk.listeners.append(self._changed)

    # -- what changes ----------------------------------------------------------------------------------

    def _changed(self, before: Dataset | None, after: Dataset | None) -> None:
        if self.gates.changed(before, after):
            self.queue.again(ATTEMPT_ENDED)
        if after is not None and after.state is State.READY:
            self.consider(after)
        elif before is not None and before.state is State.READY:
            self._leave(before.dataset_id)

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
        self.gates.destination_free = free_bytes
        self.queue.again(ATTEMPT_ENDED)

    def consider(self, dataset: Dataset) -> None:
        """Queue a READY dataset if nothing but room stands in its way; else take it out."""
        want = self._want(dataset) if self._may_be_placed(dataset) else None
        if want is None:
            self._leave(dataset.dataset_id)
        else:
            self.queue.add(dataset, want)

    def _leave(self, dataset_id: str) -> None:
        self.queue.leave(dataset_id)
        if self._kept_node is not None and self._kept_node[0][1] == dataset_id:
            self.roomier(self._kept_node[1])
            self._kept_node = None

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
        self.queue.clear()
        self._kept_node = None
        for dataset in list(self._desk.state.datasets.values()):
            if dataset.state is State.READY:
                self._lift_no_pipeline(dataset)
                self.consider(self._desk.state.datasets[dataset.dataset_id])

    def _lift_no_pipeline(self, dataset: Dataset) -> None:
        """Since the last start its pipeline may have been installed."""
        if dataset.series is not None and not self._no_pipeline(dataset, dataset.series):
            self._desk.lift(dataset, "no_pipeline")

    # -- what a dataset asks for -------------------------------------------------------------------------

    def _want(self, dataset: Dataset) -> Want | None:
        """The bucket of this dataset.  A pipeline that cannot take it rejects it here."""
        assert dataset.series is not None
        only_node = ""
        if dataset.rescue:
            stranded = next(a for a in dataset.attempts if a.attempt_id == dataset.rescue)
            only_node = (stranded.nodes or stranded.placement.nodes)[0]
            request = ResourceRequest(
                cores=1, threads=1, walltime_seconds=3600.0, result_bytes=stranded.request.result_bytes
            )
        else:
            asked = self._asked_by_pipeline(dataset, dataset.series)
            if asked is None:
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

    def _asked_by_pipeline(self, dataset: Dataset, series: TiltSeries) -> ResourceRequest | None:
        """What the pipeline asks for; ``None`` if it cannot take the series, which is said on the dataset."""
        desk = self._desk
        if missing := self._no_pipeline(dataset, series):
            desk.hold(dataset, "no_pipeline", missing)
            return None
        try:
            return desk.pipelines[dataset.pipeline].request(series, dataset.options)
        except Permanent as error:
            self._reject(dataset, error)
        except Exception as bug:  # a plugin's; it stops this dataset, not the daemon
            detail = (
                f"the pipeline {dataset.pipeline} cannot say what it needs: {bug!r}; mend it, then release"
            )
            desk.hold(dataset, "bug", detail)
        return None

    def _no_pipeline(self, dataset: Dataset, series: TiltSeries) -> str:
        if series.kind == "frames":
            return "no pipeline for frames: its pipelines take stacks"
        if dataset.pipeline not in self._desk.pipelines:
            return f"the pipeline {dataset.pipeline} of its feed is not installed"
        return ""

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

    def _reject(self, dataset: Dataset, error: Permanent) -> None:
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
        self._asked.clear()
        queue = self.queue
        if self.gates.breakers_turned():
            self._breakers_turned()
        while self._roomier or queue.dirty:
            if self._roomier and not (queue.buckets and self._fill_all()):
                self._roomier.clear()
            for want in sorted(queue.dirty, key=queue.order):
                queue.dirty.discard(want)
                self._drain(want)

    def _breakers_turned(self) -> None:
        """Every bucket is tried again: a scope is free, or one may be probed, or its probe is to be awaited.
        What a bucket was last blocked by does not tell, because it may be older than the breaker."""
        self.queue.dirty.update(self.queue.buckets)
        self.gates.wake_for_probes()

    def _fill_all(self) -> bool:
        """Give the roomier nodes to those who wait for nodes.  False if nobody does."""
        wants = self.queue.for_nodes()
        while wants and self._roomier:
            node = next(iter(self._roomier))
            del self._roomier[node]
            while self._fill(node, wants):
                wants = self.queue.for_nodes()
        return bool(wants)

    def _fill(self, node_name: str, wants: list[Want]) -> bool:
        """Place the oldest head that fits on this node; false if none does."""
        node = self.nodes.get(node_name)
        if node is None:
            return False
        free = self._free_of(node)
        if free.cores < 1:
            return False
        for want in wants:
            head = self.queue.head(want)
            if head is not None and self._fits(want, node, free):
                self._place(head, want, place.on(want.request, [node], self._desk.policy))
                return True
        return False

    def _drain(self, want: Want) -> None:
        """Place one bucket's datasets over all nodes until its head does not fit."""
        while (head := self.queue.head(want)) is not None:
            found = self.gates.stopped(want) or self._choose(want)
            if isinstance(found, Unplaceable):
                self._block(want, head, found)
                return
            self._place(head, want, found)

    def _fits(self, want: Want, node: NodeInfo, free: Free) -> bool:
        """Evaluate one node for a bucket that waits for nodes.  A job over several nodes is tried whole."""
        if want.request.nodes > 1:
            self.queue.dirty.add(want)
            return False
        if self.gates.stopped(want):
            return False
        self.evaluations += 1
        desk = self._desk
        return not place.fits(
            want.request,
            node,
            free,
            desk.policy,
            excluded=self._barred(want),
            only_node=want.only_node,
            now=desk.now,
        )

    def _choose(self, want: Want) -> Placement | Unplaceable:
        """Evaluate all nodes for a bucket."""
        self.evaluations += len(self.nodes)
        return self.evaluate(want)

    def evaluate(self, want: Want) -> Placement | Unplaceable:
        """Where a bucket's head could go as things stand; changes nothing, costs all nodes."""
        desk = self._desk
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
        barred = self.gates.barred_nodes()
        if want.excluded_nodes:
            policy = self._desk.policy
            still = place.still_excluded(want.request, self.nodes.values(), policy, want.excluded_nodes)
            barred.update(dict.fromkeys(still, "excluded"))
        if self._kept_node is not None and self._kept_node[0] < self.queue.order(want):
            barred[self._kept_node[1]] = "kept_for_aged"
        return barred

    def _block(self, want: Want, head: Dataset, found: Unplaceable) -> None:
        desk = self._desk
        self.queue.buckets[want].blocked = found
        for reason in found.rejected:
            desk.refusals[reason] += 1
        if "breaker" in found.rejected:
            self.gates.wake_for_probes()
        if "node" in found.unblocked_by and found.best_effort_node:
            self._keep_for_aged(order_of(head), found.best_effort_node)

    def _keep_for_aged(self, order: Order, node: str) -> None:
        kept = self._kept_node
        if kept is not None and (kept[0] < order or kept == (order, node)):
            return
        aged_at = order[0] + self._desk.policy.placement.aged_seconds
        if aged_at > self._desk.now:
            self._desk.wake(aged_at, "aged", order[1])
            return
        self._kept_node = (order, node)
        if kept is not None:
            self.roomier(kept[1])

    def look_again(self, key: tuple[str, ...]) -> None:
        """A wake-up of ours: a breaker's probe is due, or a head has aged."""
        if key[0] == "aged":
            want = self.queue.where.get(key[1])
            if want is not None:
                self.queue.dirty.add(want)
            return
        self._breakers_turned()

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
        self.gates.probing(dataset.dataset_id, want, placement.nodes)
        desk.record(f.Placed(at=desk.now, dataset_id=dataset.dataset_id, attempt=attempt))

    # -- questions -----------------------------------------------------------------------------------------

    def blocked_by(self, dataset_id: str) -> Unplaceable | None:
        """Why a queued dataset waits, as things stand now; ``None`` when it does not wait for a place.

        Evaluates all nodes once per bucket and step; changes nothing.
        """
        want = self.queue.where.get(dataset_id)
        return self._why(want) if want is not None else None

    def _why(self, want: Want) -> Unplaceable | None:
        if want not in self._asked:
            found = self.gates.stopped(want) or self.evaluate(want)
            self._asked[want] = found if isinstance(found, Unplaceable) else None
        return self._asked[want]

    def waiting(self) -> dict[str, int]:
        """How many wait for a place, by the reasons that block them.  Evaluates each bucket once."""
        counts: dict[str, int] = defaultdict(int)
        for want in self.queue.where.values():
            blocked = self._why(want)
            for reason in blocked.rejected if blocked else ("placing",):
                counts[reason] += 1
        return dict(counts)
