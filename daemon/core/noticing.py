"""What people are told, and when: each event goes to the policy's rules of notices.

    event --rules--> at once   -> due now; the same cause within ``gather`` is gathered into one notice
                     digest    -> put by, and told when the session is over
    (and always to the log)

Decisions stand in the facts (to whom, until when), so a changed policy does not change what is put by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from tiltd.daemon.text import shown
from tiltd.policy.filters import UP
from tiltd.policy.notices import COUNTED, Routes, features_of

from . import facts as f
from .desk import Desk, Tidings
from .digests import digest_key, series_of, told_key
from .model import (
    LOG,
    OF_A_SERIES,
    TERMINAL,
    CivilTime,
    Dataset,
    Digest,
    Gathered,
    NodeInfo,
    Notice,
    NoticeEvent,
    NoticeItem,
    NoticeRule,
    Policy,
    State,
)
from .remedies import OF_EVENT, OF_HOLD
from .units import show_seconds

DUE_MAX = 100
"""Notices due to one destination; what comes beyond is gathered."""
DIGESTS_MAX = 256
LOOK_AGAIN_SECONDS = 600.0
AWAY_SECONDS = 300.0
"""Out of reach for so long: a single failed look is no news."""
KEY = "notices"
UNCOUNTED_HOLDS = frozenset({"operator", "before_tiltd"})


class Noticing:
    """Memory beside the state: since when the server and feeds are away, as seen since the start.

    An event that no rule names costs one look-up; else the rules that name it, and the notices due.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._policy: Policy | None = None
        self._routes = Routes(desk.policy)
        self._seen_up: set[str] = set()
        self._away: dict[str, float | None] = {}
        desk.tell = self.tell
        desk.listen(self._moved, _came_or_delivered)

    @property
    def routes(self) -> Routes:
        if self._policy is not self._desk.policy:
            self._policy = self._desk.policy
            self._routes = Routes(self._policy)
        return self._routes

    def wants(self, event: NoticeEvent) -> bool:
        """Does any rule name it?"""
        return self.routes.wants(event)

    # -- what happened -------------------------------------------------------------------------------------

    def _moved(self, before: Dataset | None, after: Dataset | None) -> None:
        assert after is not None
        if not self._desk.policy.notice_rules or after.verdict == "adopted":
            return  # nobody asked; or it was delivered by a daemon whose journal is lost, and told then
        event: NoticeEvent = "delivered" if after.state is State.DELIVERED else "completed"
        if not self.routes.wants(event):
            return
        seconds = self._desk.now - after.last_change_at
        took = f", {show_seconds(round(seconds))} after its last tilt"
        tilts = f" with {after.series.tilt_count} tilts" if after.series is not None else ""
        summary = f"{after.dataset_id} is delivered{took}" if event == "delivered" else ""
        summary = summary or f"{after.dataset_id} is complete{tilts}"
        self._desk.notice(event, summary, after.dataset_id, after, only_if_asked=True)

    def tell(self, tidings: Tidings) -> None:
        """To the log, to those who are told at once, and into the digests of its session."""
        state, event, dataset = self._desk.state, tidings.event, tidings.dataset
        rules = self._rules(tidings)
        if tidings.notice_id in state.notices or (tidings.only_if_asked and not rules):
            return
        log = () if event in COUNTED else (LOG,)
        if not rules:
            self._desk.record(f.NoticeDue(at=self._desk.now, notice=self._made(tidings, log)))
            return
        digests = {rule.name: rule.to for rule in rules if rule.how == "digest"}
        told = [rule for rule in rules if rule.how == "at once" and not tidings.known_cause]
        if event == "delivered" and dataset is not None and dataset.verdict == "doubtful":
            told = [rule for rule in told if "doubtful" not in rule.events]  # which follows, and says why
        now, later = self._parted({to for rule in told for to in rule.to}, _cause(tidings))
        if now or log:
            self._desk.record(f.NoticeDue(at=self._desk.now, notice=self._made(tidings, (*log, *now))))
        if later or digests:
            self._put_by(tidings, later, digests)

    def _rules(self, tidings: Tidings) -> list[NoticeRule]:
        if not self.routes.wants(tidings.event):
            return []
        if tidings.dataset is not None:
            return self.routes.of_series(tidings.event, features_of(tidings.dataset))
        return self.routes.of_facility(tidings.event, tidings.feed)

    def _parted(self, destinations: Collection[str], cause: str) -> tuple[list[str], list[str]]:
        """Those who are told now, and those who heard of this cause a short while ago (or have too much
        that is due already)."""
        state = self._desk.state
        now: list[str] = []
        later: list[str] = []
        due: dict[str, int] = {}
        for notice in state.notices.values() if destinations else ():
            for to in notice.to:
                due[to] = due.get(to, 0) + 1
        for to in sorted(destinations):
            quiet = state.board.told.get(told_key(to, cause), 0.0) > self._desk.now
            (later if quiet or due.get(to, 0) >= DUE_MAX else now).append(to)
        return now, later

    def _made(self, tidings: Tidings, to: Sequence[str]) -> Notice:
        gather = self._desk.policy.notices.gather_seconds
        return replace(
            tidings.notice(self._desk.now),
            to=tuple(to),
            remedy=self._remedy(tidings),
            cause=_cause(tidings),
            quiet_until_at=self._desk.now + gather if gather and tuple(to) != (LOG,) else 0.0,
        )

    def _remedy(self, tidings: Tidings) -> str:
        of_hold = OF_HOLD.get(tidings.cause, "") if tidings.event == "held" else ""  # type: ignore[call-overload]
        return tidings.remedy or of_hold or OF_EVENT.get(tidings.event, "")

    def _put_by(self, tidings: Tidings, later: list[str], digests: dict[str, tuple[str, ...]]) -> None:
        desk, dataset = self._desk, tidings.dataset
        delivered = tidings.event == "delivered"
        if digests and len(desk.state.board.digests) >= DIGESTS_MAX:
            self._tell_digest(next(iter(desk.state.board.digests.values())))
        desk.record(
            f.NoticePutBy(
                at=desk.now,
                item=NoticeItem(
                    event=tidings.event,
                    at=desk.now,
                    summary=tidings.summary if later or tidings.event not in COUNTED else "",
                    dataset_id=dataset.dataset_id if dataset else "",
                    name=dataset.tilt_series_name if dataset else "",
                    remedy=self._remedy(tidings),
                ),
                feed=tidings.feed,
                project=dataset.project if dataset else "",
                session=dataset.session if dataset else "",
                digests=digests,
                gathered=tuple(later),
                cause=_cause(tidings) if later else "",
                until_at=self._until_at(later, _cause(tidings)) if later else 0.0,
                seconds=max(0.0, desk.now - dataset.last_change_at) if dataset and delivered else 0.0,
                quality=dataset.quality if dataset and delivered else {},
            )
        )
        self._wake()

    def _until_at(self, destinations: list[str], cause: str) -> float:
        """When those who heard of this cause may hear of it again."""
        quiet = [self._desk.state.board.told.get(told_key(to, cause), 0.0) for to in destinations]
        at = max(quiet)
        return at if at > self._desk.now else self._desk.now + LOOK_AGAIN_SECONDS

    # -- what was put by -----------------------------------------------------------------------------------

    def due(self) -> None:
        """The time has come to look at what is put by.  Costs that, and the live datasets for each digest
        whose session has come to rest."""
        now, state = self._desk.now, self._desk.state
        for gathered in list(state.board.gathered.values()):
            if gathered.until_at <= now and self._has_room(gathered.to):
                self._tell_gathered(gathered)
        for digest in list(state.board.digests.values()):
            if self._rests_at(digest) <= now:
                self._tell_digest(digest)
        self._wake()

    recount = due
    """After a restart."""

    def hour(self, civil: Iterable[CivilTime]) -> None:
        """At the hours that the policy names every digest that is older than the hour is told."""
        policy = self._desk.policy.notices
        for time in civil:
            if time.zone != policy.zone or time.hour not in policy.digest_hours:
                continue
            began_at = time.valid_until_at - 3600.0
            for digest in list(self._desk.state.board.digests.values()):
                if digest.since_at < began_at:
                    self._tell_digest(digest)

    def _rests_at(self, digest: Digest) -> float:
        """When its session is over, as far as can be told now."""
        policy = self._desk.policy.notices
        quiet_at = digest.last_arrival_at + policy.session_quiet_seconds
        latest_at = quiet_at + policy.digest_wait_seconds
        if self._desk.now < quiet_at or self._desk.now >= latest_at:
            return quiet_at
        under_way, _ = self._of_session(digest)
        return min(self._desk.now + LOOK_AGAIN_SECONDS, latest_at) if under_way else quiet_at

    def _wake(self) -> None:
        """Ask for the next look, not before something can be due."""
        state, now = self._desk.state, self._desk.now
        quiet = self._desk.policy.notices.session_quiet_seconds
        times = [gathered.until_at for gathered in state.board.gathered.values()]
        times += [digest.last_arrival_at + quiet for digest in state.board.digests.values()]
        if times:  # what is late waits for room, or for the last series
            self._desk.wake(min(at if at > now else now + LOOK_AGAIN_SECONDS for at in times), KEY)

    def _has_room(self, to: str) -> bool:
        return sum(to in notice.to for notice in self._desk.state.notices.values()) < DUE_MAX

    def _tell_gathered(self, gathered: Gathered) -> None:
        desk, first = self._desk, gathered.items[0]
        count = len(gathered.items) + gathered.more
        summary = first.summary if count == 1 else f"{count} more of the same ({_words(gathered.event)})"
        notice = Notice(
            notice_id=f"gathered:{shown(gathered.cause)}@{desk.now:.0f}:{gathered.to}",
            event=gathered.event,
            summary=summary,
            dataset_id=first.dataset_id if count == 1 else "",
            name=first.name if count == 1 else "",
            project=gathered.project,
            feed=gathered.feed,
            due_at=desk.now,
            to=(gathered.to,),
            remedy=first.remedy,
            cause=gathered.cause,
            quiet_until_at=desk.now + desk.policy.notices.gather_seconds,
            items=gathered.items,
            more=gathered.more,
        )
        desk.record(f.NoticeDue(at=desk.now, notice=notice))

    def _tell_digest(self, digest: Digest) -> None:
        desk = self._desk
        under_way, held = self._of_session(digest)
        items = self._still(digest) + held
        known: dict[str, NoticeItem] = {item.dataset_id or item.summary: item for item in items}
        incomplete = sum(self._incomplete(item) for item in known.values())
        told = replace(digest, items=tuple(known.values()), under_way=under_way, incomplete=incomplete)
        what = f"session {digest.session}" if digest.session else f"feed {digest.feed}"
        what = what if digest.session or digest.feed else "the facility"
        came_in = told.came_in + incomplete
        parts = [f"{came_in} came in", f"{told.delivered} delivered", f"{len(known)} need a person"]
        notice = Notice(
            notice_id=f"digest:{shown(digest_key(digest))}@{desk.now:.0f}",
            event="digest",
            summary=f"{what}: {', '.join(parts)}",
            project=digest.project,
            session=digest.session,
            feed=digest.feed,
            due_at=desk.now,
            to=digest.to,
            digest=told,
        )
        desk.record(f.NoticeDue(at=desk.now, notice=notice))

    def _incomplete(self, item: NoticeItem) -> bool:
        dataset = self._desk.dataset(item.dataset_id)
        return dataset is not None and dataset.state is State.ARRIVING

    def _still(self, digest: Digest) -> list[NoticeItem]:
        """Of what needed a person, what still does."""
        return [item for item in digest.items if self._needs_a_person(item)]

    def _needs_a_person(self, item: NoticeItem) -> bool:
        dataset = self._desk.dataset(item.dataset_id)
        if item.event not in OF_A_SERIES or item.event in ("doubtful", "failed"):
            return dataset is None or dataset.state in TERMINAL
        if dataset is None or dataset.state in TERMINAL:
            return False
        return bool(dataset.holds) or item.event in ("deadline", "quiet", "job_held")

    def _of_session(self, digest: Digest) -> tuple[int, list[NoticeItem]]:
        """How many of its series are under way, and those that are held.  Costs the live datasets."""
        under_way = 0
        held: list[NoticeItem] = []
        named = {series_of(item.dataset_id) for item in digest.items}
        for dataset in self._desk.state.datasets.values():
            labels = (dataset.feed, dataset.project, dataset.session)
            if dataset.state in TERMINAL or labels != (digest.feed, digest.project, digest.session):
                continue
            if not self.routes.speaks(digest.rule, features_of(dataset)):
                continue
            if not dataset.holds:
                under_way += 1
            elif series_of(dataset.dataset_id) not in named and len(held) < DUE_MAX:
                held += [_held(dataset)] if _counts(dataset) else []
        return under_way, held

    # -- the facility --------------------------------------------------------------------------------------

    def nodes(self, before: Mapping[str, NodeInfo], after: Iterable[NodeInfo]) -> None:
        """Nodes that were up and are down now."""
        if not self.wants("node_down"):
            return
        for node in after:
            known = before.get(node.name)
            if node.state == "down" and known is not None and known.state in UP:
                summary = f"the node {node.name} is down"
                self._desk.notice("node_down", summary, f"{node.name}@{self._desk.now:.0f}")

    def server(self, up: bool, detail: str = "") -> None:
        sentence = f"the resource manager does not answer: {detail}"
        self._reach("server_down", "", up, sentence)

    def feed(self, name: str, up: bool, detail: str) -> None:
        self._reach("feed_down", name, up, f"the feed {name} cannot be read: {detail}")

    def destinations(self, without_room: Callable[[], Collection[str]]) -> None:
        """``without_room`` tells the feeds whose series wait for room where their results go."""
        if not self.wants("destination_full"):
            return
        full = without_room()
        for name in self._desk.site.feeds:
            sentence = f"series of {name} wait: their results have no room at their destination"
            self._reach("destination_full", name, name not in full, sentence)

    def _reach(self, event: NoticeEvent, name: str, up: bool, sentence: str) -> None:
        """Told once when it was well since the start, and has not been for ``AWAY_SECONDS``."""
        if not self.wants(event):
            return
        key, now = f"{event}:{name}", self._desk.now
        if up:
            self._seen_up.add(key)
            self._away.pop(key, None)
        elif key in self._seen_up:
            since_at = self._away.setdefault(key, now)
            if since_at is not None and now - since_at >= AWAY_SECONDS:
                self._away[key] = None
                self._desk.notice(event, sentence, f"{name}@{now:.0f}", cause=name, feed=name)


def _came_or_delivered(was: State | None, now: State | None) -> bool:
    came = was is State.ARRIVING and now is State.READY
    return came or (now is State.DELIVERED and was not in (None, State.DELIVERED))


def _cause(tidings: Tidings) -> str:
    project = tidings.dataset.project if tidings.dataset is not None else ""
    return "\0".join((tidings.event, tidings.cause, tidings.feed, project))


def _words(event: str) -> str:
    return event.replace("_", " ")


def _counts(dataset: Dataset) -> bool:
    return any(hold.cause not in UNCOUNTED_HOLDS for hold in dataset.holds)


def _held(dataset: Dataset) -> NoticeItem:
    hold = next(hold for hold in dataset.holds if hold.cause not in UNCOUNTED_HOLDS)
    return NoticeItem(
        event="held",
        at=hold.since_at,
        summary=f"{dataset.dataset_id} is held: {hold.detail}",
        dataset_id=dataset.dataset_id,
        name=dataset.tilt_series_name,
        remedy=OF_HOLD.get(hold.cause, ""),
    )
