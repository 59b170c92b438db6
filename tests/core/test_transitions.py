"""Every pair of state and fact: in the table, or illegal, and then nothing has changed."""

from __future__ import annotations

from typing import get_args

import pytest
from msgspec.structs import replace

from core.scene import sighting
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.model import (
    Attempt,
    Dataset,
    Failure,
    Measured,
    Placement,
    ResourceRequest,
    RunEnd,
    State,
    StopIntent,
)
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.core.transitions import TABLE, IllegalTransition

ID = "TS-0.1.1"
PLACEMENT = Placement(
    nodes=("n1",), cores=1, threads=1, memory_bytes=1, scratch_bytes=1, walltime_seconds=1.0, queue="",
    rule="", policy_version="",
)  # fmt: skip
ATTEMPT = Attempt(
    attempt_id=f"{ID}.a1", number=1, kind="run", placement=PLACEMENT, request=ResourceRequest(), placed_at=0.0
)
SERIES = sighting("TS").series
END = RunEnd(job_id="1", nonce="", outcome="success", ended_at=0.0, node="n1")
FAILURE = Failure(failure_class="program", reason="x", detail="x")
HEAD = {"at": 1.0, "dataset_id": ID}
ONE = {"attempt_id": ATTEMPT.attempt_id}


def dataset(state: State) -> Dataset:
    return Dataset(
        dataset_id=ID, feed="a", series_key="k", tilt_series_name="TS", kind="stack", revision=1, run=1,
        found_at=0.0, state=state, state_since_at=0.0, series=SERIES, attempts=(ATTEMPT,),
    )  # fmt: skip


FOUND = f.DatasetFound(
    **HEAD, feed="a", series_key="k", tilt_series_name="TS", series_kind="stack", revision=1, run=1,
    labels={}, pipeline="p", options={},
)  # fmt: skip
EXAMPLES: list[f.DatasetFact] = [
    FOUND,
    f.DatasetCompleted(**HEAD, series=SERIES, evidence=(), last_change_at=0.0),
    f.HoldPlaced(**HEAD, cause="operator", origin="x", detail="x"),
    f.HoldLifted(**HEAD, cause="operator", by="x"),
    f.PartialAccepted(**HEAD, by="x"),
    *(f.StopRequested(**HEAD, intent=intent, by="x") for intent in get_args(StopIntent)),
    f.DeadlineMissed(**HEAD, due_at=1.0),
    f.PrioritySet(**HEAD, priority=5, by="x"),
    f.SeriesImported(**HEAD, path="/x"),
    f.Placed(**HEAD, attempt=ATTEMPT),
    f.JobAccepted(**HEAD, **ONE, job_id="1"),
    f.JobStarted(**HEAD, **ONE, nodes=("n1",), started_at=0.0),
    f.JobRequeued(**HEAD, **ONE),
    f.JobEnded(**HEAD, **ONE, end=END),
    f.AttemptRevoked(**HEAD, **ONE),
    f.AttemptFenced(**HEAD, **ONE),
    f.AttemptFailed(**HEAD, **ONE, failure=FAILURE, retry_at=None),
    f.AttemptFailed(**HEAD, **ONE, failure=FAILURE, retry_at=9.0),
    *(f.AttemptStopped(**HEAD, **ONE, intent=intent) for intent in get_args(StopIntent)),
    f.ResultStranded(**HEAD, **ONE, end=END, retry_at=9.0),
    f.ResultCollected(
        **HEAD, **ONE, result_path="/r", result_bytes=1, verdict="good", quality={}, measured=Measured()
    ),
    f.DatasetRejected(**HEAD, failure=FAILURE),
    f.DatasetCancelled(**HEAD, reason="x", by="x"),
    f.DatasetRevived(**HEAD, by="x"),
    *(f.DatasetAdopted(**HEAD, record=dataset(state)) for state in State),
    f.DatasetFinalized(**HEAD),
    f.DatasetParked(**HEAD),
    *(f.DatasetRecalled(**HEAD, record=dataset(state), by="x") for state in State),
]


def test_there_is_an_example_of_every_fact() -> None:
    assert {type(fact) for fact in EXAMPLES} == set(f.DATASET_FACTS.values())
    assert {kind for _, kind in TABLE} == set(f.DATASET_FACTS.values())


@pytest.mark.parametrize("state", [None, *State])
@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: type(fact).__name__)
def test_in_the_table_or_illegal(state: State | None, fact: f.DatasetFact) -> None:
    core = CoreState()
    if state is not None:
        core.datasets[ID] = dataset(state)
        core.current["a", "k"] = ID
    before = core.snapshot(0)
    outcomes = TABLE.get((state, type(fact)))
    try:
        core.apply(fact)
    except IllegalTransition as illegal:
        assert core.snapshot(0) == before
        assert ID in str(illegal)
        assert type(fact).__name__ in str(illegal)
        chosen = getattr(getattr(fact, "record", None), "state", None)
        assert outcomes is None or chosen not in outcomes
    else:
        assert outcomes is not None, f"{state} and {type(fact).__name__} are not in the table"
        after = core.datasets.get(ID)
        assert (after.state if after is not None else None) in outcomes


def test_an_end_stays_an_end_until_someone_speaks() -> None:
    for state in (State.DELIVERED, State.FAILED, State.CANCELLED):
        leaving = {kind for (of, kind), outcomes in TABLE.items() if of is state and set(outcomes) - {state}}
        assert leaving <= {f.DatasetFinalized, f.DatasetRevived, f.DatasetCancelled}


def test_a_stop_for_a_lost_node_keeps_who_wanted_it_withdrawn() -> None:
    core = CoreState()
    core.datasets[ID] = replace(dataset(State.RUNNING), stop_requested="cancel", stop_by="op")
    core.apply(f.StopRequested(**HEAD, intent="lost", by="tiltd"))
    after = core.datasets[ID]
    assert (after.stop_requested, after.stop_by, after.attempts[0].lost) == ("cancel", "op", True)


def test_when_the_newest_of_a_series_leaves_the_next_one_speaks_for_it() -> None:
    core = CoreState()
    for revision in (1, 2, 3):
        core.apply(replace(FOUND, dataset_id=f"TS-0.{revision}.1", revision=revision))
    for revision, then in ((3, "TS-0.2.1"), (1, "TS-0.2.1"), (2, None)):
        core.apply(f.DatasetParked(at=1.0, dataset_id=f"TS-0.{revision}.1"))
        assert core.current.get(("a", "k")) == then
        assert CoreState.restore(core.snapshot(0)).current == core.current
