"""What may keep a request from starting though a node has room: breakers, limits, the destination's space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tiltd.policy import breaker

from . import facts as f
from .desk import Desk
from .limits import Limits
from .model import WITH_ATTEMPT, Dataset, State, Unplaceable
from .waiting import Want


class Gates:
    """Limits, and the bytes that live attempts will deliver; memory, made again by ``recount``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.destination_free: dict[str, int | None] = {}
        self.limits = Limits(desk)
        self._result_bytes: Counter[str] = Counter()
        self._seen_breakers = desk.state.breakers
        self._seen_open = self._open()
        self._asked_of: breaker.Breakers | None = None
        self._some_open = False

    # -- what is live --------------------------------------------------------------------------------------

    def changed(self, before: Dataset | None, after: Dataset | None) -> bool:
        """Count one step of a dataset.  True if limits and space may be free again: an attempt ended or
        began to run."""
        was = before is not None and before.state in WITH_ATTEMPT
        if after is not None and after.state in WITH_ATTEMPT:
            if was:
                return self.limits.went_on(after)
            self._count(after, +1)
            self.limits.began(after)
        elif was and before is not None:
            self._count(before, -1)
            self._delivered(after)
            self.limits.ended(before)
            return True
        return False

    def _delivered(self, dataset: Dataset | None) -> None:
        """What was published since the destination was last looked at is no longer free there."""
        if dataset is None or dataset.state is not State.DELIVERED:
            return
        destination = dataset.destination or dataset.feed
        free = self.destination_free.get(destination)
        if free is not None:
            self.destination_free[destination] = max(0, free - dataset.result_bytes)

    def recount(self) -> None:
        """Count live attempts afresh (after a restart)."""
        self.limits.recount()
        self._result_bytes.clear()
        for dataset in self._desk.state.datasets.values():
            if dataset.state in WITH_ATTEMPT:
                self._count(dataset, +1)

    def _count(self, dataset: Dataset, sign: int) -> None:
        request = dataset.attempts[-1].request
        self._result_bytes[dataset.destination or dataset.feed] += sign * request.result_bytes

    # -- reasons that have nothing to do with nodes ----------------------------------------------------------

    def stopped(self, want: Want) -> Unplaceable | None:
        """Why nothing of this bucket may start on any node; ``None`` if it may."""
        desk = self._desk
        known = desk.state.breakers
        scopes = scopes_of(want) if self._any_open() else ()
        for scope in breaker.blocking(known, scopes, desk.now, desk.policy.breaker):
            why = breaker.reason(known, scope)
            detail = f"the breaker of {scope} is open: {why}; 'tiltd release --breaker {scope}' closes it"
            return _stop("breaker", "time", detail)
        stages_in = not want.only_node and not desk.site.queues
        if passed := self.limits.passed(
            want.project, feed=want.feed, queue=want.request.queue, stages_in=stages_in
        ):
            return _stop("limit", "limit", passed)
        destination = want.destination or want.feed
        if destination not in self.destination_free:
            return None
        free = self.destination_free[destination]
        if free is None:
            return _stop("destination", "destination", "its destination cannot be read")
        left = free - self._result_bytes[destination]
        if left < want.request.result_bytes:
            detail = f"its result needs {want.request.result_bytes} bytes, its destination has {left} left"
            return _stop("destination", "destination", detail)
        return None

    # -- breakers --------------------------------------------------------------------------------------------

    def breakers_turned(self) -> bool:
        """True if a breaker opened, closed, or began or ended a probe since this was last asked."""
        breakers = self._desk.state.breakers
        if breakers is self._seen_breakers:
            return False
        self._seen_breakers = breakers
        now = self._open()
        turned, self._seen_open = now != self._seen_open, now
        return turned

    def _any_open(self) -> bool:
        """Counted anew when a breaker or a mark turned: most marks never open one."""
        breakers = self._desk.state.breakers
        if breakers is not self._asked_of:
            self._asked_of, self._some_open = breakers, bool(breaker.open_scopes(breakers))
        return self._some_open

    def _open(self) -> tuple[object, ...]:
        return tuple(
            (scope, known.opened_at, known.probing, known.looked_at)
            for scope, known in self._desk.state.breakers.by_scope.items()
            if known.opened_at is not None
        )

    def wake_for_probes(self) -> None:
        """Ask to be woken when the next dataset may probe an open breaker."""
        desk = self._desk
        for scope in breaker.open_scopes(desk.state.breakers):
            at = breaker.next_probe_at(desk.state.breakers, scope, desk.policy.breaker)
            if at is not None and at > desk.now:
                desk.wake(at, "breaker")

    def barred_nodes(self) -> dict[str, str]:
        """Nodes whose breaker is open, or that have as many of our attempts as they may."""
        desk = self._desk
        barred = self.limits.full_nodes()
        if self._any_open():
            broken = breaker.blocked_nodes(desk.state.breakers, desk.now, desk.policy.breaker)
            barred.update(dict.fromkeys(broken, "breaker"))
        return barred

    def probing(self, dataset_id: str, want: Want, nodes: Iterable[str]) -> None:
        """A dataset placed under an open breaker is its probe."""
        desk = self._desk
        if not self._any_open():
            return
        for scope in (*scopes_of(want), *(f"node:{node}" for node in nodes)):
            if breaker.is_open(desk.state.breakers, scope):
                desk.record(f.BreakerProbed(at=desk.now, scope=scope, dataset_id=dataset_id))


def _stop(reason: str, by: str, detail: str) -> Unplaceable:
    return Unplaceable(rejected={reason: 1}, unblocked_by=(by,), detail=detail)  # type: ignore[arg-type]


def scopes_of(want: Want) -> tuple[str, ...]:
    return (f"feed:{want.feed}", f"pipeline:{want.pipeline}", f"destination:{want.feed}")


def concerned(was: State | None, now: State | None) -> bool:
    """What placing looks at: all that is READY, and attempts that begin, go on or end."""
    return State.READY in (was, now) or (was is not now and (was in WITH_ATTEMPT or now in WITH_ATTEMPT))
