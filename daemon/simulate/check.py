"""What must hold after every step, whatever the world shows.  Used by the simulations and property tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Core, Step
from tiltd.daemon.core.model import TERMINAL, WITH_ATTEMPT, Dataset, Placement, State
from tiltd.daemon.core.outstanding import outstanding_of
from tiltd.daemon.core.state import CoreState

AFTER_THE_END = (
    f.DatasetFinalized,
    f.DatasetRecalled,
    f.DatasetRevived,
    f.DatasetCancelled,
    f.HoldLifted,
)
"""What may still happen to a dataset that came to its end."""


class Broken(AssertionError):
    """An invariant does not hold; each line is one sentence."""


def check(core: Core) -> None:
    """All that can be told from the core alone.  Costs all live datasets; raises :class:`Broken`."""
    faults = [*_scratch(core), *_reservations(core), *_effects(core), *_idle(core)]
    wakes = {key for _, key in core.desk.wakes()}
    for dataset in core.state.datasets.values():
        faults += _attempts(dataset)
        faults += _cared_for(core, dataset, wakes)
    faults += core.bugs
    if faults:
        raise Broken("\n".join(faults[:20]))


def _scratch(core: Core) -> Iterator[str]:
    for name, node in core.nodes.items():
        reserved = core.state.ledger.reserved_bytes(name)
        if reserved > node.scratch_total_bytes:
            yield f"{name}: {reserved} bytes are reserved of {node.scratch_total_bytes}"


def _attempts(dataset: Dataset) -> Iterator[str]:
    open_ones = [attempt for attempt in dataset.attempts if attempt.ended_at is None]
    if len(open_ones) > 1 or (open_ones and open_ones[0] is not dataset.attempts[-1]):
        yield f"{dataset.dataset_id}: {len(open_ones)} attempts could publish"
    if bool(open_ones) != (dataset.state in WITH_ATTEMPT - {State.COLLECTING}):
        yield f"{dataset.dataset_id}: it is {dataset.state} with {len(open_ones)} open attempts"


def _reservations(core: Core) -> Iterator[str]:
    """One for every open attempt, on all its nodes; else only while its release is asked for, or rescued."""
    state, booked = core.state, core.state.ledger.booked
    needed: set[str] = set()
    for dataset in state.datasets.values():
        for attempt in dataset.attempts:
            if attempt.ended_at is None:
                needed.add(attempt.attempt_id)
                on = set(attempt.nodes or (attempt.placement.nodes if not attempt.ran_on else ()))
                if not on <= set(booked.get(attempt.attempt_id, ())) <= {*on, *attempt.ran_on}:
                    yield f"{attempt.attempt_id}: it is live, and booked on {booked.get(attempt.attempt_id)}"
            elif attempt.attempt_id in booked:
                needed.add(attempt.attempt_id)
    for attempt_id in booked:
        if attempt_id not in needed:
            yield f"{attempt_id}: it is booked, and nobody needs it"


def _effects(core: Core) -> Iterator[str]:
    wanted, under_way = core.outstanding(), core.performing.under_way
    for effect in wanted - under_way:
        yield f"outstanding, but never started: {effect}"
    for effect in under_way - wanted:
        yield f"under way, but not outstanding: {effect}"


def _idle(core: Core) -> Iterator[str]:
    """Nobody waits for a place that is there."""
    for want in set(core.placing.queue.where.values()):
        head = core.placing.queue.head(want)
        if core.placing.gates.stopped(want):
            continue
        found = core.placing.evaluate(want)
        best = core.placing.remembered(want)
        placed = found.nodes if isinstance(found, Placement) else ()
        if best is not None and best != placed:
            yield f"the best node for {want.request} is {placed}, and {best} is remembered"
        if head is not None and isinstance(found, Placement):
            yield f"{head.dataset_id}: it waits, though {', '.join(found.nodes)} would take it"


def _cared_for(core: Core, dataset: Dataset, wakes: set[tuple[str, ...]]) -> Iterator[str]:
    """Something will bring it on: a hold that someone lifts, an effect, a job, a place in the queue, a time,
    or, while it arrives, the next look at its files."""
    key, series = dataset.dataset_id, (dataset.feed, dataset.series_key)
    if dataset.holds or ("dataset", key) in wakes:
        return
    if outstanding_of(dataset, core.state.ledger.booked, core.desk.site.feeds):
        return
    match dataset.state:
        case State.ARRIVING:
            cared = dataset.feed in core.desk.site.feeds
        case State.READY:
            cared = key in core.placing.queue.where or dataset.feed not in core.desk.site.feeds
        case State.QUEUED:
            cared = bool(dataset.attempts[-1].job_id)
        case _:
            cared = False
    if not cared:
        yield f"{key}: it is {dataset.state} ({series}), and nothing will bring it on"


class Watch:
    """Follows the facts beside the core: the end stays the end, and a replay gives the same state."""

    def __init__(self) -> None:
        self.replayed = CoreState()
        self._ended: set[str] = set()

    def step(self, step: Step) -> None:
        for fact in step.facts:
            if isinstance(fact, f.DatasetFact):
                self._fact(fact)
            self.replayed.apply(fact)

    def _fact(self, fact: f.DatasetFact) -> None:
        if fact.dataset_id in self._ended and not isinstance(fact, AFTER_THE_END):
            raise Broken(f"{fact.dataset_id}: {type(fact).__name__} after its end")
        before = self.replayed.datasets.get(fact.dataset_id)
        if before is not None and before.state in TERMINAL and not isinstance(fact, f.DatasetRevived):
            self._ended.add(fact.dataset_id)
        if isinstance(fact, f.DatasetFinalized | f.DatasetRevived | f.DatasetRecalled):
            self._ended.discard(fact.dataset_id)

    def compare(self, core: Core) -> None:
        """Costs all live datasets."""
        if self.replayed != core.state:
            raise Broken("a replay of the facts gives another state")
        if self.replayed.current != core.state.current:
            raise Broken("a replay of the facts gives other newest datasets of a series")


def checked(steps: Iterable[tuple[object, Step]], core: Core, every: int) -> Iterator[tuple[object, Step]]:
    """Pass the steps on, checking after every ``every`` of them and at the end."""
    watch = Watch()
    for number, (observation, step) in enumerate(steps, 1):
        watch.step(step)
        if number % every == 0:
            check(core)
            watch.compare(core)
        yield observation, step
    check(core)
    watch.compare(core)
