"""A job whose acceptance nobody heard: the daemon died, or the reply was lost, and the claim told of it."""

from __future__ import annotations

import pytest

from core.scene import Bench
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import JobState, State


def claimed_unheard(bench: Bench) -> str:
    """Reserved; then the spool shows that a job has claimed it."""
    bench.arrive()
    [dataset] = bench.core.state.datasets.values()
    attempt = dataset.attempts[-1]
    bench.tell(
        o.SpoolObserved, attempt_id=attempt.attempt_id, claimed_by="7.torque", claimed_node="n1",
        claimed_at=bench.now,
    )  # fmt: skip
    found = bench.of(attempt.attempt_id)
    assert found.state is State.RUNNING and found.attempts[-1].accepted_at is None
    return attempt.attempt_id


def test_its_absence_is_proved_as_any_others() -> None:
    bench = Bench()
    attempt = claimed_unheard(bench)
    bench.wait(10.0)
    bench.jobs(None)
    bench.wait(10.0)
    bench.jobs(None)
    bench.wait(91.0)
    failure = bench.of(attempt).failure
    assert failure is not None and failure.reason == "no_word"


def test_an_answer_from_before_its_claim_proves_nothing() -> None:
    bench = Bench()
    attempt = claimed_unheard(bench)
    for _ in range(3):
        bench.tell(o.JobsObserved, jobs=(), complete=True, asked_at=bench.now - 5.0)
    bench.wait(100.0)
    assert bench.of(attempt).state is State.RUNNING


@pytest.mark.parametrize(("start_count", "waits"), [(1, False), (2, True)])
def test_a_kill_may_be_of_a_start_before_the_last(start_count: int, waits: bool) -> None:
    """Requeued and done between two looks: what is known is the kill, and the job completed."""
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "terminated", "killed")
    bench.jobs(JobState.COMPLETED, start_count=start_count, exit_status=0)
    assert (bench.of(attempt).state is State.RUNNING) == waits
    if waits:
        bench.end(attempt)
        assert bench.of(attempt).state is State.COLLECTING


def test_no_word_within_the_grace_leaves_the_kill_as_the_last() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "terminated", "killed")
    bench.jobs(JobState.COMPLETED, start_count=2, exit_status=271)
    bench.wait(91.0)
    failure = bench.of(attempt).failure
    assert failure is not None and failure.failure_class == "killed"
