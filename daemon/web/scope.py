"""What the facility looks like to one who asks: all of it, or their own projects and nothing of others'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from tiltd.daemon.config import FeedSettings
from tiltd.daemon.core.bookings import Booking, bookings, leaked_bytes
from tiltd.daemon.core.facts import OperatorActed
from tiltd.daemon.core.model import Dataset, State
from tiltd.daemon.feed_names import labels_of
from tiltd.daemon.metrics.view import CoreView, waiting_reason

from .access import Principal
from .identity import Identity
from .lookup import Lookup
from .view import Daemon, record

ACTS_LOOKED_AT_MAX = 5000


class Scope:
    """Whoever sees some projects only is told nothing that names, counts or hints at another."""

    def __init__(self, daemon: Daemon, lookup: Lookup) -> None:
        self.daemon = daemon
        self.lookup = lookup
        self.identity: Identity | None = None

    def identify(self, request: web.Request) -> Principal:
        """For what answers everybody, but some more."""
        assert self.identity is not None
        return self.identity.of(request)

    def live(self, principal: Principal) -> list[Dataset]:
        return [d for d in self.daemon.core.state.datasets.values() if principal.sees(d)]

    def sees_feed(self, principal: Principal, feed: FeedSettings) -> bool:
        """A feed may belong to one project, which its folder may name."""
        project = feed.labels.get("project", "")
        return principal.whole or not project or principal.sees_project(project)

    def sees_series(self, principal: Principal, feed_name: str, series_key: str) -> bool:
        """By the project that its path would give it."""
        if principal.whole:
            return True
        feed = next((feed for feed in self.daemon.settings.feeds if feed.name == feed_name), None)
        if feed is None:
            return False
        labels = labels_of(series_key, feed.pattern, feed.labels, feed.name)
        return principal.sees_project(labels.get("project", ""))

    def without_others(self, principal: Principal, lines: Iterable[str]) -> list[str]:
        """A breaker's sentence names the dataset that probes it, which may be another project's."""
        told = list(lines)
        if principal.whole:
            return told
        datasets = self.daemon.core.state.datasets
        for breaker in self.daemon.core.state.breakers.by_scope.values():
            probe = datasets.get(breaker.probing)
            if breaker.probing and (probe is None or not principal.sees(probe)):
                told = [line.replace(breaker.probing, "another series") for line in told]
        return told

    # -- the whole ------------------------------------------------------------------------------------------

    async def finished(self, principal: Principal) -> Counter[str]:
        """State -> datasets that have left the working set."""
        if principal.whole:
            found: Counter[str] = Counter()
            for (_, state), count in self.daemon.metrics.finished.items():
                found[state.value] += count
            return found
        reader = self.daemon.reader
        return Counter(await self.lookup.ask_journal(lambda: dict(reader.counts(principal.named))))

    async def status(self, principal: Principal) -> dict[str, Any]:
        """One pass over the live datasets; for some projects, their finished ones from an index."""
        core, now = self.daemon.core, self.daemon.clock.now()
        ready, sentences = self.daemon.ready()
        datasets = self.live(principal)
        outside = self.daemon.metrics.outside
        finished = await self.finished(principal)
        oldest = min((d for d in datasets if d.state is State.READY), key=_completed_at, default=None)
        faults = self.daemon.policy_refused if principal.whole else []
        feeds = {feed.name for feed in self.daemon.settings.feeds if self.sees_feed(principal, feed)}
        return {
            "ready": ready,
            "reasons": sentences if principal.whole else [],
            "version": outside.build[0],
            "policy_version": outside.policy_version,
            "policy_refused": faults,
            "policy": {
                "version": outside.policy_version,
                "accepted_at": outside.policy_accepted_at,
                "last_reload_accepted": outside.policy_accepted,
                "faults": faults,
            },
            "shares": [record(share) for share in core.shares(now) if principal.sees_project(share.project)],
            "resource_manager": self.daemon.settings.resource_manager,
            "resource_manager_up": outside.manager_up,
            "states": dict(Counter(d.state.value for d in datasets) + finished),
            "held": dict(Counter(hold.cause for d in datasets for hold in d.holds)),
            "oldest_waiting": _waiting(oldest, core, now),
            "feeds_up": {name: up for name, up in outside.feed_up.items() if name in feeds},
            "nodes": dict(Counter(node.state for node in core.nodes.values())),
            "now_at": now,
        }

    def nodes(self, principal: Principal) -> list[dict[str, Any]]:
        """What is booked on a node is a sum for all; which attempts it is, for those who see them.

        Costs the bookings."""
        state, told = self.daemon.core.state, []
        for name, node in sorted(self.daemon.core.nodes.items()):
            booked = bookings(name, state.ledger, state.datasets)
            mine = [booking for booking in booked if principal.sees_project(booking.project)]
            told.append(
                record(node)
                | {
                    "comment": node.comment if principal.whole else "",
                    "cores_reserved": sum(booking.cores for booking in booked),
                    "scratch_reserved_bytes": state.ledger.reserved_bytes(name),
                    "scratch_leaked_bytes": leaked_bytes(name, state.ledger, state.datasets),
                    "attempts": [booking.attempt_id for booking in mine],
                    "bookings": [record(booking) | {"why": self._why_leaked(booking)} for booking in mine],
                }
            )
        return told

    def _why_leaked(self, booking: Booking) -> list[str]:
        if booking.plight != "leaked":
            return []
        return list(self.daemon.core.release_troubles(booking.attempt_id, booking.node))

    def feeds(self, principal: Principal) -> list[dict[str, Any]]:
        live = Counter((d.feed, d.state.value) for d in self.live(principal))
        up = self.daemon.metrics.outside.feed_up
        return [
            {
                "name": feed.name,
                "path": str(feed.path),
                "detector": feed.detector,
                "pipeline": feed.pipeline,
                "destination": feed.destination,
                "up": up.get(feed.name),
                "states": {state: count for (name, state), count in live.items() if name == feed.name},
            }
            for feed in self.daemon.settings.feeds
            if self.sees_feed(principal, feed)
        ]

    async def acts(
        self, principal: Principal, before: int | None, limit: int
    ) -> tuple[Sequence[tuple[int, OperatorActed]], int | None]:
        """What operators did to what this one may see, last first; and where to go on, if there is more."""
        reader = self.daemon.reader
        take = limit + 1 if principal.whole else ACTS_LOOKED_AT_MAX
        rows = await self.lookup.ask_journal(lambda: list(reader.acts(before=before, limit=take)))
        mine = [each for each in rows if principal.sees_project(each[1].project)]
        last = mine[limit - 1][0] if len(mine) > limit else None
        if last is None and not principal.whole and len(rows) == take:
            last = rows[-1][0]
        return mine[:limit], last


def _completed_at(dataset: Dataset) -> float:
    return dataset.completed_at or dataset.state_since_at


def _waiting(dataset: Dataset | None, core: CoreView, now: float) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "dataset_id": dataset.dataset_id,
        "name": dataset.tilt_series_name,
        "seconds": now - _completed_at(dataset),
        "reason": waiting_reason(dataset, core.blocked_by(dataset.dataset_id), now),
    }
