"""What must hold after every step of every simulation."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import (
    LimitPolicy,
    NoticePolicy,
    NoticeRule,
    Policy,
    Reservation,
    ResourcePolicy,
    State,
)
from tiltd.daemon.core.outstanding import outstanding
from tiltd.daemon.simulate.check import Broken, Watch, check, checked
from tiltd.daemon.simulate.heap import HeapClock
from tiltd.daemon.simulate.scene import Scene, pipelines, site
from tiltd.policy.notices import default_events


def through(scene: Scene, every: int, policy: Policy | None = None) -> HeapClock:
    clock = HeapClock(scene, Core(site(scene), policy, pipelines()) if policy is not None else None)
    for _ in checked(clock.steps(), clock.core, every):
        pass
    assert clock.world.twice == []
    assert not clock.core.state.ledger.booked
    assert not clock.core.performing.under_way
    assert all(node.used_bytes == 0 for node in clock.world.nodes.values())
    return clock


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_step_of_a_small_and_bad_world(seed: int) -> None:
    through(Scene(datasets=80, nodes=3, cores=8, failures=0.3, seed=seed, load=1.5), every=1)


def test_a_crowded_cluster_with_little_scratch() -> None:
    scene = Scene(datasets=300, nodes=3, cores=12, scratch_bytes=120_000_000_000, failures=0.05, load=2.0)
    through(scene, every=3)


def test_series_that_take_as_few_cores_as_are_free() -> None:
    """And limits, which must not leave anybody waiting beside a node that has room."""
    policy = Policy(
        version="few",
        resources=ResourcePolicy(cores_min=1),
        limits=LimitPolicy(stage_ins_max=3, running_max=9),
    )
    scene = Scene(datasets=150, nodes=3, cores=6, failures=0.1, load=3.0, seed=4)
    through(scene, 1, policy)


def test_people_who_are_told_of_everything_and_a_mail_server_that_often_refuses() -> None:
    """Every notice goes out once to each, a restart would ask for the same, and nothing piles up."""
    both = ("ada@example.org", "chat")
    rules = (
        NoticeRule(name="at-once", to=both, events=default_events("digest")),
        NoticeRule(name="digest", to=both[:1], events=default_events("digest"), how="digest"),
    )
    policy = Policy(version="told", notice_rules=rules, notices=NoticePolicy(session_quiet_seconds=600.0))
    scene = Scene(datasets=150, nodes=3, cores=8, failures=0.2, seed=7, load=1.5)
    clock = HeapClock(scene, Core(site(scene), policy, pipelines()))
    due: Counter[tuple[str, str]] = Counter()
    told: Counter[tuple[str, str]] = Counter()
    delivered: set[str] = set()
    for _, step in checked(clock.steps(), clock.core, 1):
        for fact in step.facts:
            if isinstance(fact, f.NoticeDue):
                due.update((fact.notice.notice_id, to) for to in fact.notice.to)
                items = fact.notice.items or (fact.notice,)
                delivered |= {i.dataset_id for i in items if i.event == "delivered"}
            elif isinstance(fact, f.NoticeSent):
                told[fact.notice_id, fact.to] += 1
            elif isinstance(fact, f.NoticePutBy) and fact.item.event == "delivered":
                delivered.add(fact.item.dataset_id)
    assert told == due
    assert len(delivered) > 100 and {to for _, to in told} == {"log", *both}
    assert len(clock.core.state.board.told) < 50


@pytest.mark.slow
def test_twenty_thousand_series() -> None:
    """Checked throughout, at every hundredth step."""
    clock = through(Scene(datasets=20_000, failures=0.02, seed=5), every=200)
    assert clock.routine.left > 19_000


def test_after_a_restart_everything_outstanding_is_asked_for_again() -> None:
    clock = HeapClock(Scene(datasets=60, nodes=2, failures=0.2, seed=3))
    for number, _ in enumerate(clock.steps()):
        if number % 400 == 399:
            state = clock.core.state
            copy = type(state).restore(state.snapshot(0))
            assert copy == state
            assert copy.current == state.current
            feeds = clock.core.desk.site.feeds
            assert outstanding(copy, feeds) == outstanding(state, feeds) == clock.core.performing.under_way


def stopped_in(state: State) -> HeapClock:
    """A world in which one dataset is just in this state."""
    clock = HeapClock(Scene(datasets=30, nodes=2, failures=0.0))
    for _ in clock.steps():
        if any(dataset.state is state for dataset in clock.core.state.datasets.values()):
            check(clock.core)
            return clock
    raise AssertionError(f"no dataset was ever {state}")


class TestTheChecksCanFail:
    """Each of them, by breaking what it looks at."""

    def test_scratch(self) -> None:
        core = stopped_in(State.RUNNING).core
        huge = Reservation(
            attempt_id="x.a1", node="n000", reserved_bytes=10**15, cores=1, memory_bytes=1, reserved_at=0.0
        )
        core.state.ledger.book(huge)
        with pytest.raises(Broken, match=r"bytes are reserved of|nobody needs it"):
            check(core)

    def test_reservations(self) -> None:
        core = stopped_in(State.RUNNING).core
        attempt_id = next(iter(core.state.ledger.booked))
        core.state.ledger.release(attempt_id, core.state.ledger.booked[attempt_id][0])
        with pytest.raises(Broken, match="it is live, and booked on None"):
            check(core)

    def test_attempts(self) -> None:
        core = stopped_in(State.RUNNING).core
        dataset = next(d for d in core.state.datasets.values() if d.state is State.RUNNING)
        twice = replace(dataset, attempts=(*dataset.attempts, *dataset.attempts))
        core.state.datasets[dataset.dataset_id] = twice
        with pytest.raises(Broken, match="2 attempts could publish"):
            check(core)

    def test_effects(self) -> None:
        core = stopped_in(State.RESERVED).core
        core.performing._started.clear()
        with pytest.raises(Broken, match="outstanding, but never started: SubmitJob"):
            check(core)

    def test_idle_nodes(self) -> None:
        core = stopped_in(State.RESERVED).core
        dataset = next(d for d in core.state.datasets.values() if d.state is State.RESERVED)
        core.placing.consider(dataset)
        with pytest.raises(Broken, match="would take it"):
            check(core)

    def test_nobody_cares(self) -> None:
        core = stopped_in(State.RUNNING).core
        core.desk._wakes.clear()
        core.desk._later.clear()
        with pytest.raises(Broken, match="nothing will bring it on"):
            check(core)

    def test_a_replay_that_differs(self) -> None:
        clock = stopped_in(State.RUNNING)
        with pytest.raises(Broken, match="a replay of the facts gives another state"):
            Watch().compare(clock.core)
