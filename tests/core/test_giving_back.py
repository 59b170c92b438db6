"""Scratch that comes back with the end of its job, by its runner's word."""

from __future__ import annotations

from typing import Any

import pytest

from core.scene import Bench, node
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import RunEnd, RunSeen
from tiltd.daemon.core.site import Site

LEFT_NOTHING = RunSeen(node="n1", cleaned=True)


def bench(queues: bool = True) -> tuple[Bench, str]:
    made = Bench(node("n1"), node("n2"))
    made.core.desk.site = Site(feeds=made.core.desk.site.feeds, queues=queues)
    attempt_id = made.running()
    assert made.core.state.ledger.booked[attempt_id] == ("n1",)
    return made, attempt_id


def ended(made: Bench, attempt_id: str, *runs: RunSeen, outcome: Any = "success") -> Step:
    end = RunEnd(job_id="job", nonce="", outcome=outcome, ended_at=made.now, node="n1")
    return made.tell(o.SpoolObserved, attempt_id=attempt_id, claimed_by="job", end=end, runs=runs)


def is_asked_for(step: Step) -> bool:
    return any(isinstance(effect, e.ReleaseScratch) for effect in step.effects)


@pytest.mark.parametrize("host", ["n1", "n1.cluster.example"])
def test_an_end_that_comes_with_its_runners_word_gives_it_back_at_once(host: str) -> None:
    made, attempt_id = bench()
    step = ended(made, attempt_id, RunSeen(node=host, cleaned=True))
    assert [fact.node for fact in step.facts if isinstance(fact, f.ScratchReleased)] == ["n1"]
    assert attempt_id not in made.core.state.ledger.booked and not is_asked_for(step)
    assert made.of(attempt_id).state == "collecting"


@pytest.mark.parametrize(
    "runs",
    [
        (),
        (RunSeen(node="n1", cleaned=False),),
        (RunSeen(node="n1", cleaned=False), RunSeen(node="n2", cleaned=True)),
        (LEFT_NOTHING, RunSeen(node="somewhere", cleaned=False)),
    ],
    ids=["no word", "still there", "the first run", "a node that is not known"],
)
def test_while_anything_may_be_left_it_stays_booked(runs: tuple[RunSeen, ...]) -> None:
    made, attempt_id = bench()
    step = ended(made, attempt_id, *runs)
    assert made.core.state.ledger.booked[attempt_id] == ("n1",) and is_asked_for(step)


def test_on_this_machine_the_daemon_looks_for_itself() -> None:
    made, attempt_id = bench(queues=False)
    assert is_asked_for(ended(made, attempt_id, LEFT_NOTHING))
    assert made.core.state.ledger.booked[attempt_id] == ("n1",)


def test_what_a_failed_attempt_staged_is_removed_first() -> None:
    made, attempt_id = bench()
    ended(made, attempt_id, LEFT_NOTHING, outcome="failed")
    assert made.core.state.ledger.booked[attempt_id] == ("n1",)


def test_a_word_without_an_end_gives_nothing_back() -> None:
    made, attempt_id = bench()
    made.tell(o.SpoolObserved, attempt_id=attempt_id, claimed_by="job", runs=(LEFT_NOTHING,))
    assert made.core.state.ledger.booked[attempt_id] == ("n1",)
