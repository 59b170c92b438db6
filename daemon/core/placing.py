"""Who is placed when, and where.

Datasets that ask for the same thing wait in one bucket, oldest first.  A bucket is tried over all nodes
once; if nothing fits it is *blocked* and looked at again only by the event that could unblock it: a node
that gained room (then only that node is evaluated), a limit, a destination, a breaker, the time.  So a
placement costs about one evaluation per distinct request that waits, not one per node or per dataset.

Order (:mod:`.sharing`): what is soon due, then by priority, then the project that has used least of its
share, then the oldest; one that comes later may overtake only where the earlier ones do not fit.  A head that
has waited longer than ``placement.aged_seconds`` keeps the node that comes closest for itself.
"""

from __future__ import annotations

import heapq

from tiltd.policy import place

from . import facts as f
from . import pinning
from .asking import Asking
from .best import Best
from .blocked import Blocked
from .deadlines import Deadlines
from .deciding import Deciding
from .desk import Desk
from .gates import Gates, concerned
from .keeping import Keeping
from .ledger import Free
from .model import Attempt, Dataset, NodeInfo, Placement, State, Unplaceable, attempt_id
from .sharing import Sharing
from .waiting import Waiting, Want

ATTEMPT_ENDED = frozenset({"limit", "destination"})


class Placing:
    """Memory only; rebuilt from the state at the start and at every reload of the policy."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.nodes: dict[str, NodeInfo] = {}
        self.gates = Gates(desk)
        self.deciding = Deciding(desk)
        self.deadlines = Deadlines(desk, self.deciding)
        self.sharing = Sharing(desk)
        self.queue = Waiting(desk, self.sharing)
        self._asking = Asking(desk, self.deciding)
        self._best = Best()
        self._roomier: dict[str, None] = {}
        self._keeping = Keeping(desk, self.queue)
        self.blocked = Blocked(self.queue, self.gates, self.evaluate)
        self._each: int | None = None
        self._aside: set[Want] = set()
        desk.listen(self._changed, concerned)

    # -- what changes ----------------------------------------------------------------------------------

    def _changed(self, before: Dataset | None, after: Dataset | None) -> None:
        if self.gates.changed(before, after):
            self.queue.again(ATTEMPT_ENDED)
        if after is not None and after.state is State.READY:
            self.consider(after)
        elif before is not None and before.state is State.READY:
            self._leave(before.dataset_id)
            self.deciding.forget(before.dataset_id)
            self._asking.forget(before.dataset_id)

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

    def without_room(self) -> set[str]:
        """The feeds of which series wait for room where their results go.  Costs the waiting requests."""
        found = set()
        for want in set(self.queue.where.values()):
            stopped = self.gates.stopped(want)
            if stopped is not None and "destination" in stopped.rejected:
                found.add(want.feed)
        return found

    def observe_destinations(self, free_bytes: dict[str, int | None]) -> None:
        self.gates.destination_free = free_bytes
        self.queue.again(ATTEMPT_ENDED)

    def consider(self, dataset: Dataset) -> None:
        """Queue a READY dataset if nothing but room stands in its way; else take it out."""
        if dataset.series is None:
            self._leave(dataset.dataset_id)
            return
        decision = self.deciding.decide(dataset)
        self.deadlines.watch(dataset, decision)
        if self.deciding.hold_by_rule(dataset, decision):
            return  # the change of the hold has had it considered already
        want = self._asking.want(dataset, decision) if self._may_be_placed(dataset) else None
        if want is None:
            self._leave(dataset.dataset_id)
        else:
            self.queue.add(dataset, want)

    def _leave(self, dataset_id: str) -> None:
        self.queue.leave(dataset_id)
        if kept := self._keeping.left(dataset_id):
            self.roomier(kept)

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
        self._best.clear()
        self._keeping.clear()
        self.decide_again()

    # -- placing -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Place what can be placed.  Costs one node evaluation per waiting request and roomier node, and
        one per node for a request that waits anew."""
        self.blocked.forget()
        self._each = None
        queue = self.queue
        if self._aside:
            queue.dirty |= self._aside & queue.buckets.keys()
            self._aside.clear()
        if self.deciding.counted(len(queue.where)):
            self.decide_again()
        if self.gates.breakers_turned():
            self._breakers_turned()
        while self._roomier or queue.dirty:
            roomier, self._roomier = self._roomier, {}
            for node in roomier if queue.buckets else ():
                self._fill(node)
            if queue.dirty:
                self._drain_dirty()

    def _breakers_turned(self) -> None:
        """Every bucket is tried again: a scope is free, or one may be probed, or its probe is to be awaited.
        What a bucket was last blocked by does not tell, because it may be older than the breaker."""
        self.queue.dirty.update(self.queue.buckets)
        self.gates.wake_for_probes()

    def _fill(self, node_name: str) -> None:
        """Give one node's room to those who wait for nodes, the oldest head that fits first."""
        node = self.nodes.get(node_name)
        placed = node is not None
        while node is not None and placed:
            placed = False
            free = self._free_of(node)
            refused: set[tuple[object, ...]] = set()
            for _, bucket in self.queue.that_may_fit(node, free) if free.cores > 0 else ():
                want, head = bucket.want, self.queue.head(bucket.want)
                if head is not None and self._placed_on(node, free, want, head, refused):
                    placed = True
                    break

    def _drain_dirty(self) -> None:
        """Try every dirty bucket over all nodes, head by head in the order of the whole queue, until none
        fits: what is placed may change whose turn it is."""
        queue = self.queue
        turns = [(queue.order(want), number, want) for number, want in enumerate(queue.dirty)]
        queue.dirty.clear()
        heapq.heapify(turns)
        while turns:
            _, number, want = heapq.heappop(turns)
            while want not in self._aside and (head := queue.head(want)) is not None:
                if turns and queue.order(want) > turns[0][0]:
                    heapq.heappush(turns, (queue.order(want), number, want))
                    break
                if not self._placed_anywhere(want, head):
                    break

    def _placed_on(
        self, node: NodeInfo, free: Free, want: Want, head: Dataset, refused: set[tuple[object, ...]]
    ) -> bool:
        try:
            fits = want not in self._aside and self._fits(want, node, free, refused)
            if fits:
                self._place(head, want, self._on(want, node))
            return fits
        except Exception as bug:
            return self._set_aside(want, head, bug)

    def _placed_anywhere(self, want: Want, head: Dataset) -> bool:
        try:
            found = self.gates.stopped(want) or self._choose(want)
            if isinstance(found, Unplaceable):
                self._block(want, head, found)
                return False
            self._place(head, want, found)
            return True
        except Exception as bug:
            return self._set_aside(want, head, bug)

    def _set_aside(self, want: Want, head: Dataset, bug: Exception) -> bool:
        """A bug of ours, met while one series was placed: that one is held, its like wait for the next step,
        and the others go on."""
        self._aside.add(want)
        self._desk.bug(bug, head.dataset_id)
        return False

    def _fits(self, want: Want, node: NodeInfo, free: Free, refused: set[tuple[object, ...]]) -> bool:
        """Evaluate one node for a bucket that waits for nodes, unless the like of it was ``refused`` there
        just now.  A job over several nodes is tried whole."""
        if want.request.nodes > 1:
            self.queue.dirty.add(want)
            return False
        alike = (*place.scored_by(want.request), want.only_node)
        if alike in refused or node.name in self._barred(want):
            return False
        if stopped := self.gates.stopped(want):
            self.queue.block(want, stopped)  # nodes have room: from now on it waits for this
            return False
        self._best.evaluations += 1
        desk = self._desk
        found = place.fits(want.request, node, free, desk.policy, only_node=want.only_node, now=desk.now)
        if found:
            refused.add(alike)
        return not found

    def _choose(self, want: Want) -> Placement | Unplaceable:
        """The best of all nodes for a bucket.

        Nothing but the request counts for most of them: then only nodes that changed are evaluated.
        """
        remembered = self.remembered(want)
        if remembered:
            return self._on(want, self.nodes[remembered[0]])
        if remembered is None:
            self._best.evaluations += len(self.nodes)
            return self.evaluate(want)
        desk = self._desk
        barred = self._barred(want)
        rejected = self._best.reasons(want.request, self.nodes, desk.policy, desk.now, barred)
        return Unplaceable(rejected=rejected, unblocked_by=("node",))

    def remembered(self, want: Want) -> tuple[str, ...] | None:
        """The best node by remembered scores, ``()`` for none; ``None`` where not only the request counts."""
        if want.request.nodes > 1 or want.only_node:
            return None
        desk, barred = self._desk, self._barred(want)
        best = self._best.of(want.request, self.nodes, desk.state.ledger, desk.policy, desk.now, barred)
        return (best.name,) if best is not None else ()

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
            each=self._each_of(want),
        )

    def _on(self, want: Want, node: NodeInfo) -> Placement:
        return place.on(want.request, [node], self._desk.policy, self._free_of, self._each_of(want))

    def _each_of(self, want: Want) -> int | None:
        """How many free cores there are for each series that waits, as it was when placing began.  Costs a
        look-up for each node, once in every step that places what takes fewer cores than it asks."""
        if not want.request.cores_min:
            return None
        if self._each is None:
            self._each = place.each_of(self.nodes.values(), self._free_of, len(self.queue.where))
        return self._each

    def _free_of(self, node: NodeInfo) -> Free:
        return self._desk.state.ledger.free(node, self._desk.policy.placement.scratch_margin_bytes)

    def _barred(self, want: Want) -> dict[str, str]:
        """Nodes that this bucket may not have now, whatever room they have, and why."""
        barred = self.gates.barred_nodes()
        if want.excluded_nodes:
            policy = self._desk.policy
            still = place.still_excluded(want.request, self.nodes.values(), policy, want.excluded_nodes)
            barred.update(dict.fromkeys(still, "excluded"))
        if self._keeping.bars(want):
            barred[self._keeping.node] = "kept_for_aged"
        return barred

    def _block(self, want: Want, head: Dataset, found: Unplaceable) -> None:
        desk = self._desk
        self.queue.block(want, found)
        for reason in found.rejected:
            desk.refusals[reason] += 1
        if "breaker" in found.rejected:
            self.gates.wake_for_probes()
        by_node = "node" in found.unblocked_by
        if by_node and (given_up := self._keeping.blocked(head, want, self.evaluate)):
            self.roomier(given_up)

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
        margin_bytes = desk.policy.placement.scratch_margin_bytes
        for name in placement.nodes:
            desk.state.ledger.require(self.nodes[name], placement.scratch_bytes, margin_bytes)
        number = len(dataset.attempts) + 1
        stranded = dataset.attempt_called(dataset.rescue) if dataset.rescue else None
        decided = None
        if stranded is None:
            decision = self.deciding.decide(dataset)
            placement = self.deciding.with_directives(placement, dataset, decision)
            asked = self._asking.asked(dataset, decision)
            decided = self.deciding.decided(dataset, decision, placement, asked)
        if placement.mode == "floating":
            placement = pinning.settled(placement, dataset, want, self.nodes, self._barred(want))
        attempt = Attempt(
            attempt_id=attempt_id(dataset.dataset_id, number),
            number=number,
            kind="rescue" if stranded else "run",
            placement=placement,
            request=want.request,
            placed_at=desk.now,
            rescues_attempt_id=dataset.rescue,
            rescue_path=stranded.end.stranded_path if stranded and stranded.end else "",
            decided=decided,
        )
        self.gates.probing(dataset.dataset_id, want, placement.nodes)
        desk.record(f.Placed(at=desk.now, dataset_id=dataset.dataset_id, attempt=attempt))

    def elsewhere(self, dataset: Dataset, attempt: Attempt) -> bool:
        """Could this attempt's job go to other nodes now, those that failed it left out?  Costs all nodes."""
        desk = self._desk
        barred = {**self.gates.barred_nodes(), **dict.fromkeys(dataset.excluded_nodes, "excluded")}
        barred.update(dict.fromkeys(attempt.placement.nodes, "excluded"))
        found = place.place(
            attempt.request, self.nodes.values(), self._free_of, desk.policy, excluded=barred, now=desk.now
        )
        return isinstance(found, Placement)

    # -- what rules can see turns ----------------------------------------------------------------------------

    def decide_again(self) -> None:
        """An hour turned, or so many wait that other rules hold: every waiting dataset is decided afresh.
        Costs all READY datasets."""
        for dataset in list(self._desk.state.datasets.values()):
            if dataset.state is State.READY:
                try:
                    self._consider_anew(dataset)
                except Exception as bug:  # of one
                    self._desk.bug(bug, dataset.dataset_id)

    def _consider_anew(self, dataset: Dataset) -> None:
        self._asking.lift_no_pipeline(dataset)
        now = self._desk.dataset(dataset.dataset_id)
        if now is not None and now.state is State.READY:
            self.consider(now)

    def staged(self, attempt_id: str, phase: str) -> None:
        """A runner told its phase; with its input on scratch another may stage in."""
        if self.gates.limits.staged(attempt_id, phase):
            self.queue.again(ATTEMPT_ENDED)

    @property
    def evaluations(self) -> int:
        """How often a node was held against a request, since the start."""
        return self._best.evaluations
