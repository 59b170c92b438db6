"""Every way in which a job can end, and each mistake known of resource managers and of programs like ours."""

from __future__ import annotations

import pytest

from core.scene import SITE, Bench, SimulatedPipeline, node
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import JobState, State


def test_success_by_marker() -> None:
    bench = Bench()
    attempt = bench.running()
    assert bench.of(attempt).state is State.RUNNING
    bench.end(attempt)
    assert bench.of(attempt).state is State.COLLECTING
    assert bench.outstanding() == {"CollectResult", "ReleaseScratch"}


def test_unlisted_once_is_a_hint() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.jobs(None)
    bench.wait(200.0)
    assert bench.of(attempt).state is State.RUNNING
    bench.jobs(None)
    assert bench.of(attempt).state is State.RUNNING, "the marker has its grace"
    bench.wait(91.0)
    assert bench.of(attempt).state is State.READY
    assert bench.of(attempt).failure is not None
    assert bench.of(attempt).failure.reason == "no_word"


def test_incomplete_answers_prove_nothing() -> None:
    bench = Bench()
    attempt = bench.running()
    for _ in range(5):
        bench.jobs(None, complete=False)
    bench.wait(1000.0)
    assert bench.of(attempt).state is State.RUNNING


def test_an_answer_asked_before_the_job_was_accepted_proves_nothing() -> None:
    bench = Bench()
    attempt = bench.submitted()
    for _ in range(3):
        bench.tell(o.JobsObserved, jobs=(), complete=True, asked_at=bench.now - 5.0)
    assert bench.of(attempt).stop_requested is None


@pytest.mark.parametrize("status", [0, 271])
def test_an_end_without_a_marker_is_no_success(status: int) -> None:
    bench = Bench()
    attempt = bench.running()
    bench.jobs(JobState.COMPLETED, exit_status=status)
    bench.wait(89.0)
    assert bench.of(attempt).state is State.RUNNING
    bench.wait(2.0)
    assert bench.of(attempt).failure is not None
    assert bench.of(attempt).failure.failure_class == "lost"
    assert f"exit status {status}" in bench.of(attempt).failure.detail


def test_a_marker_that_is_late_within_the_grace() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.jobs(JobState.COMPLETED, exit_status=0)
    bench.wait(60.0)
    bench.end(attempt)
    assert bench.of(attempt).state is State.COLLECTING


def test_another_end_is_a_hint_until_the_job_is_listed_as_ended() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "failed", "program")
    assert bench.of(attempt).state is State.RUNNING
    bench.jobs(JobState.COMPLETED)
    assert bench.of(attempt).state is State.READY
    assert bench.of(attempt).attempts_spent == 1


def test_requeued_and_successful() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "terminated", "killed")
    bench.jobs(JobState.QUEUED)
    assert bench.of(attempt).state is State.QUEUED
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="job", claimed_at=bench.now)
    assert bench.of(attempt).state is State.RUNNING
    bench.end(attempt)
    assert bench.of(attempt).state is State.COLLECTING


def test_an_old_list_is_no_requeue() -> None:
    bench = Bench()
    attempt = bench.submitted()
    asked_at = bench.now
    bench.now += 5.0
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="job", claimed_at=bench.now)
    job = o.Job(job_id="job", job_name="", owner="", state=JobState.QUEUED)
    bench.tell(o.JobsObserved, jobs=(job,), complete=True, asked_at=asked_at)
    assert bench.of(attempt).state is State.RUNNING


def test_of_two_jobs_the_one_that_claimed_counts() -> None:
    bench = Bench()
    dataset_id = bench.arrive()
    attempt = f"{dataset_id}.a1"
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="second", claimed_at=bench.now)
    bench.tell(o.SubmitAnswered, attempt_id=attempt, job_id="first")
    assert bench.of(attempt).attempts[0].job_id == "second"
    bench.jobs(JobState.COMPLETED, job_id="first")
    bench.jobs(JobState.RUNNING, job_id="second")
    bench.wait(200.0)
    assert bench.of(attempt).state is State.RUNNING


def test_the_other_job_ends_before_the_claim_is_seen() -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(JobState.COMPLETED)
    assert bench.of(attempt).stop_requested == "replace"
    bench.tell(o.RevokeAnswered, attempt_id=attempt, claimed_by="second")
    bench.wait(300.0)
    assert bench.of(attempt).state is State.RUNNING
    assert bench.of(attempt).stop_requested is None, "a claim beats a replace"


def test_jobs_that_vanish_before_they_claim_are_revoked_and_placed_anew_after_growing_pauses() -> None:
    bench = Bench()
    attempt, pauses = bench.submitted(), []
    for number in range(2, 6):
        bench.jobs(None)
        bench.jobs(None)
        assert "RevokeAttempt" in bench.outstanding()
        bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
        bench.release(attempt)
        revoked_at = bench.now
        assert bench.of(attempt).state is State.READY
        while bench.of(attempt).state is State.READY:
            bench.wait(10.0)
        pauses.append(bench.now - revoked_at)
        attempt = attempt.rpartition(".a")[0] + f".a{number}"
        bench.tell(o.SubmitAnswered, attempt_id=attempt, job_id="job")
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10 * pauses[0] > 500.0
    now = bench.of(attempt)
    assert [a.revoked for a in now.attempts] == [True] * 4 + [False]
    assert now.attempts_spent == 0


def test_shown_running_though_the_revocation_won() -> None:
    bench = Bench()
    attempt = bench.submitted()
    bench.jobs(None)
    bench.jobs(None)
    bench.jobs(JobState.RUNNING)
    assert bench.of(attempt).state is State.RUNNING
    bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
    assert bench.of(attempt).attempts[0].ended_at is not None


def test_lost_node_and_fence() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.see_nodes(node("n1", at=bench.now, state="down"))
    bench.wait(1799.0)
    assert bench.of(attempt).state is State.RUNNING
    bench.wait(3.0)
    assert bench.outstanding() == {"FenceAttempt"}
    bench.tell(o.FenceAnswered, attempt_id=attempt)
    now = bench.of(attempt)
    assert now.state is State.READY
    assert now.attempts[0].fenced
    assert now.failure is not None
    assert now.failure.reason == "node_lost"
    bench.end(attempt)
    assert bench.of(attempt).state is State.READY, "what comes back late publishes nothing"


def test_cancelled_on_a_lost_node_is_cancelled() -> None:
    bench = Bench()
    attempt = bench.running()
    assert bench.ask("cancel", bench.of(attempt).dataset_id).ok
    bench.see_nodes(node("n1", at=bench.now, state="down"))
    bench.wait(1802.0)
    assert bench.outstanding() == {"FenceAttempt"}
    bench.tell(o.FenceAnswered, attempt_id=attempt)
    assert bench.of(attempt).state is State.CANCELLED


def test_far_beyond_its_walltime() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.wait(bench.of(attempt).attempts[0].placement.walltime_seconds + 599.0)
    assert bench.of(attempt).stop_requested is None
    bench.wait(2.0)
    assert bench.of(attempt).stop_requested == "deadline"
    assert bench.outstanding() == {"CancelJob"}
    bench.jobs(JobState.COMPLETED)
    bench.wait(91.0)
    assert bench.of(attempt).failure is not None
    assert bench.of(attempt).failure.failure_class == "walltime"


def test_a_success_that_beats_a_cancel_is_delivered() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.ask("cancel", bench.of(attempt).dataset_id)
    bench.end(attempt)
    bench.tell(o.CollectAnswered, attempt_id=attempt, result_path="/r", verdict="good")
    assert bench.of(attempt).state is State.DELIVERED


def test_a_cancel_while_it_is_published_waits_for_the_answer() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt)
    assert "being published" in bench.ask("cancel", bench.of(attempt).dataset_id).message
    assert bench.of(attempt).state is State.COLLECTING
    bench.tell(o.CollectAnswered, attempt_id=attempt, trouble="the destination is full")
    assert bench.of(attempt).state is State.CANCELLED


def test_stranded_and_rescued() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "stranded", "destination", stranded_path="/scratch/x")
    bench.jobs(JobState.COMPLETED)
    assert bench.of(attempt).rescue == attempt
    assert bench.outstanding() == set(), "its scratch is kept"
    bench.wait(61.0)
    rescue = bench.of(attempt).attempts[-1]
    assert (rescue.kind, rescue.placement.nodes, rescue.rescue_path) == ("rescue", ("n1",), "/scratch/x")
    bench.tell(o.SpoolObserved, attempt_id=rescue.attempt_id, claimed_by="r", claimed_at=bench.now)
    bench.end(rescue.attempt_id)
    bench.tell(o.CollectAnswered, attempt_id=rescue.attempt_id, result_path="/r", verdict="good")
    bench.release(attempt)
    bench.release(rescue.attempt_id)
    assert not bench.core.state.datasets
    assert not bench.core.state.ledger.booked


def test_cancelled_while_stranded_gives_the_scratch_back() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "stranded", "destination", stranded_path="/scratch/x")
    bench.jobs(JobState.COMPLETED)
    bench.ask("cancel", bench.of(attempt).dataset_id)
    assert bench.outstanding() == {"ReleaseScratch"}
    bench.release(attempt)
    assert not bench.core.state.datasets


def test_files_found_changed_and_as_recorded_again() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "input_changed")
    bench.jobs(JobState.COMPLETED)
    assert bench.of(attempt).hold("input_changing") is not None
    bench.release(attempt)
    bench.wait(61.0)
    assert bench.of(attempt).holds == ()
    assert bench.of(attempt).state is State.RESERVED


def test_scratch_short_spends_no_attempt() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "scratch_short")
    bench.jobs(JobState.COMPLETED)
    assert bench.of(attempt).attempts_spent == 0
    assert bench.of(attempt).excluded_nodes == ("n1",)


def test_answers_of_what_is_gone_change_nothing() -> None:
    bench = Bench()
    known = len(bench.facts)
    bench.tell(o.SubmitAnswered, attempt_id="x.1.1.a1", job_id="1")
    bench.tell(o.CollectAnswered, attempt_id="x.1.1.a1", result_path="/r")
    bench.tell(o.RevokeAnswered, attempt_id="x.1.1.a1", revoked=True)
    bench.tell(o.FenceAnswered, attempt_id="x.1.1.a1")
    bench.tell(o.ReleaseAnswered, attempt_id="x.1.1.a1", node="n1")
    bench.tell(o.NoticeAnswered, notice_id="x")
    bench.tell(o.ImportAnswered, dataset_id="x", path="/y")
    bench.end("x.1.1.a1")
    assert len(bench.facts) == known
    assert not bench.core.following.seen


def test_who_came_and_who_went_is_told_once() -> None:
    """Whoever looks at the spool keeps the others: one that is not told is looked at by nobody."""
    bench = Bench()
    attempt = bench.running()
    following = bench.core.following
    assert following.live_changes() == ([attempt], [])
    assert following.live_changes() == ([], [])
    bench.end(attempt, "failed", exit_status=1)
    bench.jobs(JobState.COMPLETED)
    bench.wait(2.0)
    bench.release(attempt)
    bench.wait(1000.0)
    came, gone = following.live_changes()
    assert gone == [attempt] and came == list(following.live()) == [attempt.replace(".a1", ".a2")]
    again = Core(SITE, bench.core.policy, {"simulated": SimulatedPipeline()}, bench.core.state)
    again.recover(bench.now)
    assert again.following.live_changes() == (came, []), "after a restart all are news"


def test_where_nobody_asks_who_came_and_went_nothing_gathers() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "failed", exit_status=1)
    bench.jobs(JobState.COMPLETED)
    bench.wait(2.0)
    bench.release(attempt)
    bench.wait(1000.0)
    (second,) = bench.core.following.live()
    assert attempt != second
    assert bench.core.following.live_changes() == ([second], [])
