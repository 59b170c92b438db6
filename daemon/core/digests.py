"""What people are told, now and later: notices that are due, digests of sessions, and notices of one cause
that were gathered.  A fold of facts, bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from .facts import NoticeDue, NoticeGivenUp, NoticePutBy, NoticeSent
from .model import (
    EVENTS,
    LOG,
    NEEDS_A_PERSON,
    OF_A_SERIES,
    Digest,
    Gathered,
    Notice,
    NoticeItem,
    Spread,
    seconds_class,
)

ITEMS_MAX = 50
GATHERED_ITEMS_MAX = 20
QUALITY_MAX = 8
TOLD_MAX = 1024
LISTED = NEEDS_A_PERSON | (set(EVENTS) - OF_A_SERIES)


class Board:
    """``notices`` are due, ``digests`` and ``gathered`` will be; ``told`` is cause and destination -> until
    when what follows is gathered.  ``turns`` counts the changes of ``notices``; it is no part of the state.
    """

    def __init__(self) -> None:
        self.notices: dict[str, Notice] = {}
        self.digests: dict[str, Digest] = {}
        self.gathered: dict[str, Gathered] = {}
        self.told: dict[str, float] = {}
        self.turns = 0

    def restore(
        self,
        notices: Iterable[Notice],
        digests: Mapping[str, Digest],
        gathered: Mapping[str, Gathered],
        told: Mapping[str, float],
    ) -> None:
        """As it was at rest; the oldest notice comes first again."""
        by_age = sorted(notices, key=lambda notice: (notice.due_at, notice.notice_id))
        self.notices = {notice.notice_id: notice for notice in by_age}
        self.digests, self.gathered, self.told = dict(digests), dict(gathered), dict(told)

    def apply(self, fact: NoticeDue | NoticeSent | NoticeGivenUp | NoticePutBy) -> None:
        match fact:
            case NoticeDue():
                self._due(fact.notice, fact.at)
            case NoticeSent() | NoticeGivenUp():
                self._reached(fact.notice_id, fact.to)
            case NoticePutBy():
                self._put_by(fact)

    def _due(self, notice: Notice, at: float) -> None:
        self.turns += 1
        self.notices[notice.notice_id] = notice
        if notice.digest is not None:
            self.digests.pop(digest_key(notice.digest), None)
        for to in notice.to:
            key = told_key(to, notice.cause)
            if notice.items:
                self.gathered.pop(key, None)
            if to != LOG and notice.quiet_until_at > at:
                self.told.pop(key, None)
                self.told[key] = notice.quiet_until_at
        while self.told and (len(self.told) > TOLD_MAX or next(iter(self.told.values())) <= at):
            del self.told[next(iter(self.told))]

    def _reached(self, notice_id: str, to: str) -> None:
        self.turns += 1
        notice = self.notices.get(notice_id)
        left = tuple(each for each in notice.to if each != to) if notice is not None and to else ()
        if notice is not None and left:
            self.notices[notice_id] = replace(notice, to=left)
        else:
            self.notices.pop(notice_id, None)

    def _put_by(self, fact: NoticePutBy) -> None:
        for rule, to in fact.digests.items():
            digest = with_noted(self.digests, rule, to, fact)
            self.digests[digest_key(digest)] = digest
        for destination in fact.gathered:
            key = told_key(destination, fact.cause)
            self.gathered[key] = gathered_with(self.gathered.get(key), destination, fact)


def told_key(to: str, cause: str) -> str:
    return f"{to}\0{cause}"


def digest_key(digest: Digest) -> str:
    return "\0".join((digest.rule, digest.feed, digest.project, digest.session))


def gathered_with(known: Gathered | None, to: str, fact: NoticePutBy) -> Gathered:
    """One more of the same cause.  The first says when they are told."""
    known = known or Gathered(
        to=to,
        cause=fact.cause,
        event=fact.item.event,
        project=fact.project,
        feed=fact.feed,
        since_at=fact.at,
        until_at=fact.until_at,
    )
    if len(known.items) < GATHERED_ITEMS_MAX:
        return replace(known, items=(*known.items, fact.item))
    return replace(known, more=known.more + 1)


def with_noted(digests: Mapping[str, Digest], rule: str, to: tuple[str, ...], fact: NoticePutBy) -> Digest:
    """The digest of its session with one thing more in it.  Costs the digest's items."""
    new = Digest(
        rule=rule,
        to=to,
        feed=fact.feed,
        project=fact.project,
        session=fact.session,
        since_at=fact.at,
        last_arrival_at=fact.at,
    )
    digest = replace(digests.get(digest_key(new), new), to=to)
    match fact.item.event:
        case "completed":
            return replace(digest, came_in=digest.came_in + 1, last_arrival_at=fact.at)
        case "delivered":
            return _delivered(digest, fact)
        case "doubtful":
            digest = replace(digest, doubtful=digest.doubtful + 1)
        case "failed":
            digest = replace(digest, failed=digest.failed + 1)
    return _listed(digest, fact.item) if fact.item.event in LISTED else digest


def _delivered(digest: Digest, fact: NoticePutBy) -> Digest:
    """What was said of this series before needs nobody any more."""
    seconds = digest.seconds
    if fact.seconds > 0:
        key = seconds_class(fact.seconds)
        seconds = seconds | {key: seconds.get(key, 0) + 1}
    return replace(
        digest,
        delivered=digest.delivered + 1,
        seconds=seconds,
        longest_seconds=max(digest.longest_seconds, fact.seconds),
        quality=_spread(digest.quality, fact.quality),
        items=tuple(item for item in digest.items if not same_series(item, fact.item)),
    )


def _listed(digest: Digest, item: NoticeItem) -> Digest:
    """The newest word on a series replaces what was said of it before."""
    others = tuple(known for known in digest.items if not same_series(known, item))
    if len(others) < ITEMS_MAX:
        return replace(digest, items=(*others, item))
    return replace(digest, items=others, more=digest.more + 1)


def same_series(one: NoticeItem, other: NoticeItem) -> bool:
    """Revisions and runs of one series have the same id up to those two numbers."""
    return bool(one.dataset_id) and series_of(one.dataset_id) == series_of(other.dataset_id)


def series_of(dataset_id: str) -> str:
    return dataset_id.rsplit(".", 2)[0]


def _spread(known: dict[str, Spread], quality: dict[str, float]) -> dict[str, Spread]:
    found = dict(known)
    for name, value in quality.items():
        if not math.isfinite(value) or (name not in found and len(found) >= QUALITY_MAX):
            continue
        spread = found.get(name, Spread(count=0, total=0.0, least=value, most=value))
        found[name] = Spread(
            count=spread.count + 1,
            total=spread.total + value,
            least=min(spread.least, value),
            most=max(spread.most, value),
        )
    return found
