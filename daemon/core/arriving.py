"""Arriving series: what is seen in the feeds against what is recorded, until a series is complete.

The growth of a series is memory, not history: no fact per tilt.  After a restart the quiet time is counted
afresh, which costs a few minutes once and never declares complete what is not.
"""

from __future__ import annotations

from msgspec.structs import replace

from tiltd.policy import completeness
from tiltd.policy.completeness import Complete, Judgement, NotATiltSeries, Partial, Waiting

from . import facts as f
from . import observations as o
from .deciding import Deciding
from .desk import Desk
from .model import TERMINAL, Dataset, Record, Sighting, State, dataset_id
from .units import show_seconds

Key = tuple[str, str]
GONE_GRACE_SECONDS = 120.0
"""A reordered series is gone for a moment while it is renamed; a hold for that would be noise."""


class Arrival(Record):
    """What is known of one series that is on its way (or is no series).

    ``stable_since_at`` is when its files were last seen to change, by the daemon's clock; ``touched`` whether
    that was seen since tiltd started; ``gone_since_at`` when they were first missed; ``quiet_told`` whether
    a person was told that it does not grow.
    """

    sighting: Sighting
    stable_since_at: float
    touched: bool = False
    judgement: Judgement | None = None
    gone_since_at: float | None = None
    quiet_told: bool = False


class Arriving:
    """Costs per pass: the sightings that changed.  Memory: the series that are on their way, and those that
    were found to be none since the start."""

    def __init__(self, desk: Desk, deciding: Deciding) -> None:
        self._desk = desk
        self._deciding = deciding
        self.arrivals: dict[Key, Arrival] = {}
        self.feeds_up: dict[str, tuple[bool, str]] = {}
        self.ignored: dict[str, dict[str, int]] = {}
        desk.listen(self._over, lambda was, now: now is None or now in TERMINAL)

    def _over(self, before: Dataset | None, after: Dataset | None) -> None:
        """What has come to its end need not be remembered as an arrival."""
        if before is not None:
            key = (before.feed, before.series_key)
            if self._desk.state.current.get(key) in (None, before.dataset_id):
                self.arrivals.pop(key, None)

    # -- news ------------------------------------------------------------------------------------------

    def files(self, seen: o.FilesObserved) -> None:
        desk = self._desk
        self.feeds_up[seen.feed] = (seen.up, seen.detail)
        if not seen.up or seen.feed not in desk.site.feeds:
            return
        for sighting in seen.sightings:
            try:
                self._sighted(seen.feed, sighting, baseline=seen.first)
            except Exception as bug:  # of one; the others are not told of again until they change
                desk.bug(bug, desk.state.current.get((seen.feed, sighting.series_key), ""))
        for series_key in seen.gone:
            self._gone(seen.feed, series_key)
        if seen.first:
            desk.record(f.FeedMet(at=desk.now, feed=seen.feed, reason=seen.first_reason or "new feed"))

    def _sighted(self, feed: str, sighting: Sighting, *, baseline: bool) -> None:
        key = (feed, sighting.series_key)
        known = self.arrivals.get(key)
        same = known is not None and known.sighting.stat_signature == sighting.stat_signature
        stable_since_at = known.stable_since_at if known is not None and same else self._desk.now
        touched = known is not None and (known.touched or not same)
        arrival = Arrival(sighting=sighting, stable_since_at=stable_since_at, touched=touched)
        self.arrivals[key] = arrival
        dataset = self._current(key)
        if dataset is None:
            self._met(feed, arrival, baseline=baseline)
            return
        if dataset.hold("input_gone") is not None:
            self._desk.lift(dataset, "input_gone")
        if dataset.state is State.ARRIVING:
            self.judge(key)
        else:
            self._changed_after(dataset, arrival, touched=known is not None and not same)

    def _current(self, key: Key) -> Dataset | None:
        return self._desk.dataset(self._desk.state.current.get(key, ""))

    def _met(self, feed: str, arrival: Arrival, *, baseline: bool) -> None:
        """A series without a live dataset: new, none at all, or a finished one that was touched."""
        desk, sighting = self._desk, arrival.sighting
        if sighting.not_series is not None:
            self._not_a_series((feed, sighting.series_key), arrival)
        elif not sighting.known_revision:
            self._found(feed, sighting, revision=1, baseline=baseline)
        elif sighting.series is not None:
            if sighting.series.fingerprint.digest == sighting.known_digest:
                self.arrivals.pop((feed, sighting.series_key), None)
                desk.record(
                    f.InputUnchanged(
                        at=desk.now,
                        feed=feed,
                        series_key=sighting.series_key,
                        stat_signature=sighting.stat_signature,
                    )
                )
            else:
                self._found(feed, sighting, revision=sighting.known_revision + 1, baseline=False)

    def _found(self, feed: str, sighting: Sighting, *, revision: int, baseline: bool) -> None:
        desk = self._desk
        info = desk.site.feeds[feed]
        found = f.DatasetFound(
            at=desk.now,
            dataset_id=dataset_id(feed, sighting.series_key, sighting.tilt_series_name, revision, 1),
            feed=feed,
            series_key=sighting.series_key,
            tilt_series_name=sighting.tilt_series_name,
            series_kind=sighting.kind,
            revision=revision,
            run=1,
            labels=sighting.labels,
            pipeline=info.pipeline,
            options=info.options,
            baseline=baseline,
            stat_signature=sighting.stat_signature,
        )
        desk.record(found)
        if baseline:
            desk.record(f.DatasetParked(at=desk.now, dataset_id=found.dataset_id))
            self.arrivals.pop((feed, sighting.series_key), None)
        else:
            self.judge((feed, sighting.series_key))

    def _not_a_series(self, key: Key, arrival: Arrival) -> None:
        """Judged too: a series that has only begun looks like none at first."""
        judgement = self._judgement(arrival, None)
        self.arrivals[key] = replace(arrival, judgement=judgement)
        if isinstance(judgement, NotATiltSeries):
            self._ignore(key, arrival, judgement)
        elif isinstance(judgement, Waiting) and judgement.until_at is not None:
            self._desk.wake(judgement.until_at, "arrival", *key)

    def _ignore(self, key: Key, arrival: Arrival, judgement: NotATiltSeries) -> None:
        """Remembered in the journal's ``seen`` table, so that it is not opened again; not in memory."""
        feed, series_key = key
        counts = self.ignored.setdefault(feed, {})
        counts[judgement.why] = counts.get(judgement.why, 0) + 1
        self.arrivals.pop(key, None)
        self._desk.record(
            f.SeriesIgnored(
                at=self._desk.now,
                feed=feed,
                series_key=series_key,
                reason=judgement.why,
                detail=judgement.detail,
                stat_signature=arrival.sighting.stat_signature,
            )
        )

    # -- judging ---------------------------------------------------------------------------------------

    def judge(self, key: Key) -> None:
        """Judge one arriving series by its last sighting; after a change, a reload, or when its time came."""
        arrival, dataset = self.arrivals.get(key), self._current(key)
        if arrival is None or arrival.gone_since_at is not None:
            return
        if dataset is None:
            self._not_a_series(key, arrival) if arrival.sighting.not_series is not None else None
            return
        if dataset.state is not State.ARRIVING or dataset.hold("before_tiltd") is not None:
            return
        judgement = self._judgement(arrival, dataset)
        self.arrivals[key] = replace(arrival, judgement=judgement)
        match judgement:
            case Waiting():
                self._waiting(dataset, arrival, judgement, key)
            case Complete():
                self._complete(dataset, arrival, judgement, partial=False)
            case Partial():
                self._partial(dataset, arrival, judgement)
            case NotATiltSeries():
                self._cancel(dataset, f"it is no tilt series: {judgement.detail}")
                self._ignore(key, arrival, judgement)

    def _judgement(self, arrival: Arrival, dataset: Dataset | None) -> Judgement:
        usual, sighting = None, arrival.sighting
        if dataset is not None and (sighting.series is not None or sighting.section_count):
            usual = self._desk.state.usual_tilt_count(dataset.feed, dataset.labels)
        return completeness.judge(
            sighting,
            arrival.stable_since_at,
            self._desk.now,
            self._deciding.completeness(dataset, sighting),
            usual,
        )

    def _waiting(self, dataset: Dataset, arrival: Arrival, judgement: Waiting, key: Key) -> None:
        if arrival.touched and dataset.holds:  # a restart alone is no reason to think better of it
            self._desk.lift(dataset, "partial")
        if dataset.accepted_partial and arrival.sighting.series is not None and not arrival.sighting.problems:
            self._complete(dataset, arrival, judgement, partial=True)
        elif judgement.until_at is not None:
            self._desk.wake(judgement.until_at, "arrival", *key)
            self._quiet(dataset, arrival, key)

    def _quiet(self, dataset: Dataset, arrival: Arrival, key: Key) -> None:
        """A microscope that fell silent in the middle of a series, which was seen to grow: told once, if a
        rule of notices asks for it."""
        policy = self._desk.policy
        if dataset.holds or not arrival.touched or arrival.quiet_told:
            return
        if not any("quiet" in rule.events for rule in policy.notice_rules):
            return
        at = arrival.stable_since_at + policy.notices.quiet_seconds
        if self._desk.now < at:
            self._desk.wake(at, "arrival", *key)
            return
        self.arrivals[key] = replace(self.arrivals[key], quiet_told=True)
        since = show_seconds(round(self._desk.now - arrival.stable_since_at))
        sentence = f"{dataset.dataset_id} is not complete and has not grown for {since}"
        self._desk.notice("quiet", sentence, dataset.dataset_id, dataset, only_if_asked=True)

    def _complete(self, dataset: Dataset, arrival: Arrival, judgement: Judgement, *, partial: bool) -> None:
        desk, series = self._desk, arrival.sighting.series
        assert series is not None
        if dataset.holds:
            for cause in ("partial", "input_changing"):
                if (now := desk.dataset(dataset.dataset_id)) is not None:
                    desk.lift(now, cause)
        desk.record(
            f.DatasetCompleted(
                at=desk.now,
                dataset_id=dataset.dataset_id,
                series=series,
                evidence=judgement.evidence,
                last_change_at=arrival.stable_since_at,
                partial=partial,
                stat_signature=arrival.sighting.stat_signature,
            )
        )

    def _partial(self, dataset: Dataset, arrival: Arrival, judgement: Partial) -> None:
        wanted = self._deciding.completeness(dataset, arrival.sighting).partial
        if judgement.runnable and (wanted == "run" or dataset.accepted_partial):
            self._complete(dataset, arrival, judgement, partial=True)
        elif wanted == "drop":
            self._cancel(dataset, f"partial ({judgement.why}), dropped by the policy")
        elif dataset.hold("partial") is None:
            failing = next((line for line in judgement.evidence if not line.holds), None)
            detail = f"{judgement.why}: {failing.detail}" if failing else judgement.why
            self._desk.hold(dataset, "partial", detail, origin="policy")
            self._desk.notice(
                "partial",
                f"{dataset.dataset_id} is incomplete and no longer grows ({detail}); accept or cancel it",
                dataset.dataset_id,
                dataset,
            )

    def _cancel(self, dataset: Dataset, reason: str) -> None:
        self._desk.record(
            f.DatasetCancelled(
                at=self._desk.now,
                dataset_id=dataset.dataset_id,
                reason=reason,
                by="tiltd",
                stat_signature=self.signature_of(dataset),
            )
        )

    def signature_of(self, dataset: Dataset) -> str:
        """The signature of its files as last seen, so that they are met again only if they change."""
        arrival = self.arrivals.get((dataset.feed, dataset.series_key))
        return arrival.sighting.stat_signature if arrival is not None else ""

    # -- input that changes or vanishes ------------------------------------------------------------------

    def _changed_after(self, dataset: Dataset, arrival: Arrival, *, touched: bool) -> None:
        """The files of a dataset that is complete already were touched.

        Until they could be read again it is not placed.  The same content lets it go on; another is a new
        revision, for which the old one makes room if it has no result yet.
        """
        desk, sighting = self._desk, arrival.sighting
        if dataset.series is None:
            return
        if sighting.series is None or sighting.blockers:
            if dataset.state is State.READY and touched and not dataset.rescue:
                desk.hold(dataset, "input_changing", "its files are changing")
            return
        if sighting.series.fingerprint.digest == dataset.series.fingerprint.digest:
            desk.lift(dataset, "input_changing")
            return
        if dataset.state is State.READY and not dataset.rescue:  # a result that waits is delivered first
            self._cancel(dataset, "its input was replaced by a new revision")
        elif dataset.live_attempt is not None and dataset.stop_requested not in ("cancel", "superseded"):
            desk.record(
                f.StopRequested(
                    at=desk.now, dataset_id=dataset.dataset_id, intent="superseded", by="its input changed"
                )
            )
        newer = sighting.known_revision > dataset.revision
        if newer and sighting.known_digest == sighting.series.fingerprint.digest:
            self.arrivals.pop((dataset.feed, dataset.series_key), None)  # a later revision is known already
            return
        self.arrivals[dataset.feed, dataset.series_key] = arrival
        revision = max(dataset.revision, sighting.known_revision) + 1
        self._found(dataset.feed, sighting, revision=revision, baseline=False)

    def _gone(self, feed: str, series_key: str) -> None:
        key = (feed, series_key)
        arrival, dataset = self.arrivals.get(key), self._current(key)
        if dataset is None:
            self.arrivals.pop(key, None)
            return
        since_at = self._desk.now
        if arrival is not None:
            since_at = arrival.gone_since_at if arrival.gone_since_at is not None else self._desk.now
            self.arrivals[key] = replace(arrival, gone_since_at=since_at)
        if dataset.state is State.READY and not dataset.rescue:
            self._desk.hold(dataset, "input_gone", "its files are no longer in the feed")
        elif dataset.state is State.ARRIVING:
            if arrival is None:  # it vanished while tiltd was down: longer ago than a renaming takes
                self._hold_gone(dataset)
            self._desk.wake(since_at + GONE_GRACE_SECONDS, "gone", *key)

    def _hold_gone(self, dataset: Dataset) -> None:
        self._desk.hold(dataset, "input_gone", "its files vanished before it was complete")

    def still_gone(self, key: Key) -> None:
        """An arriving series whose files did not come back after the grace is held, and says so."""
        arrival, dataset = self.arrivals.get(key), self._current(key)
        if arrival is None or arrival.gone_since_at is None or dataset is None:
            return
        if dataset.state is State.ARRIVING and self._desk.now >= arrival.gone_since_at + GONE_GRACE_SECONDS:
            self._hold_gone(dataset)

    def settled(self, dataset: Dataset) -> None:
        """Files that a job found changed, and every look finds as recorded, may be tried again."""
        arrival = self.arrivals.get((dataset.feed, dataset.series_key))
        if dataset.hold("input_changing") is None or arrival is None or dataset.series is None:
            return
        series = arrival.sighting.series
        if series is not None and series.fingerprint.digest == dataset.series.fingerprint.digest:
            self._desk.lift(dataset, "input_changing")

    # -- questions -------------------------------------------------------------------------------------

    def watchlist(self, feed: str) -> dict[str, str]:
        """Series key -> dataset id of all that is not yet delivered: to be looked at on every pass."""
        return {
            series_key: dataset_id
            for (of_feed, series_key), dataset_id in self._desk.state.current.items()
            if of_feed == feed
            and (dataset := self._desk.dataset(dataset_id)) is not None
            and dataset.state not in TERMINAL
        }

    def judge_all(self) -> None:
        """Judge every arriving series afresh (new policy)."""
        for key in list(self.arrivals):
            try:
                self.judge(key)
            except Exception as bug:  # of one
                self._desk.bug(bug, self._desk.state.current.get(key, ""))
