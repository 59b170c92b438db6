"""What is booked on a node, by whom, and what of it has leaked."""

from __future__ import annotations

from core.scene import Bench, node
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.bookings import bookings, leaked_bytes
from tiltd.daemon.core.model import JobState


def plights(bench: Bench) -> dict[str, str]:
    state = bench.core.state
    found = bookings("n1", state.ledger, state.datasets)
    return {booking.attempt_id: booking.plight for booking in found}


def test_a_running_attempt_is_live_and_told_by_name() -> None:
    bench = Bench()
    attempt = bench.running()
    [booking] = bookings("n1", bench.core.state.ledger, bench.core.state.datasets)
    assert (booking.attempt_id, booking.name, booking.plight) == (attempt, "TS", "live")
    assert booking.scratch_bytes == bench.core.state.ledger.reserved_bytes("n1") > 0
    assert bookings("n2", bench.core.state.ledger, bench.core.state.datasets) == []


def test_what_nobody_could_clean_yet_has_leaked_and_says_why() -> None:
    bench = Bench(node("n1"), node("n2"))
    attempt = bench.running()
    bench.jobs(JobState.COMPLETED, exit_status=1)
    bench.wait(91.0)
    bench.tell(o.ReleaseAnswered, attempt_id=attempt, node="n1", trouble="n1 is down")
    assert plights(bench)[attempt] == "leaked"
    state = bench.core.state
    assert leaked_bytes("n1", state.ledger, state.datasets) == state.ledger.of("n1")[attempt].reserved_bytes
    assert bench.core.release_troubles(attempt, "n1") == ["n1 is down"]
    assert bench.core.release_troubles(attempt, "n2") == []
    bench.release(attempt)
    assert attempt not in plights(bench)


def test_a_result_that_waits_to_be_rescued_has_not_leaked() -> None:
    bench = Bench()
    attempt = bench.running()
    bench.end(attempt, "stranded", "no space", stranded_path="/scratch/x")
    bench.jobs(JobState.COMPLETED, exit_status=0)
    assert plights(bench)[attempt] == "to be rescued"
    state = bench.core.state
    assert leaked_bytes("n1", state.ledger, state.datasets) == 0
