"""Who is placed when: fairness, the aged head's node, limits, the destination's space, breakers."""

from __future__ import annotations

from msgspec.structs import replace

from core.policy_scene import Scene
from core.scene import GB, Bench, node
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import (
    BreakerPolicy,
    JobState,
    LimitPolicy,
    PlacementPolicy,
    Policy,
    Progress,
    State,
)

BIG = {"size_bytes": 30 * GB}
"""Asks for 150 GB of scratch: more than a node has left beside another."""


def test_the_oldest_first_and_a_younger_one_only_where_it_does_not_fit() -> None:
    bench = Bench(node("n1", cores=8))
    first = bench.running("A")
    big = bench.arrive("B", **BIG)
    small = bench.arrive("C")
    assert bench.of(big).state is State.READY
    assert bench.of(small).state is State.RESERVED
    bench.end(first)
    bench.release(first)
    assert bench.of(big).state is State.READY, "the small one still takes its room"


def test_an_aged_head_keeps_its_node() -> None:
    policy = Policy(version="t", placement=PlacementPolicy(aged_seconds=600.0))
    bench = Bench(node("n1", cores=8), policy=policy)
    first = bench.running("A")
    big = bench.arrive("B", **BIG)
    bench.wait(700.0)
    late = bench.arrive("C")
    assert bench.of(late).state is State.READY, "the node is kept for the aged head"
    assert bench.core.blocked_by(late).rejected == {"kept_for_aged": 1}  # type: ignore[union-attr]
    bench.end(first)
    bench.release(first)
    assert bench.of(big).state is State.RESERVED
    assert bench.of(late).state is State.READY


def test_a_kept_node_is_given_back_when_its_head_leaves() -> None:
    policy = Policy(version="t", placement=PlacementPolicy(aged_seconds=600.0))
    bench = Bench(node("n1", cores=8), policy=policy)
    bench.running("A")
    big = bench.arrive("B", **BIG)
    bench.wait(700.0)
    late = bench.arrive("C")
    bench.ask("hold", big)
    assert bench.of(late).state is State.RESERVED


def test_limits() -> None:
    bench = Bench(node("n1", cores=64), policy=Policy(version="t", limits=LimitPolicy(running_max=1)))
    first, second = bench.running("A"), bench.arrive("B")
    assert bench.core.blocked_by(second).rejected == {"limit": 1}  # type: ignore[union-attr]
    bench.end(first)
    assert bench.of(second).state is State.READY, "publishing counts too"
    bench.tell(o.CollectAnswered, attempt_id=first, result_path="/r", verdict="good")
    assert bench.of(second).state is State.RESERVED


def test_the_space_of_the_destination_is_booked() -> None:
    bench = Bench(node("n1", cores=64))
    bench.tell(o.DestinationsObserved, free_bytes={"a": GB})
    bench.arrive("A")
    second = bench.arrive("B")
    assert bench.core.blocked_by(second).rejected == {"destination": 1}  # type: ignore[union-attr]
    assert bench.core.placing.waiting() == {"destination": 1}
    bench.tell(o.DestinationsObserved, free_bytes={"a": 100 * GB})
    assert bench.of(second).state is State.RESERVED


def broken_node(bench: Bench) -> None:
    """Two different series fail on n1 in a way that speaks against it."""
    for name in ("A", "B"):
        attempt = bench.running(name)
        bench.end(attempt, "terminated", "killed")
        bench.jobs(JobState.COMPLETED)
        bench.release(attempt)
        bench.ask("hold", bench.of(attempt).dataset_id)


BREAKER = Policy(version="t", breaker=BreakerPolicy(series=2, probe_seconds=600.0))


def test_a_breaker_opens_is_probed_and_closes() -> None:
    bench = Bench(policy=BREAKER)
    broken_node(bench)
    assert "BreakerOpened" in bench.kinds()
    waits = bench.arrive("C")
    assert bench.core.blocked_by(waits).rejected == {"breaker": 1}  # type: ignore[union-attr]
    bench.wait(601.0)
    assert bench.of(waits).state is State.RESERVED
    assert bench.kinds().count("BreakerProbed") == 1
    probe = f"{waits}.a1"
    bench.tell(o.SpoolObserved, attempt_id=probe, claimed_by="p", claimed_at=bench.now)
    bench.end(probe)
    bench.tell(o.CollectAnswered, attempt_id=probe, result_path="/r", verdict="good")
    assert not bench.core.state.breakers.by_scope


def test_a_probe_that_ends_without_a_verdict_lets_another_probe() -> None:
    bench = Bench(policy=BREAKER)
    broken_node(bench)
    first, second = bench.arrive("C"), bench.arrive("D")
    bench.wait(601.0)
    probe = f"{first}.a1"
    bench.ask("cancel", first)
    bench.tell(o.RevokeAnswered, attempt_id=probe, revoked=True)
    bench.release(probe)
    assert bench.of(second).state is State.READY
    bench.wait(601.0)
    assert bench.of(second).state is State.RESERVED


def test_an_operator_closes_a_breaker() -> None:
    bench = Bench(policy=BREAKER)
    broken_node(bench)
    waits = bench.arrive("C")
    assert bench.ask("close_breaker", "", reason="node:n1").ok
    assert bench.of(waits).state is State.RESERVED


def test_why_looks_afresh_and_changes_nothing() -> None:
    bench = Bench()
    bench.running("A")
    waits = bench.arrive("B")
    assert bench.core.blocked_by(waits).rejected == {"cores": 1}  # type: ignore[union-attr]
    evaluations = bench.core.placing.evaluations
    bench.see_nodes(replace(bench.nodes[0], state="down", observed_at=bench.now))
    assert bench.core.blocked_by(waits).rejected == {"node_down": 1}  # type: ignore[union-attr]
    assert bench.core.placing.waiting() == {"node_down": 1}
    assert bench.core.placing.evaluations == evaluations


def test_who_waits_for_a_limit_is_placed_when_it_is_free_and_not_with_the_next_look_at_a_node() -> None:
    """A job ends while another still copies: its node has room, and the limit on copies stands in the way."""
    scene = Scene("[limits]\nstage_ins_max = 1\n", nodes=1, cores=8)

    def staged(name: str) -> None:
        scene.start(name)
        run = Progress(phase="run", at=scene.now)
        scene.step(o.SpoolObserved, attempt_id=scene.of(name).attempts[-1].attempt_id, progress=run)

    for name in ("A", "B"):
        scene.complete(name)
        staged(name)
    for name in ("C", "D"):
        scene.complete(name)
    assert scene.core.placing.waiting() == {"cores": 2}
    scene.end("A")
    assert scene.running() == ["B", "C"]
    scene.end("B")
    assert scene.running() == ["C"], "D may not copy beside it"
    staged("C")
    assert scene.running() == ["C", "D"]


def test_a_long_queue_gets_few_cores_each_and_its_end_more() -> None:
    scene = Scene("[resources]\ncores_min = 1\n", nodes=2, cores=4)
    scene.see_all([f"TS_{number:02}" for number in range(9)])
    cores = [a.placement.cores for d in scene.core.state.datasets.values() for a in d.attempts]
    assert cores == [1] * 8, "nine on eight cores"
    for name in scene.running()[:4]:
        scene.end(name)
    late = scene.of("TS_08").attempts[-1].placement
    assert (late.cores, late.threads) == (1, 1), "it took the first core that was free"
    assert scene.complete("alone").attempts[-1].placement.cores == 2, "all that one node has free"


def test_small_ones_that_take_any_core_do_not_hold_up_an_aged_one_that_needs_four() -> None:
    wide = '[[rule]]\nname = "wide"\nwhen = { name = "wide*" }\nset = { cores_min = 0 }\n'
    scene = Scene('[resources]\ncores_min = 1\n[placement]\naged = "10min"\n' + wide, nodes=1, cores=4)
    scene.see_all([f"TS_{number}" for number in range(4)])
    scene.complete("wide")
    scene.wait(601.0)
    scene.look_at_nodes()
    scene.complete("late")
    for number in range(4):
        assert scene.state("late") is State.READY, "its core is kept for the aged one"
        scene.end(f"TS_{number}")
    assert scene.running() == ["wide"] and scene.of("wide").attempts[-1].placement.cores == 4
