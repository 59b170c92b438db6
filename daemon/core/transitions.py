"""The one table: which fact leads from which state to which.

Read a row as: a dataset in STATE, to which FACT happens, is then in NEXT.  ``None`` as a state means "not
in the working set".  Where a row has several outcomes, :func:`next_state` chooses by what stands in the
fact; the docs' diagram and the metrics' label values are made from this table.

A pair that does not stand in ``TABLE`` is illegal: it raises, with the dataset's story, and changes nothing.
Late news (the answer of a submission that was overtaken by its own job) is no fact; the core drops it.
"""

from __future__ import annotations

from . import facts as f
from .model import Dataset, State

A, RY, RS, Q, RN, C = (
    State.ARRIVING,
    State.READY,
    State.RESERVED,
    State.QUEUED,
    State.RUNNING,
    State.COLLECTING,
)
DELIVERED, FAILED, CANCELLED = State.DELIVERED, State.FAILED, State.CANCELLED

Key = tuple[State | None, type[f.DatasetFact]]

TABLE: dict[Key, tuple[State | None, ...]] = {
    # a series is met, grows and is complete
    (None, f.DatasetFound): (A,),
    (None, f.DatasetAdopted): (RS, Q),
    (None, f.DatasetRecalled): (A, DELIVERED, FAILED, CANCELLED),
    (A, f.DatasetCompleted): (RY,),
    (A, f.PartialAccepted): (A,),
    (A, f.PrioritySet): (A,),
    (A, f.DatasetParked): (None,),
    (A, f.DatasetAdopted): (RS, Q),
    (A, f.DatasetRejected): (FAILED,),
    (A, f.DatasetCancelled): (CANCELLED,),
    # it waits for its place
    (RY, f.SeriesImported): (RY,),
    (RY, f.PrioritySet): (RY,),
    (RY, f.Placed): (RS,),
    (RY, f.DatasetAdopted): (RS, Q),
    (RY, f.DatasetRejected): (FAILED,),
    (RY, f.DatasetCancelled): (CANCELLED,),
    # it is submitted, runs and ends; the spool may tell of it sooner than the answer of qsub
    (RS, f.JobAccepted): (Q,),
    (RS, f.JobStarted): (RN,),
    (RS, f.JobEnded): (C,),
    (RS, f.StopRequested): (RS,),
    (RS, f.AttemptRevoked): (RS,),
    (RS, f.AttemptFailed): (RY, FAILED),
    (RS, f.AttemptStopped): (RY, CANCELLED),
    (RS, f.ResultCollected): (DELIVERED,),
    (Q, f.JobStarted): (RN,),
    (Q, f.JobEnded): (C,),
    (Q, f.StopRequested): (Q,),
    (Q, f.AttemptRevoked): (Q,),
    (Q, f.AttemptFenced): (Q,),
    (Q, f.AttemptFailed): (RY, FAILED),
    (Q, f.AttemptStopped): (RY, CANCELLED),
    (Q, f.ResultStranded): (RY,),
    (RN, f.JobAccepted): (RN,),
    (RN, f.JobRequeued): (Q,),
    (RN, f.AttemptRevoked): (RN,),
    (RN, f.JobEnded): (C,),
    (RN, f.StopRequested): (RN,),
    (RN, f.AttemptFenced): (RN,),
    (RN, f.AttemptFailed): (RY, FAILED),
    (RN, f.AttemptStopped): (RY, CANCELLED),
    (RN, f.ResultStranded): (RY,),
    # its result is verified and published
    (C, f.JobAccepted): (C,),
    (C, f.StopRequested): (C,),
    (C, f.ResultCollected): (DELIVERED,),
    (C, f.AttemptFailed): (RY, FAILED),
    (C, f.DatasetCancelled): (CANCELLED,),
    # the end, and the operator's second thoughts
    (FAILED, f.DatasetCancelled): (CANCELLED,),
    (FAILED, f.DatasetRevived): (A, RY),
    (CANCELLED, f.DatasetRevived): (A, RY),
    (DELIVERED, f.DatasetFinalized): (None,),
    (FAILED, f.DatasetFinalized): (None,),
    (CANCELLED, f.DatasetFinalized): (None,),
}
for _state in State:
    TABLE[_state, f.HoldLifted] = (_state,)
for _state in (A, RY, RS, Q, RN, C):
    TABLE[_state, f.HoldPlaced] = (_state,)
for _state in (RY, RS, Q, RN, C):
    TABLE[_state, f.DeadlineMissed] = (_state,)
_ONLY: dict[Key, State | None] = {key: outcomes[0] for key, outcomes in TABLE.items() if len(outcomes) == 1}


class IllegalTransition(Exception):
    """A fact that cannot happen in this state: a bug of ours, said with the dataset's story."""

    def __init__(self, dataset_id: str, state: State | None, fact: f.DatasetFact, story: str) -> None:
        super().__init__(
            f"{dataset_id}: {type(fact).__name__} cannot happen in state {state or 'absent'}; {story}"
        )
        self.dataset_id = dataset_id
        self.state = state
        self.fact = fact


def next_state(dataset: Dataset | None, fact: f.DatasetFact) -> State | None:
    """The state after ``fact``.  Raises :class:`IllegalTransition`; costs one look-up."""
    state = dataset.state if dataset is not None else None
    try:
        return _ONLY[state, type(fact)]
    except KeyError:
        pass
    outcomes = TABLE.get((state, type(fact)), ())
    chosen = _choose(dataset, fact) if outcomes else None
    if chosen not in outcomes:
        raise IllegalTransition(fact.dataset_id, state, fact, _story(dataset))
    return chosen


def _choose(dataset: Dataset | None, fact: f.DatasetFact) -> State:
    """The outcome where a row has several: it stands in the fact, never in a clock or a policy."""
    match fact:
        case f.AttemptFailed():
            return FAILED if fact.retry_at is None else RY
        case f.AttemptStopped():
            return RY if fact.intent in ("replace", "lost") else CANCELLED
        case f.DatasetRevived():
            return A if dataset is None or dataset.series is None else RY
        case f.DatasetAdopted() | f.DatasetRecalled():
            return fact.record.state
        case _:
            raise AssertionError(f"no choice is defined for {type(fact).__name__}")


def _story(dataset: Dataset | None) -> str:
    if dataset is None:
        return "it is not in the working set"
    attempts = ", ".join(f"{a.attempt_id} job {a.job_id or '-'} ended {a.ended_at}" for a in dataset.attempts)
    holds = ", ".join(hold.cause for hold in dataset.holds)
    return (
        f"in {dataset.state} since {dataset.state_since_at:.3f} after {dataset.fact_count} facts; "
        f"holds: {holds or 'none'}; stop requested: {dataset.stop_requested or 'no'}; "
        f"attempts: {attempts or 'none'}"
    )
