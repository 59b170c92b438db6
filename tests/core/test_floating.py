"""Jobs whose node the resource manager chooses: the booking follows to where they start."""

from __future__ import annotations

from core.scene import GB, Bench, node
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import JobState, Policy, Progress, RunEnd
from tiltd.daemon.core.model.policy import PlacementPolicy, ResourcePolicy, RetryPolicy
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.simulate.check import check


def shared(*names: str) -> Bench:
    return Bench(*(node(name, floating=True) for name in names or ("n1", "n2")))


def booked(bench: Bench, attempt: str) -> tuple[str, ...]:
    return tuple(sorted(bench.core.state.ledger.booked.get(attempt, ())))


def claim(bench: Bench, attempt: str, host: str) -> None:
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="job", claimed_node=host, claimed_at=bench.now)


def replayed(bench: Bench) -> CoreState:
    state = CoreState()
    for fact in bench.facts:
        state.apply(fact)
    return state


def test_a_job_on_nodes_that_others_use_too_floats_and_on_our_own_it_is_pinned() -> None:
    bench = shared()
    assert bench.of(bench.submitted()).attempts[-1].placement.mode == "floating"
    bench = Bench(node("n1"))
    assert bench.of(bench.submitted()).attempts[-1].placement.mode == "pinned"


def test_the_booking_follows_to_the_node_that_the_runner_names() -> None:
    bench = shared()
    attempt = bench.submitted()
    assert booked(bench, attempt) == ("n1",)
    claim(bench, attempt, "n2.cluster.example")
    assert booked(bench, attempt) == ("n2",)
    assert bench.of(attempt).attempts[-1].nodes == ("n2",)
    assert bench.core.state.ledger.reserved_bytes("n1") == 0
    check(bench.core)
    assert replayed(bench) == bench.core.state


def test_the_booking_follows_to_the_exec_host_where_no_claim_is_seen_yet() -> None:
    bench = shared()
    attempt = bench.submitted()
    bench.jobs(JobState.RUNNING, exec_host=("n2",))
    assert booked(bench, attempt) == ("n2",)
    claim(bench, attempt, "n2")
    assert [type(fact) for fact in bench.facts].count(f.JobStarted) == 1


def test_the_node_that_was_booked_has_room_again_once_the_job_runs_elsewhere() -> None:
    bench = Bench(node("n1", floating=True), node("n2", floating=True, state="down"))
    first = bench.submitted("A")
    second = bench.arrive("B")
    assert (booked(bench, first), bench.of(second).state) == (("n1",), "ready")
    claim(bench, first, "n2")
    assert booked(bench, first) == ("n2",)
    assert booked(bench, f"{second}.a1") == ("n1",)
    check(bench.core)


def test_a_host_that_is_no_node_of_ours_changes_nothing() -> None:
    bench = Bench(node("here"))
    attempt = bench.submitted()
    claim(bench, attempt, "microscope-7")
    assert booked(bench, attempt) == ("here",)
    assert bench.of(attempt).attempts[-1].nodes == ("here",)


def test_too_little_scratch_where_it_was_sent_spends_no_attempt_and_pins_it_elsewhere() -> None:
    bench = shared()
    attempt = bench.submitted()
    claim(bench, attempt, "n2")
    bench.end(attempt, "scratch_short", "scratch")
    bench.jobs(JobState.COMPLETED, exit_status=75)
    bench.release(attempt, "n2")
    bench.wait(300.0)
    dataset = bench.of(attempt)
    assert dataset.attempts_spent == 0
    assert dataset.attempts[-1].number == 2
    assert dataset.attempts[-1].placement.mode == "pinned"
    assert dataset.attempts[-1].placement.nodes == ("n1",), "n2 had too little"


def test_it_is_pinned_after_that_though_no_node_is_left_out() -> None:
    policy = Policy(version="test", retry=RetryPolicy(other_node=()))
    bench = Bench(node("n1", floating=True), node("n2", floating=True), policy=policy)
    attempt = bench.submitted()
    claim(bench, attempt, "n2")
    bench.end(attempt, "scratch_short", "scratch")
    bench.jobs(JobState.COMPLETED, exit_status=75)
    bench.wait(300.0)
    assert bench.of(attempt).excluded_nodes == ()
    assert bench.of(attempt).attempts[-1].placement.mode == "pinned"


def test_what_a_requeued_job_left_stays_booked_until_it_is_over() -> None:
    bench = shared()
    attempt = bench.submitted()
    claim(bench, attempt, "n1")
    bench.jobs(JobState.QUEUED)
    assert bench.of(attempt).state == "queued"
    assert booked(bench, attempt) == ("n1",)
    bench.jobs(JobState.RUNNING, exec_host=("n2",))
    assert booked(bench, attempt) == ("n1", "n2")
    check(bench.core)
    bench.tell(
        o.SpoolObserved,
        attempt_id=attempt,
        claimed_by="job",
        end=RunEnd(job_id="job", nonce="", outcome="success", ended_at=bench.now, node="n2"),
    )
    assert bench.of(attempt).state == "collecting"
    released = {e.node for e in bench.core.outstanding() if type(e).__name__ == "ReleaseScratch"}
    assert released == {"n1", "n2"}
    assert replayed(bench) == bench.core.state


def test_a_job_that_is_listed_on_another_node_was_started_anew() -> None:
    bench = shared()
    attempt = bench.submitted()
    bench.jobs(JobState.RUNNING, exec_host=("n1",))
    claim(bench, attempt, "n1")
    bench.jobs(JobState.RUNNING, exec_host=("n2",), start_count=2)
    assert bench.of(attempt).state == "running"
    assert bench.of(attempt).attempts[-1].nodes == ("n2",)
    assert [type(fact) for fact in bench.facts].count(f.JobRequeued) == 1
    bench.jobs(JobState.RUNNING, exec_host=("n2",), start_count=2)
    assert [type(fact) for fact in bench.facts].count(f.JobRequeued) == 1, "told once"


def test_a_job_that_waits_for_its_node_goes_to_another_that_could_run_it_now() -> None:
    bench = Bench(node("n1", cores=8), node("n2", cores=16))  # n1 is better, and has room for another
    attempt = bench.submitted()
    bench.jobs(JobState.QUEUED)
    bench.wait(598.0)
    assert bench.of(attempt).stop_requested is None
    bench.wait(2.0)
    assert bench.of(attempt).stop_requested == "replace"
    bench.tell(o.RevokeAnswered, attempt_id=attempt, revoked=True)
    dataset = bench.of(attempt)
    assert dataset.attempts[-1].placement.nodes == ("n2",)
    assert dataset.attempts_spent == 0


def test_it_stays_where_it_is_while_no_other_node_could_run_it() -> None:
    bench = Bench(node("n1"), node("n2", state="down"))
    attempt = bench.submitted()
    bench.jobs(JobState.QUEUED)
    bench.wait(3600.0)
    assert bench.of(attempt).stop_requested is None
    bench.see_nodes(node("n1"), node("n2"))
    bench.wait(61.0)
    assert bench.of(attempt).stop_requested == "replace"


def test_a_job_that_floats_is_left_to_the_resource_manager() -> None:
    bench = shared()
    attempt = bench.submitted()
    bench.jobs(JobState.QUEUED)
    bench.wait(7200.0)
    assert bench.of(attempt).stop_requested is None


def test_moving_can_be_switched_off() -> None:
    policy = Policy(version="test", placement=PlacementPolicy(move_after_seconds=0.0))
    bench = Bench(node("n1"), node("n2"), policy=policy)
    attempt = bench.submitted()
    bench.jobs(JobState.QUEUED)
    bench.wait(7200.0)
    assert bench.of(attempt).stop_requested is None


def test_the_ballast_of_a_job_over_two_nodes_stands_on_the_one_that_its_runner_names() -> None:
    policy = Policy(version="test", resources=ResourcePolicy(nodes=2))
    bench = Bench(node("n1"), node("n2"), policy=policy)
    attempt = bench.submitted()
    assert booked(bench, attempt) == ("n1", "n2")
    claim(bench, attempt, "n1")
    bench.jobs(JobState.RUNNING, exec_host=("n1", "n2"))
    progress = Progress(phase="scratch", at=bench.now, node="n1.cluster.example")
    bench.tell(o.SpoolObserved, attempt_id=attempt, claimed_by="job", progress=progress)
    bench.now += 10.0
    taken = bench.core.state.ledger.reserved_bytes("n1")
    left = 200 * GB - taken
    bench.see_nodes(*(node(name, scratch_free_bytes=left) for name in ("n1", "n2")))
    ledger, nodes = bench.core.state.ledger, bench.core.nodes
    assert ledger.free(nodes["n1"]).scratch_bytes == left, "what is missing there is its ballast"
    assert ledger.free(nodes["n2"]).scratch_bytes == left - taken, "here others have taken it"


def test_a_job_over_two_nodes_is_pinned_and_its_scratch_is_booked_on_each_until_each_is_given_back() -> None:
    policy = Policy(version="test", resources=ResourcePolicy(nodes=2))
    nodes = [node(name, floating=True, cores=64, scratch_total_bytes=18 * GB, scratch_free_bytes=18 * GB)
             for name in ("n1", "n2")]  # fmt: skip
    bench = Bench(*nodes, policy=policy)
    attempt = bench.submitted("A")
    placement = bench.of(attempt).attempts[-1].placement
    assert (placement.mode, placement.nodes) == ("pinned", ("n1", "n2"))
    ledger = bench.core.state.ledger
    assert {ledger.reserved_bytes(name) for name in ("n1", "n2")} == {placement.scratch_bytes}
    claim(bench, attempt, "n1")
    waiting = bench.arrive("B")
    assert bench.of(waiting).state == "ready"
    found = bench.core.blocked_by(waiting)
    assert found is not None and found.rejected == {"scratch": 2}, "not on the second node either"
    bench.end(attempt)
    bench.tell(o.CollectAnswered, attempt_id=attempt, result_path="/results/A", verdict="good")
    bench.release(attempt, "n1")
    assert bench.of(waiting).state == "ready" and booked(bench, attempt) == ("n2",)
    bench.release(attempt, "n2")
    assert bench.of(waiting).state == "reserved"
    check(bench.core)
