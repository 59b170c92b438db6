"""Every action of an operator on a dataset in every state: what is answered, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from core.scene import Bench, node, sighting
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Dataset, State
from tiltd.plugins.api import Permanent

ID = "TS-c46098f8.1.1"
ATTEMPT = f"{ID}.a1"


def arriving() -> Bench:
    bench = Bench()
    bench.see(sighting("TS"))
    return bench


def ready() -> Bench:
    bench = Bench(node(state="offline"))
    bench.arrive()
    return bench


def reserved() -> Bench:
    bench = Bench()
    bench.arrive()
    return bench


def queued() -> Bench:
    bench = Bench()
    bench.submitted()
    return bench


def running() -> Bench:
    bench = Bench()
    bench.running()
    return bench


def collecting() -> Bench:
    bench = running()
    bench.end(ATTEMPT)
    return bench


def delivered() -> Bench:
    bench = collecting()
    bench.tell(o.CollectAnswered, attempt_id=ATTEMPT, result_path="/results/TS", verdict="good")
    return bench


def failed() -> Bench:
    bench = running()
    bench.end(ATTEMPT, "failed", "input")
    bench.jobs()
    bench.jobs()
    return bench


def cancelled() -> Bench:
    bench = ready()
    bench.ask("cancel", ID)
    return bench


STATES: dict[State, Callable[[], Bench]] = {
    State.ARRIVING: arriving,
    State.READY: ready,
    State.RESERVED: reserved,
    State.QUEUED: queued,
    State.RUNNING: running,
    State.COLLECTING: collecting,
    State.DELIVERED: delivered,
    State.FAILED: failed,
    State.CANCELLED: cancelled,
}
LIVE = (State.RESERVED, State.QUEUED, State.RUNNING)

NOTHING_NEW = f"{ID} is held: its running attempt goes on, nothing new starts"
STOPS = f"{ID} will be cancelled once the end of its job is proved"
ONLY_RETRY = "only failed and cancelled datasets can be retried"
ONLY_ACCEPT = "only an arriving series can be accepted as it is"

ANSWERS: dict[tuple[str, State], tuple[str, list[str]]] = {
    ("hold", State.ARRIVING): (f"{ID} is held", ["HoldPlaced"]),
    ("hold", State.READY): (f"{ID} is held", ["HoldPlaced"]),
    ("hold", State.RESERVED): (NOTHING_NEW, ["HoldPlaced"]),
    ("hold", State.QUEUED): (NOTHING_NEW, ["HoldPlaced"]),
    ("hold", State.RUNNING): (NOTHING_NEW, ["HoldPlaced"]),
    ("hold", State.COLLECTING): (NOTHING_NEW, ["HoldPlaced"]),
    ("hold", State.DELIVERED): (f"no: {ID} is delivered: nothing to hold", []),
    ("hold", State.FAILED): (f"no: {ID} is failed: nothing to hold", []),
    ("hold", State.CANCELLED): (f"no: {ID} is cancelled: nothing to hold", []),
    **{("release", state): (f"{ID} is not held", []) for state in State},
    **{("retry", state): (f"no: {ID} is {state}: {ONLY_RETRY}", []) for state in State},
    ("retry", State.FAILED): (f"{ID} will be tried again", ["DatasetRevived"]),
    ("retry", State.CANCELLED): (f"{ID} will be tried again", ["DatasetRevived"]),
    **{
        ("rerun", state): ("TS-c46098f8.1.2 will be run", ["DatasetFound", "DatasetCompleted"])
        for state in State
    },
    ("rerun", State.ARRIVING): (f"no: {ID} was never complete: there is nothing to run again", []),
    **{("cancel", state): (STOPS, ["StopRequested"]) for state in LIVE},
    ("cancel", State.ARRIVING): (
        f"{ID} is cancelled; files that change from now on are a new revision; 'hold' would keep them from "
        "being run",
        ["DatasetCancelled"],
    ),
    ("cancel", State.READY): (f"{ID} is cancelled", ["DatasetCancelled"]),
    ("cancel", State.COLLECTING): (
        f"{ID} is being published; if that fails, it will be cancelled",
        ["StopRequested"],
    ),
    ("cancel", State.DELIVERED): (f"no: {ID} is delivered already", []),
    ("cancel", State.FAILED): (f"{ID} is cancelled", ["DatasetCancelled"]),
    ("cancel", State.CANCELLED): (f"no: {ID} is cancelled already", []),
    **{("accept", state): (f"no: {ID} is {state}: {ONLY_ACCEPT}", []) for state in State},
    ("accept", State.ARRIVING): (
        f"{ID} is accepted with the tilts it has",
        ["PartialAccepted", "DatasetCompleted"],
    ),
}
ORDER_IS_PAST = "the order matters only until a series is placed"
ANSWERS |= {
    **{("prioritize", state): (f"no: {ID} is {state}: {ORDER_IS_PAST}", []) for state in State},
    ("prioritize", State.ARRIVING): (f"{ID} has priority +5 over the policy's", ["PrioritySet"]),
    ("prioritize", State.READY): (f"{ID} has priority +5 over the policy's", ["PrioritySet"]),
}
CONSEQUENCES = {
    "Placed", "DatasetFinalized", "DatasetRecalled", "NoticeDue", "ScratchReleased", "OperatorActed",
}  # fmt: skip
"""What follows of itself: placing, and the coming and going of finished ones."""


def in_state(state: State, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Dataset]:
    """A bench whose dataset is in this state, and its row in the journal."""
    rows: dict[str, Dataset] = {}
    take = Bench.take

    def keep(self: Bench, observation: o.Observation) -> object:
        step = take(self, observation)
        rows.update({record.dataset_id: record for record in step.records})
        return step

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "take", keep)
        bench = STATES[state]()
    assert rows[ID].state is state
    return bench, rows[ID]


def asked(bench: Bench, action: str, record: Dataset, **fields: object) -> tuple[str, list[str]]:
    """The answer (``no: `` before a refusal) and the kinds of facts, less what follows of itself."""
    before = len(bench.facts)
    live = record.dataset_id in bench.core.state.datasets
    reply = bench.ask(action, record.dataset_id, record=None if live else record, **fields)
    kinds = [type(fact).__name__ for fact in bench.facts[before:]]
    told = [kind for kind in kinds if kind not in CONSEQUENCES]
    return ("" if reply.ok else "no: ") + reply.message, told


@pytest.mark.parametrize(("action", "state"), list(ANSWERS), ids=lambda value: str(value))
def test_every_action_in_every_state(action: str, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, record = in_state(state, monkeypatch)
    earlier = len(bench.facts)
    assert asked(bench, action, record, latest_run=1, priority=5) == ANSWERS[action, state]
    acts = [fact for fact in bench.facts[earlier:] if isinstance(fact, f.OperatorActed)]
    if ANSWERS[action, state][1]:
        assert [(act.by, act.action, act.dataset_id, act.ok) for act in acts] == [("op", action, ID, True)]


def test_every_pair_is_tried() -> None:
    actions = {"hold", "release", "retry", "rerun", "cancel", "accept", "prioritize"}
    assert set(ANSWERS) == {(action, state) for action in actions for state in State}


REFUSED = [pair for pair, (message, _) in ANSWERS.items() if message.startswith("no: ")]


@pytest.mark.parametrize(("action", "state"), REFUSED, ids=lambda value: str(value))
def test_a_refusal_changes_nothing_and_is_known_beforehand(
    action: str, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, record = in_state(state, monkeypatch)
    before = bench.core.state.snapshot(0)
    assert bench.core.objection(action, record, {}) == ANSWERS[action, state][0].removeprefix("no: ")
    step = bench.tell(
        o.OperatorAsked, action=action, dataset_id=ID, by="op", request_id="7", record=record, latest_run=1
    )
    assert bench.core.state.snapshot(0) == before
    assert (step.facts, step.records) == ((), ())
    assert [effect.request_id for effect in step.effects if isinstance(effect, e.Reply)] == ["7"]


# -- done twice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.ARRIVING, State.READY, *LIVE, State.COLLECTING])
def test_a_hold_is_placed_once_with_the_reason_and_who_asked(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, record = in_state(state, monkeypatch)
    asked(bench, "hold", record, reason="look at it first")
    assert asked(bench, "hold", record, reason="again") == (f"{ID} was held already", [])
    (hold,) = bench.of(ID).holds
    assert (hold.cause, hold.origin, hold.detail) == ("operator", "op", "look at it first")
    assert asked(bench, "release", record) == (f"{ID} is released (operator)", ["HoldLifted"])
    assert asked(bench, "release", record) == (f"{ID} is not held", [])


@pytest.mark.parametrize("state", [*LIVE, State.COLLECTING])
def test_a_cancel_is_recorded_once(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, record = in_state(state, monkeypatch)
    first = asked(bench, "cancel", record)
    assert asked(bench, "cancel", record) == (first[0], [])
    assert (bench.of(ID).stop_requested, bench.of(ID).stop_by) == ("cancel", "op")


def test_a_cancel_overrules_a_stop_of_tiltds_own() -> None:
    bench = running()
    bench.see(sighting("TS", "2"))
    assert bench.of(ID).stop_requested == "superseded"
    bench.ask("cancel", ID)
    assert bench.of(ID).stop_requested == "cancel"


# -- hold and release ----------------------------------------------------------------------------------------


def test_a_held_series_completes_and_is_not_placed_until_it_is_released() -> None:
    bench = arriving()
    bench.ask("hold", ID)
    bench.wait(400.0)
    assert bench.of(ID).state is State.READY
    bench.ask("release", ID)
    assert bench.of(ID).state is State.RESERVED


def test_a_hold_stops_the_publishing_and_its_release_takes_it_up() -> None:
    bench = collecting()
    bench.ask("hold", ID)
    assert "CollectResult" not in bench.outstanding()
    assert bench.ask("cancel", ID).message == f"{ID} is cancelled"
    assert ID not in bench.core.state.datasets or bench.of(ID).state is State.CANCELLED
    bench = collecting()
    bench.ask("hold", ID)
    bench.ask("release", ID)
    assert "CollectResult" in bench.outstanding()


def test_a_partial_series_is_not_released_but_accepted() -> None:
    bench = Bench()
    bench.see(sighting("TS", planned_tilt_count=61))
    bench.wait(8000.0)
    bench.ask("hold", ID)
    reply = bench.ask("release", ID)
    assert (reply.ok, reply.message) == (False, f"{ID} is partial: 'accept' runs it with the tilts it has")
    assert [hold.cause for hold in bench.of(ID).holds] == ["partial"]


def test_a_release_lifts_several_causes_and_names_them() -> None:
    bench = ready()
    bench.see(gone=("TS.mrc",))
    bench.ask("hold", ID)
    assert bench.ask("release", ID).message == f"{ID} is released (input_gone, operator)"
    assert bench.of(ID).holds == ()


# -- retry ---------------------------------------------------------------------------------------------------


def test_a_retry_counts_its_tries_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, record = in_state(State.FAILED, monkeypatch)
    assert (record.attempts_spent, record.failure is not None) == (1, True)
    bench.release(ATTEMPT)
    asked(bench, "retry", record)
    dataset = bench.of(ID)
    assert (dataset.attempts_spent, dataset.failure, dataset.state) == (0, None, State.RESERVED)
    assert [attempt.number for attempt in dataset.attempts] == [1, 2]


def test_what_will_be_tried_again_anyway_needs_no_retry() -> None:
    bench = running()
    bench.end(ATTEMPT, "failed", "program")
    bench.jobs()
    bench.jobs()
    assert bench.of(ID).state is State.READY
    reply = bench.ask("retry", ID)
    assert (reply.ok, reply.message) == (False, f"{ID} is waiting to be tried again already")


def test_an_old_revision_is_not_tried_again_beside_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, record = in_state(State.READY, monkeypatch)
    bench.see(sighting("TS", "2"))
    old = replace(record, state=State.CANCELLED)
    answer, _ = asked(bench, "retry", old)
    assert answer == f"no: {ID} was superseded by TS-c46098f8.2.1, whose input is newer"


@pytest.mark.parametrize("action", ["hold", "release", "retry", "rerun", "cancel", "accept", "prioritize"])
def test_a_record_of_what_was_under_way_does_not_bring_it_back(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked about while it stood so, and has left the working set since: its result would be lost."""
    bench, ready = in_state(State.READY, monkeypatch)
    bench.ask("cancel", ID)
    assert not bench.core.state.datasets
    for old in (ready, replace(ready, state=State.ARRIVING), replace(ready, state=State.RUNNING)):
        answer = asked(bench, action, old, latest_run=1)
        assert answer == (f"no: {ID} has come to its end this moment; look at it and ask again", [])
    assert not bench.core.state.datasets


# -- rerun ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latest", "new"), [(0, 2), (1, 2), (4, 5)])
def test_a_rerun_has_the_next_number(latest: int, new: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, record = in_state(State.DELIVERED, monkeypatch)
    asked(bench, "rerun", record, latest_run=latest, options={"thickness": 300})
    rerun = bench.of(f"TS-c46098f8.1.{new}")
    assert (rerun.run, rerun.revision, rerun.series) == (new, 1, record.series)
    assert rerun.options == {**record.options, "thickness": 300}
    assert ID not in bench.core.state.datasets or bench.of(ID).state is State.DELIVERED


def test_a_rerun_whose_number_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, record = in_state(State.READY, monkeypatch)
    asked(bench, "rerun", record, latest_run=1)
    assert asked(bench, "rerun", record, latest_run=1) == ("no: TS-c46098f8.1.2 exists already", [])


def test_options_are_tried_with_the_pipeline_before_anything_is_recorded() -> None:
    bench = ready()

    def request(series: object, options: dict[str, object]) -> object:
        raise Permanent(f"no option is called {sorted(options)[0]}")

    bench.core.desk.pipelines["simulated"].request = request  # type: ignore[method-assign]
    reply = bench.ask("rerun", ID, options={"wrong": 1}, latest_run=1)
    assert (reply.ok, reply.message) == (False, f"{ID} cannot be run so: no option is called wrong")
    assert list(bench.core.state.datasets) == [ID]


# -- what nobody knows, and breakers -------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["hold", "release", "retry", "rerun", "cancel", "accept"])
def test_an_unknown_dataset_is_said_to_be_unknown(action: str) -> None:
    bench = Bench()
    reply = bench.ask(action, "nosuch.1.1")
    assert (reply.ok, reply.message) == (
        False,
        "no dataset nosuch.1.1 is known; 'tiltd list' shows those that are",
    )


def test_a_breaker_is_closed_once() -> None:
    bench = Bench()
    bench.core.desk.record(
        f.BreakerOpened(at=0.0, scope="node:n1", failure_class="environment", detail="no module")
    )
    assert bench.ask("close_breaker", "", reason="node:n1").message == "the breaker of node:n1 is closed"
    reply = bench.ask("close_breaker", "", reason="node:n1")
    assert (reply.ok, reply.message) == (False, "no breaker node:n1 is open")


def test_a_higher_priority_is_placed_first() -> None:
    bench = Bench(node(state="offline"))
    first, second = bench.arrive("TS"), bench.arrive("TT")
    ids = list(bench.core.state.datasets)
    bench.ask("prioritize", ids[1], priority=7)
    assert bench.core.state.datasets[ids[1]].operator_priority == 7
    queue = bench.core.placing.queue
    wants = sorted(queue.buckets, key=queue.order)
    assert [queue.where[ids[1]] is want for want in wants] == [True, False], (first, second)


def test_a_priority_out_of_bounds_is_refused() -> None:
    bench = ready()
    reply = bench.ask("prioritize", ID, priority=1001)
    assert (reply.ok, bench.core.state.datasets[ID].operator_priority) == (False, 0)
    assert "between -1000 and 1000" in reply.message


@pytest.mark.parametrize("ok", [True, False])
def test_what_is_done_outside_the_core_is_noted(ok: bool) -> None:
    bench = Bench()
    told = "the policy was read" if ok else "the policy was refused"
    assert bench.ask("reload_policy", "", told=told, ok=ok, via="token").message == told
    acts = [fact for fact in bench.facts if isinstance(fact, f.OperatorActed)]
    noted = [(a.by, a.via, a.action, a.dataset_id, a.project, a.ok, a.message) for a in acts]
    assert noted == [("op", "token", "reload_policy", "", "", ok, told)]
