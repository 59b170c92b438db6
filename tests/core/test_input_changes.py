"""Series that stay partial, change after they were complete, or vanish; and what a restart remembers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from core.scene import SITE, Bench, node, sighting
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import Dataset, Policy, Problem, State
from tiltd.daemon.simulate.scene import SimulatedPipeline

KEY = ("a", "TS.mrc")
SHORT = Problem(code="size_short", detail="the stack is 3 bytes short")


def policy(partial: str = "hold") -> Policy:
    known = Policy(version=partial)
    rules = replace(known.completeness, partial=partial, planned_tilts=61, stale_seconds=1000.0)
    return replace(known, completeness=rules)


def causes(dataset: Dataset) -> list[str]:
    return [hold.cause for hold in dataset.holds]


def only(bench: Bench) -> Dataset:
    (dataset,) = bench.core.state.datasets.values()
    return dataset


def restarted(bench: Bench) -> Bench:
    """The same state under a new core, which remembers no arrival."""
    after = Bench(*bench.nodes, policy=bench.core.policy)
    after.core = Core(SITE, bench.core.policy, {"simulated": SimulatedPipeline()}, bench.core.state)
    after.now = bench.now
    after.facts = []
    after.core.recover(bench.now)
    after.see_nodes()
    return after


def partial_one(rule: str = "hold", **changes: Any) -> Bench:
    """A series of 41 tilts of 61 that grew no more for long enough."""
    bench = Bench(policy=policy(rule))
    bench.see(sighting("TS", **changes))
    bench.wait(1001.0)
    return bench


# -- partial -----------------------------------------------------------------------------------------------


def test_a_partial_series_is_held_and_told_of_once() -> None:
    bench = partial_one()
    dataset = only(bench)
    assert (dataset.state, causes(dataset)) == (State.ARRIVING, ["partial"])
    assert (dataset.holds[0].origin, dataset.holds[0].detail) == ("policy", "fewer_than_planned: 41 of 61")
    bench.wait(10_000.0)
    bench.see(sighting("TS"))
    assert bench.kinds().count("HoldPlaced") == bench.kinds().count("NoticeDue") == 1
    (notice,) = bench.core.state.notices.values()
    assert "accept or cancel it" in notice.summary


def test_a_partial_series_is_run_where_the_policy_says_so() -> None:
    bench = partial_one("run")
    assert (only(bench).state, only(bench).partial) == (State.RESERVED, True)


def test_a_partial_series_is_dropped_where_the_policy_says_so() -> None:
    bench = partial_one("drop")
    cancelled = next(fact for fact in bench.facts if isinstance(fact, f.DatasetCancelled))
    assert (cancelled.reason, cancelled.by, cancelled.stat_signature) == (
        "partial (fewer_than_planned), dropped by the policy",
        "tiltd",
        "1",
    )
    assert bench.core.state.datasets == {}


@pytest.mark.parametrize("changes", [{"problems": (SHORT,)}, {"blockers": ("openTS",), "series": None}])
def test_what_contradicts_itself_is_never_run_as_it_is(changes: dict[str, Any]) -> None:
    bench = partial_one("run", **{"problems": (SHORT,), **changes})
    assert (only(bench).state, causes(only(bench))) == (State.ARRIVING, ["partial"])
    assert (
        "once its files can be read without contradiction"
        in bench.ask("accept", only(bench).dataset_id).message
    )
    assert only(bench).state is State.ARRIVING


def test_an_accepted_series_runs_at_once_with_the_tilts_it_has() -> None:
    bench = partial_one()
    assert bench.ask("accept", only(bench).dataset_id).message.endswith("accepted with the tilts it has")
    dataset = only(bench)
    assert (dataset.state, dataset.partial, dataset.holds) == (State.RESERVED, True, ())


def test_a_series_that_is_accepted_before_it_is_stale_does_not_wait_for_that() -> None:
    bench = Bench(policy=policy())
    bench.see(sighting("TS"))
    bench.wait(10.0)
    bench.ask("accept", only(bench).dataset_id)
    assert (only(bench).state, only(bench).partial) == (State.RESERVED, True)


def test_what_was_accepted_unread_runs_once_it_can_be_read() -> None:
    bench = Bench(policy=policy())
    bench.see(sighting("TS", "0", series=None))
    bench.ask("accept", only(bench).dataset_id)
    assert only(bench).state is State.ARRIVING
    bench.see(sighting("TS"))
    assert (only(bench).state, only(bench).partial) == (State.RESERVED, True)


def test_a_partial_series_that_grows_again_is_held_no_more() -> None:
    bench = partial_one()
    bench.see(sighting("TS", "2", series=None))
    assert causes(only(bench)) == []
    bench.see(sighting("TS", "3", planned_tilt_count=41))
    bench.wait(301.0)
    assert (only(bench).state, only(bench).partial) == (State.RESERVED, False)


def test_a_restart_forgets_no_partial_hold() -> None:
    after = restarted(partial_one())
    after.see(sighting("TS"))
    assert causes(only(after)) == ["partial"]
    after.wait(1001.0)
    assert causes(only(after)) == ["partial"]
    assert not {"HoldPlaced", "HoldLifted", "NoticeDue"} & set(after.kinds())
    after.see(sighting("TS", "2", series=None))
    assert causes(only(after)) == []


def test_after_a_restart_the_quiet_time_is_counted_afresh() -> None:
    before = Bench()
    before.see(sighting("TS"))
    before.wait(290.0)
    after = restarted(before)
    assert after.core.why(only(after).dataset_id, after.now)[-1].startswith("Its files were not looked at")
    after.see(sighting("TS"))
    after.wait(299.0)
    assert only(after).state is State.ARRIVING
    after.wait(2.0)
    assert only(after).state is State.RESERVED


def test_a_new_policy_judges_what_is_arriving_again() -> None:
    bench = partial_one()
    bench.tell(o.PolicyLoaded, policy=policy("run"), reason="reload")
    assert (only(bench).state, only(bench).partial, causes(only(bench))) == (State.RESERVED, True, [])
    assert bench.kinds().count("PolicyAdopted") == 1


# -- changed after it was complete ---------------------------------------------------------------------------


def revisions(bench: Bench) -> dict[int, Dataset]:
    return {dataset.revision: dataset for dataset in bench.core.state.datasets.values()}


def test_a_ready_series_that_changes_makes_room_for_its_next_revision() -> None:
    bench = Bench(node(state="offline"))
    first = bench.arrive()
    assert bench.of(first).state is State.READY
    step = bench.see(sighting("TS", "2"))
    gone = next(record for record in step.records if record.dataset_id == first)
    assert (gone.state, gone.cancel_reason) == (
        State.CANCELLED,
        "its input was replaced by a new revision (tiltd)",
    )
    assert list(revisions(bench)) == [2]
    assert bench.core.watchlist("a") == {"TS.mrc": revisions(bench)[2].dataset_id}


def test_a_ready_series_whose_files_are_touched_waits_until_they_were_read() -> None:
    bench = Bench(node(state="offline"))
    bench.arrive()
    bench.see(sighting("TS", stat_signature="touched", series=None))
    assert causes(only(bench)) == ["input_changing"]
    bench.see_nodes(node())
    assert only(bench).state is State.READY
    bench.see(sighting("TS", stat_signature="touched"))
    assert (only(bench).state, causes(only(bench))) == (State.RESERVED, [])


@pytest.mark.parametrize("state", [State.RESERVED, State.QUEUED, State.RUNNING])
def test_a_live_attempt_on_replaced_input_is_stopped_and_the_new_revision_begins(state: State) -> None:
    bench = Bench()
    match state:
        case State.RESERVED:
            first = f"{bench.arrive()}.a1"
        case State.QUEUED:
            first = bench.submitted()
        case _:
            first = bench.running()
    assert bench.of(first).state is state
    bench.see(sighting("TS", "2"))
    assert (bench.of(first).stop_requested, bench.of(first).stop_by) == ("superseded", "its input changed")
    assert sorted(revisions(bench)) == [1, 2]
    assert revisions(bench)[2].state is State.ARRIVING
    stops = {"RevokeAttempt"} if state is not State.RUNNING else {"CancelJob"}
    assert stops <= bench.outstanding()
    bench.see(sighting("TS", "2"))
    assert bench.kinds().count("StopRequested") == 1


def test_what_was_superseded_ends_and_the_newer_revision_is_run() -> None:
    bench = Bench()
    first = bench.running()
    bench.see(sighting("TS", "2"))
    bench.end(first, "terminated", "TERM")
    bench.jobs(state=None)
    bench.jobs(state=None)
    bench.release(first)
    assert sorted(revisions(bench)) == [2]
    bench.wait(301.0)
    assert revisions(bench)[2].state is State.RESERVED


def test_a_result_that_is_being_published_is_published_and_the_new_revision_begins() -> None:
    bench = Bench()
    first = bench.running()
    bench.end(first)
    assert bench.of(first).state is State.COLLECTING
    bench.see(sighting("TS", "2"))
    assert bench.of(first).stop_requested is None
    assert sorted(revisions(bench)) == [1, 2]
    bench.tell(o.CollectAnswered, attempt_id=first, result_path="/results/TS", verdict="good")
    delivered = next(fact for fact in bench.facts if isinstance(fact, f.ResultCollected))
    assert delivered.dataset_id == first.partition(".a")[0]


def test_who_cancelled_a_job_is_not_overruled_by_a_change_of_its_input() -> None:
    bench = Bench()
    first = bench.running()
    bench.ask("cancel", bench.of(first).dataset_id)
    bench.see(sighting("TS", "2"))
    assert bench.of(first).stop_requested == "cancel"


def test_the_same_content_under_a_new_time_stamp_changes_nothing() -> None:
    bench = Bench()
    first = bench.running()
    step = bench.see(sighting("TS", stat_signature="touched"))
    assert (step.facts, list(revisions(bench)), bench.of(first).stop_requested) == ((), [1], None)


def test_files_that_change_under_a_running_job_are_no_revision_until_they_were_read() -> None:
    bench = Bench()
    first = bench.running()
    step = bench.see(sighting("TS", "2", series=None))
    assert (step.facts, bench.of(first).stop_requested) == ((), None)
    bench.see(sighting("TS", "2", blockers=("openTS",)))
    assert bench.of(first).stop_requested is None


# -- gone ----------------------------------------------------------------------------------------------------


def test_an_arriving_series_that_is_renamed_for_a_moment_is_not_held() -> None:
    bench = Bench()
    bench.see(sighting("TS"))
    bench.see(gone=("TS.mrc",))
    bench.wait(119.0)
    bench.see(sighting("TS"))
    bench.wait(60.0)
    assert causes(only(bench)) == []
    bench.wait(300.0)
    assert only(bench).state is State.RESERVED


def test_an_arriving_series_that_is_gone_is_not_judged_and_is_held_after_the_grace() -> None:
    bench = Bench()
    bench.see(sighting("TS"))
    bench.wait(250.0)
    bench.see(gone=("TS.mrc",))
    bench.wait(60.0)
    bench.see(gone=("TS.mrc",))  # told again: the grace is counted from the first time
    bench.wait(59.0)
    assert (only(bench).state, causes(only(bench))) == (State.ARRIVING, [])
    bench.wait(2.0)
    assert causes(only(bench)) == ["input_gone"]
    assert "gone from the feed" in " ".join(bench.core.why(only(bench).dataset_id, bench.now))
    bench.see(sighting("TS"))
    assert causes(only(bench)) == []
    bench.wait(301.0)
    assert only(bench).state is State.RESERVED


def test_a_ready_series_that_is_gone_is_held_until_it_is_back() -> None:
    bench = Bench(node(state="offline"))
    bench.arrive()
    bench.see(gone=("TS.mrc",))
    assert causes(only(bench)) == ["input_gone"]
    bench.see_nodes(node())
    assert only(bench).state is State.READY
    bench.see(sighting("TS"))
    assert (only(bench).state, causes(only(bench))) == (State.RESERVED, [])


def test_a_ready_series_that_comes_back_with_other_content_is_a_new_revision() -> None:
    bench = Bench(node(state="offline"))
    bench.arrive()
    bench.see(gone=("TS.mrc",))
    bench.see(sighting("TS", "2"))
    assert list(revisions(bench)) == [2]


def test_the_files_of_a_running_series_may_go() -> None:
    bench = Bench()
    first = bench.running()
    assert bench.see(gone=("TS.mrc",)).facts == ()
    assert bench.of(first).holds == ()


def test_what_is_gone_and_was_no_series_is_forgotten() -> None:
    bench = Bench()
    few = Problem(code="few_sections", detail="it has 2 sections")
    bench.see(sighting("TS", series=None, not_series=few))
    assert KEY in bench.core.arrivals
    bench.see(gone=("TS.mrc", "unheard.mrc"))
    assert bench.core.arrivals == {}
