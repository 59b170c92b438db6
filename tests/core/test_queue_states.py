"""States of a batch system's queue, late witnesses, and nodes out of reach."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from core.scene import Bench, node
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import JobState, LimitPolicy, Policy
from tiltd.daemon.core.site import Site


def queueing(bench: Bench) -> Bench:
    """As with a resource manager that has a queue of its own."""
    bench.core.desk.site = Site(feeds=bench.core.desk.site.feeds, queues=True)
    return bench


def notices(bench: Bench) -> list[str]:
    return [fact.notice.event for fact in bench.facts if isinstance(fact, f.NoticeDue)]


# -- held, suspended, unknown --------------------------------------------------------------------------


def test_a_job_held_before_it_ran_waits_and_a_person_is_told_once() -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(JobState.HELD, comment="System hold")
    bench.jobs(JobState.HELD, comment="System hold")
    assert bench.of(attempt).state == "queued"
    assert notices(bench) == ["job_held"]
    assert any("holds its job" in line for line in bench.core.why(bench.of(attempt).dataset_id, bench.now))
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="job", claimed_at=bench.now)
    bench.end(attempt)
    assert bench.of(attempt).state == "collecting"


def test_a_running_job_that_is_held_was_requeued() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.jobs(JobState.RUNNING)
    bench.jobs(JobState.HELD)
    assert bench.of(attempt).state == "queued"


def test_a_requeue_is_seen_though_the_job_was_never_listed_running() -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(JobState.QUEUED)
    bench.now += 5.0
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="job", claimed_at=bench.now)
    assert bench.of(attempt).state == "running"
    bench.jobs(JobState.QUEUED)
    assert bench.of(attempt).state == "queued"


def test_the_time_that_a_job_is_suspended_does_not_count_towards_its_deadline() -> None:
    bench = Bench()
    attempt = bench.running()
    limit = bench.of(attempt).attempts[-1].placement.walltime_seconds + 600.0
    bench.wait(limit - 100.0)
    bench.jobs(JobState.SUSPENDED)
    bench.wait(3600.0)
    assert bench.of(attempt).stop_requested is None
    bench.jobs(JobState.RUNNING)
    bench.wait(50.0)
    assert bench.of(attempt).stop_requested is None
    bench.wait(60.0)
    assert bench.of(attempt).stop_requested == "deadline"


@pytest.mark.parametrize("state", [JobState.UNKNOWN, JobState.SUSPENDED, JobState.HELD, JobState.QUEUED])
def test_no_state_but_completed_ends_a_job(state: JobState) -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(state, exit_status=0, native_state="?")
    bench.wait(500.0)
    assert bench.of(attempt).live_attempt is not None
    assert "AttemptFailed" not in bench.kinds()


def test_jobs_are_counted_by_the_state_they_are_listed_in() -> None:
    bench = Bench(node("n1"), node("n2"))
    bench.submitted("A")
    bench.jobs(JobState.HELD)
    bench.arrive("B")
    assert bench.core.following.listed_states() == {"held": 1, "unlisted": 1}


# -- late and missing witnesses --------------------------------------------------------------------------


def test_a_success_marker_that_nfs_shows_a_minute_late_is_waited_for() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.jobs(JobState.COMPLETED, exit_status=0)
    bench.wait(60.0)
    assert bench.of(attempt).state == "running"
    bench.end(attempt)
    assert bench.of(attempt).state == "collecting"


def test_a_claim_and_its_success_that_both_come_a_minute_late_cost_nothing() -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(JobState.RUNNING, exec_host=("n1",))
    bench.jobs(JobState.COMPLETED, exit_status=0)
    bench.wait(60.0)
    assert bench.of(attempt).state == "running"
    bench.end(attempt)
    assert (bench.of(attempt).state, bench.of(attempt).attempts_spent) == ("collecting", 0)


def test_exit_status_0_without_a_marker_is_a_failure_after_the_grace() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.jobs(JobState.COMPLETED, exit_status=0)
    bench.wait(91.0)
    failed = next(fact for fact in bench.facts if isinstance(fact, f.AttemptFailed))
    assert (failed.failure.failure_class, failed.failure.reason) == ("lost", "no_word")
    assert attempt == failed.attempt_id


@pytest.mark.parametrize(("ending", "failure_class"), [("walltime", "walltime"), ("memory", "memory")])
def test_without_a_word_from_the_runner_the_resource_managers_counts(ending: str, failure_class: str) -> None:
    bench = Bench()
    bench.running()
    bench.jobs(JobState.COMPLETED, exit_status=-11, ending=ending)
    bench.wait(91.0)
    failed = next(fact for fact in bench.facts if isinstance(fact, f.AttemptFailed))
    assert failed.failure.failure_class == failure_class


@pytest.mark.parametrize("listed_running", [False, True])
def test_a_job_that_fails_before_its_runner_can_claim_is_a_failure_and_not_tried_for_ever(
    listed_running: bool,
) -> None:
    bench = Bench()
    for number in (1, 2, 3):
        dataset_id = bench.arrive() if number == 1 else "TS-c46098f8.1.1"
        attempt = f"{dataset_id}.a{number}"
        bench.tell(o.SubmitAnswered, attempt_id=attempt, job_id="job")
        if listed_running:
            bench.jobs(JobState.RUNNING)
        bench.jobs(JobState.COMPLETED, exit_status=127)
        bench.wait(91.0)
        if not listed_running:
            bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
        bench.release(attempt)
        bench.wait(4000.0)
    failures = [fact.failure for fact in bench.facts if isinstance(fact, f.AttemptFailed)]
    assert {(one.failure_class, one.reason, one.spent) for one in failures} == {
        ("environment", "never_claimed", True)
    }
    assert "exit status 127" in failures[0].detail
    assert len(failures) == 3
    assert dataset_id not in bench.core.state.datasets, "it failed for good"


def test_jobs_that_end_well_before_they_claim_are_failures_too_and_three_of_them_open_a_breaker() -> None:
    """A mom that starts nothing and reports 0 would otherwise be given a job every five seconds, for ever."""
    bench = Bench(node("n1", cores=64))
    for name in ("A", "B", "C"):
        attempt = bench.submitted(name)
        bench.jobs(JobState.COMPLETED, exit_status=0)
        assert bench.of(attempt).stop_requested == "replace"
        bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
        bench.release(attempt)
        assert bench.of(attempt).state == "ready"
        assert bench.of(attempt).attempts_spent == 1
    failures = [fact.failure for fact in bench.facts if isinstance(fact, f.AttemptFailed)]
    assert [(one.failure_class, one.reason) for one in failures] == [("environment", "never_claimed")] * 3
    assert "node:n1" in [fact.scope for fact in bench.facts if isinstance(fact, f.BreakerOpened)]


def test_a_job_that_lost_to_our_own_revocation_is_no_failure_though_it_ends_with_0() -> None:
    bench = Bench()
    dataset_id = bench.arrive()
    attempt = f"{dataset_id}.a1"
    bench.tell(o.SubmitAnswered, attempt_id=attempt, trouble="no answer", unknown=True)
    bench.tell(o.SubmitAnswered, attempt_id=attempt, trouble="not there", unknown=True, absent=True)
    bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
    assert "AttemptFailed" not in bench.kinds()


def test_a_queued_job_that_someone_deleted_is_placed_anew() -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(JobState.COMPLETED, ending="deleted")
    bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
    assert "AttemptFailed" not in bench.kinds()
    assert bench.of(attempt).attempts_spent == 0


def test_a_submission_that_is_not_there_long_after_is_revoked_before_anything_is_placed_anew() -> None:
    bench = Bench()
    dataset_id = bench.arrive()
    attempt = f"{dataset_id}.a1"
    bench.tell(o.SubmitAnswered, attempt_id=attempt, trouble="no answer", unknown=True)
    assert bench.outstanding() == {"SubmitJob"}
    bench.tell(o.SubmitAnswered, attempt_id=attempt, trouble="not there", unknown=True, absent=True)
    assert bench.outstanding() == {"RevokeAttempt"}
    bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
    bench.release(attempt)
    assert [a.revoked for a in bench.of(dataset_id).attempts] == [True, False]


def test_a_list_that_forgets_jobs_too_soon_is_told_once() -> None:
    bench = queueing(Bench(node("n1"), node("n2")))
    for name in ("A", "B"):
        bench.running(name)
    bench.jobs(JobState.RUNNING)
    bench.jobs(None)
    bench.jobs(None)
    assert bench.core.following.forgotten == 2
    assert notices(bench).count("jobs_forgotten") == 1


def test_a_job_that_was_shown_completed_may_be_forgotten() -> None:
    bench = queueing(Bench())
    bench.running()
    bench.jobs(JobState.COMPLETED)
    bench.jobs(None)
    assert bench.core.following.forgotten == 0


# -- nodes out of reach -------------------------------------------------------------------------------------


def fenced(bench: Bench) -> str:
    attempt = bench.running()
    down = replace(node("n1", at=bench.now), state="down")
    bench.see_nodes(down, node("n2", cores=1))
    bench.wait(1801.0)
    assert "FenceAttempt" in bench.outstanding()
    bench.tell(o.FenceAnswered, attempt_id=attempt)
    return attempt


def test_what_a_fenced_attempt_booked_stays_until_its_node_is_seen_again() -> None:
    bench = Bench(node("n1"), node("n2", cores=1))
    attempt = fenced(bench)
    bench.release(attempt)
    assert bench.core.state.ledger.reserved_bytes("n1") > 0, "nothing is known of the node"
    bench.see_nodes(node("n1", at=bench.now), node("n2", cores=1))
    bench.wait(1.0)
    bench.release(attempt)
    assert bench.core.state.ledger.booked.get(attempt) is None


def test_scratch_is_asked_for_again_as_soon_as_its_node_is_back() -> None:
    bench = Bench(node("n1"), node("n2", cores=1))
    attempt = fenced(bench)
    for _ in range(8):
        bench.tell(o.ReleaseAnswered, attempt_id=attempt, node="n1", trouble="n1 is down")
        bench.wait(299.0)
    bench.tell(o.ReleaseAnswered, attempt_id=attempt, node="n1", trouble="n1 is down")
    bench.effects.clear()
    bench.wait(10.0)
    assert not any(isinstance(effect, e.ReleaseScratch) for effect in bench.effects)
    bench.see_nodes(node("n1", at=bench.now), node("n2", cores=1))
    assert [x.node for x in bench.effects if isinstance(x, e.ReleaseScratch)] == ["n1"]


def test_a_series_on_a_node_that_died_runs_elsewhere_half_an_hour_later() -> None:
    bench = Bench(node("n1"), node("n2", cores=1))
    attempt = fenced(bench)
    bench.wait(120.0)
    last = bench.of(attempt).attempts[-1]
    assert (last.number, last.placement.nodes) == (2, ("n2",))
    assert bench.of(attempt).attempts[0].fenced


# -- caps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (LimitPolicy(per_feed_max=1), "limits.per_feed_max"),
        (LimitPolicy(per_queue_max=1), "limits.per_queue_max"),
    ],
)
def test_caps_by_feed_and_by_queue(limits: LimitPolicy, said: str) -> None:
    bench = Bench(node("n1"), node("n2"), policy=Policy(version="test", limits=limits))
    first = bench.running("A")
    second = bench.arrive("B")
    assert bench.of(second).state == "ready"
    assert any(said in line for line in bench.core.why(second, bench.now))
    bench.end(first)
    bench.tell(
        o.CollectAnswered, attempt_id=first, result_path="/r", verdict="good", quality={}, result_bytes=1
    )
    bench.release(first)
    assert bench.of(second).state == "reserved"


def test_a_cap_of_one_feed_leaves_the_other_alone() -> None:
    limits = LimitPolicy(per_feed_max=1)
    bench = Bench(node("n1"), node("n2"), policy=Policy(version="test", limits=limits))
    bench.running("A", feed="a")
    assert bench.of(bench.arrive("B", feed="b")).state == "reserved"


def test_where_jobs_queue_their_runners_take_turns_at_staging_in_and_placing_does_not_wait() -> None:
    policy = Policy(version="test", limits=LimitPolicy(stage_ins_max=1))
    bench = Bench(node("n1"), node("n2"), policy=policy)
    bench.submitted("A")
    assert bench.of(bench.arrive("B")).state == "ready"
    bench = queueing(Bench(node("n1"), node("n2"), policy=policy))
    bench.submitted("A")
    assert bench.of(bench.arrive("B")).state == "reserved"
