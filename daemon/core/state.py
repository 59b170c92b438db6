"""State: the fold of all facts.  Nothing in it is known otherwise, so ``replay(journal) == state``.

Memory is by live datasets: what is terminal and finished leaves ``datasets``; what predictions need of it
stays as bounded samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tiltd.policy import breaker, predict

from . import facts as f
from .apply import apply
from .digests import Board
from .ledger import Ledger
from .model import WITH_ATTEMPT, Attempt, Dataset, Digest, Gathered, Measured, Notice, Record, Reservation
from .usage import Usage

USUAL_SESSIONS_MAX = 256
USUAL_COUNTS_MAX = 16


class Snapshot(Record):
    """A state at rest, as the journal keeps it; ``sequence`` is the last fact that it contains."""

    sequence: int
    datasets: tuple[Dataset, ...]
    reservations: tuple[Reservation, ...]
    breakers: breaker.Breakers
    samples: predict.Samples
    feeds_met: dict[str, str]
    notices: tuple[Notice, ...]
    usual_tilts: dict[str, tuple[int, ...]]
    usage: Usage = Usage()
    refused_policy: str = ""
    digests: dict[str, Digest] = {}
    gathered: dict[str, Gathered] = {}
    told: dict[str, float] = {}


class CoreState:
    """The working set and what belongs to the facility rather than to one dataset.

    ``current`` maps (feed, series key) to the newest live dataset of that series.  ``refused_policy`` is the
    content (a hash) of policy files that were refused and told, "" once a policy was accepted.
    ``board`` has what people are told, now and later.
    """

    def __init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.current: dict[tuple[str, str], str] = {}
        self._older: dict[tuple[str, str], tuple[str, ...]] = {}
        self.ledger = Ledger()
        self.breakers = breaker.Breakers()
        self.samples = predict.Samples()
        self.feeds_met: dict[str, str] = {}
        self.board = Board()
        self.usual_tilts: dict[str, tuple[int, ...]] = {}
        self.usage = Usage()
        self.refused_policy = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoreState) and self.snapshot(0) == other.snapshot(0)

    __hash__ = None  # type: ignore[assignment]

    # -- folding -----------------------------------------------------------------------------------

    def apply(self, fact: f.Fact) -> tuple[Dataset | None, Dataset | None]:
        """Take one fact in.  Gives the record of its dataset before and after, if it is about one.
        Raises ``IllegalTransition``, and is then unchanged.

        Cost does not depend on the number of datasets.
        """
        kind = type(fact)
        if not isinstance(fact, f.DatasetFact):
            if kind in _OF_THE_FACILITY:
                _OF_THE_FACILITY[kind](self, fact)
            return None, None
        dataset_id = fact.dataset_id
        before = self.datasets.get(dataset_id)
        after = apply(before, fact)
        if after is not None:
            self.datasets[dataset_id] = after
            if before is None:
                self._claim_series(after)
        elif before is not None:
            del self.datasets[dataset_id]
            self._leave_series(before)
        if kind in _CONSEQUENCES:
            _CONSEQUENCES[kind](self, fact, before, after)
        if self.breakers.by_scope and _left_attempt(before, after):
            # A probe that ended without a verdict (with one it is no probe any more).
            self.breakers = breaker.unprobed(self.breakers, dataset_id, fact.at)
        return before, after

    # -- facts about the facility ------------------------------------------------------------------

    def _released(self, fact: f.ScratchReleased) -> None:
        self.ledger.release(fact.attempt_id, fact.node)

    def _policy_adopted(self, fact: f.PolicyAdopted) -> None:
        self.usage = self.usage.with_half_life(fact.half_life_seconds, fact.at)
        self.refused_policy = ""

    def _policy_refused(self, fact: f.PolicyRejected) -> None:
        self.refused_policy = fact.content

    def _feed_met(self, fact: f.FeedMet) -> None:
        self.feeds_met[fact.feed] = fact.reason

    def _breaker_turned(self, fact: f.BreakerOpened | f.BreakerProbed | f.BreakerClosed) -> None:
        self.breakers = _turn(self.breakers, fact)

    def _told(self, fact: f.NoticeDue | f.NoticeSent | f.NoticeGivenUp | f.NoticePutBy) -> None:
        self.board.apply(fact)

    # -- the newest dataset of a series ------------------------------------------------------------

    def _claim_series(self, dataset: Dataset) -> None:
        key = (dataset.feed, dataset.series_key)
        holder = self.datasets.get(self.current.get(key, ""))
        if holder is None:
            self.current[key] = dataset.dataset_id
            return
        older = dataset.dataset_id
        if _age(holder) <= _age(dataset):
            self.current[key], older = older, holder.dataset_id
        self._older[key] = (*self._older.get(key, ()), older)

    def _leave_series(self, dataset: Dataset) -> None:
        """The next newest live one speaks for the series, if there is one."""
        key, gone = (dataset.feed, dataset.series_key), dataset.dataset_id
        older = [known for known in self._older.pop(key) if known != gone] if key in self._older else []
        if self.current.get(key) == gone:
            del self.current[key]
            if older:
                newest = max(older, key=lambda known: _age(self.datasets[known]))
                older.remove(newest)
                self.current[key] = newest
        if older:
            self._older[key] = tuple(older)

    # -- what some facts change beside their dataset's record ------------------------------------------

    def _placed(self, fact: f.Placed, before: Dataset | None, after: Dataset | None) -> None:
        assert after is not None
        self._book(fact.attempt)
        self.usage = self.usage.booked(after.project, fact.attempt)

    def _adopted(self, fact: f.DatasetAdopted, before: Dataset | None, after: Dataset | None) -> None:
        if fact.record.attempt is not None:
            self._book(fact.record.attempt, fact.record.attempt.nodes)
            self.usage = self.usage.booked(fact.record.project, fact.record.attempt)

    def _ended(self, fact: f.DatasetFact, before: Dataset | None, after: Dataset | None) -> None:
        """An attempt's end: what it really used counts from here on."""
        if before is None or after is None or not before.attempts:
            return
        was, now = before.attempts[-1], after.attempts[-1]
        if was.ended_at is None and now.ended_at is not None and now.attempt_id == was.attempt_id:
            self.usage = self.usage.ended(before.project, was, fact.at)

    def _failed(self, fact: f.AttemptFailed, before: Dataset | None, after: Dataset | None) -> None:
        assert before is not None
        self._ended(fact, before, after)
        scopes, failure_class = failure_scopes(before, fact.attempt_id), fact.failure.failure_class
        self.breakers = breaker.failed(self.breakers, scopes, failure_class, before.dataset_id, fact.at)
        if failure_class == "walltime":
            self._learn_killed(before, fact)

    def _stranded(self, fact: f.ResultStranded, before: Dataset | None, after: Dataset | None) -> None:
        assert before is not None
        self._ended(fact, before, after)
        self.ledger.only_scratch(fact.attempt_id)
        scopes = failure_scopes(before, fact.attempt_id)
        self.breakers = breaker.failed(self.breakers, scopes, "destination", before.dataset_id, fact.at)

    def _collected(self, fact: f.ResultCollected, before: Dataset | None, after: Dataset | None) -> None:
        assert after is not None
        self._ended(fact, before, after)
        if not fact.adopted:
            self._learn(after, fact)

    def _book(self, attempt: Attempt, nodes: tuple[str, ...] = ()) -> None:
        for node in nodes or attempt.placement.nodes:
            self.ledger.book(
                Reservation(
                    attempt_id=attempt.attempt_id,
                    node=node,
                    reserved_bytes=attempt.placement.scratch_bytes,
                    cores=attempt.placement.cores,
                    memory_bytes=attempt.placement.memory_bytes,
                    reserved_at=attempt.placed_at,
                )
            )

    def _started(self, fact: f.JobStarted, before: Dataset | None, after: Dataset | None) -> None:
        """The booking goes over to where the job runs; where it ran before it stays as well."""
        if after is None or not fact.nodes:
            return
        attempt = after.attempts[-1]
        booked = self.ledger.booked.get(attempt.attempt_id, ())
        for node in fact.nodes:
            if node not in booked:
                self._book(attempt, (node,))
        for node in booked:
            if node not in fact.nodes and node not in attempt.ran_on:
                self.ledger.release(attempt.attempt_id, node)

    def _completed(self, fact: f.DatasetCompleted, before: Dataset | None, dataset: Dataset | None) -> None:
        """The tilt counts of a session tell what is usual there; the oldest session is forgotten first."""
        if dataset is None or dataset.series is None or dataset.partial or dataset.run > 1:
            return
        key = session_key(dataset)
        counts = (*self.usual_tilts.pop(key, ()), dataset.series.tilt_count)
        self.usual_tilts[key] = counts[-USUAL_COUNTS_MAX:]
        while len(self.usual_tilts) > USUAL_SESSIONS_MAX:
            del self.usual_tilts[next(iter(self.usual_tilts))]

    def _learn(self, dataset: Dataset, fact: f.ResultCollected) -> None:
        if self.breakers.by_scope:
            scopes = failure_scopes(dataset, fact.attempt_id)
            self.breakers = breaker.succeeded(self.breakers, scopes)
        attempt = dataset.attempt
        if attempt is not None and dataset.series is not None and attempt.kind == "run":
            self.samples = predict.learn(
                self.samples,
                pipeline=dataset.pipeline,
                cores=attempt.placement.cores,
                threads=attempt.placement.threads,
                size_bytes=dataset.series.total_bytes,
                measured=fact.measured,
                asked=_asked(attempt),
            )

    def _learn_killed(self, dataset: Dataset, fact: f.AttemptFailed) -> None:
        """A run that its walltime killed would have taken longer."""
        attempt = dataset.attempt_called(fact.attempt_id)
        if attempt is None or dataset.series is None or attempt.kind != "run":
            return
        self.samples = predict.learn_killed(
            self.samples,
            pipeline=dataset.pipeline,
            cores=attempt.placement.cores,
            threads=attempt.placement.threads,
            size_bytes=dataset.series.total_bytes,
            walltime_seconds=attempt.placement.walltime_seconds,
            measured=fact.end.measured if fact.end is not None else Measured(),
            asked=_asked(attempt),
        )

    # -- questions ---------------------------------------------------------------------------------

    @property
    def notices(self) -> dict[str, Notice]:
        """Those that are due, the oldest first."""
        return self.board.notices

    def usual_tilt_count(self, feed: str, labels: Mapping[str, str]) -> int | None:
        """The commonest tilt count of the session so far; ``None`` before two series of it."""
        counts = self.usual_tilts.get(_session_key(feed, labels), ())
        if len(counts) < 2:
            return None
        if 2 * counts.count(counts[-1]) > len(counts):
            return counts[-1]  # more than half: there is no commoner one
        return max(sorted(set(counts)), key=counts.count)

    # -- at rest -----------------------------------------------------------------------------------

    def snapshot(self, sequence: int) -> Snapshot:
        return Snapshot(
            sequence=sequence,
            datasets=tuple(self.datasets[key] for key in sorted(self.datasets)),
            reservations=tuple(self.ledger.reservations()),
            breakers=self.breakers,
            samples=self.samples,
            feeds_met=self.feeds_met,
            notices=tuple(self.notices[key] for key in sorted(self.notices)),
            usual_tilts=self.usual_tilts,
            usage=self.usage,
            refused_policy=self.refused_policy,
            digests=dict(self.board.digests),
            gathered=dict(self.board.gathered),
            told=dict(self.board.told),
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> CoreState:
        state = cls()
        for dataset in snapshot.datasets:
            state.datasets[dataset.dataset_id] = dataset
            state._claim_series(dataset)
        for reservation in snapshot.reservations:
            state.ledger.book(reservation)
        state.breakers = snapshot.breakers
        state.samples = snapshot.samples
        state.feeds_met = dict(snapshot.feeds_met)
        state.board.restore(snapshot.notices, snapshot.digests, snapshot.gathered, snapshot.told)
        state.usual_tilts = dict(snapshot.usual_tilts)
        state.usage = snapshot.usage
        state.refused_policy = snapshot.refused_policy
        return state


_OF_THE_FACILITY: dict[type[f.Fact], Callable[[CoreState, Any], None]] = {
    f.ScratchReleased: CoreState._released,
    f.PolicyAdopted: CoreState._policy_adopted,
    f.PolicyRejected: CoreState._policy_refused,
    f.FeedMet: CoreState._feed_met,
    f.BreakerOpened: CoreState._breaker_turned,
    f.BreakerProbed: CoreState._breaker_turned,
    f.BreakerClosed: CoreState._breaker_turned,
    f.NoticeDue: CoreState._told,
    f.NoticeSent: CoreState._told,
    f.NoticeGivenUp: CoreState._told,
    f.NoticePutBy: CoreState._told,
}
"""Facts about no dataset; others of them change nothing in the state."""

_CONSEQUENCES: dict[type[f.Fact], Callable[[CoreState, Any, Dataset | None, Dataset | None], None]] = {
    f.Placed: CoreState._placed,
    f.DatasetAdopted: CoreState._adopted,
    f.DatasetCompleted: CoreState._completed,
    f.JobStarted: CoreState._started,
    f.JobEnded: CoreState._ended,
    f.AttemptFailed: CoreState._failed,
    f.AttemptStopped: CoreState._ended,
    f.ResultStranded: CoreState._stranded,
    f.ResultCollected: CoreState._collected,
}
"""Facts about a dataset that change more of the state than its record; (fact, before, after)."""


def replay(facts: Iterable[f.Fact], state: CoreState | None = None) -> CoreState:
    """Fold facts into a state (a new one, or the one given)."""
    state = state or CoreState()
    for fact in facts:
        state.apply(fact)
    return state


def _left_attempt(before: Dataset | None, after: Dataset | None) -> bool:
    if before is None or before.state not in WITH_ATTEMPT:
        return False
    return after is None or after.state not in WITH_ATTEMPT


def _asked(attempt: Attempt) -> predict.Asked:
    """The pipeline's words that the attempt's peaks are held against."""
    decided = attempt.decided
    if decided is None:
        return predict.NOTHING_ASKED
    return predict.Asked(memory_bytes=decided.asked_memory_bytes, scratch_bytes=decided.asked_scratch_bytes)


def _age(dataset: Dataset) -> tuple[int, int]:
    return dataset.revision, dataset.run


def session_key(dataset: Dataset) -> str:
    return _session_key(dataset.feed, dataset.labels)


def _session_key(feed: str, labels: Mapping[str, str]) -> str:
    return "\0".join((feed, labels.get("project", ""), labels.get("session", "")))


def failure_scopes(dataset: Dataset, attempt_id: str) -> tuple[str, ...]:
    """What a failure of this attempt may be the fault of, as breaker scopes."""
    attempt = dataset.attempt_called(attempt_id)
    nodes = (attempt.nodes or attempt.placement.nodes) if attempt is not None else ()
    return (
        *(f"node:{node}" for node in nodes),
        f"feed:{dataset.feed}",
        f"pipeline:{dataset.pipeline}",
        f"destination:{dataset.feed}",
    )


def _turn(breakers: breaker.Breakers, fact: f.Fact) -> breaker.Breakers:
    match fact:
        case f.BreakerOpened():
            return breaker.opened(breakers, fact.scope, fact.failure_class, fact.at)
        case f.BreakerProbed():
            return breaker.probed(breakers, fact.scope, fact.dataset_id, fact.at)
        case f.BreakerClosed():
            return breaker.closed(breakers, fact.scope)
        case _:
            raise AssertionError(fact)
