"""What follows a failed attempt, class by class."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiltd.daemon.core.model import Failure, FailureClass, Policy, RetryPolicy
from tiltd.policy.retry import FACTOR_MAX, GiveUp, RetryAt, after, delay_seconds, factor

POLICY = Policy(version="v1")
CLASSES = get_args(FailureClass)


def failure(failure_class: str, **changes: object) -> Failure:
    usual = Failure(failure_class="node", reason="why", detail="what happened", remedy="do this")
    return replace(usual, failure_class=failure_class, **changes)


RULES: list[tuple[str, bool, tuple[str, ...], dict[str, float]]] = [
    ("input", False, (), {}),
    ("config", False, (), {}),
    ("licence", False, (), {}),
    ("node", True, ("n1",), {}),
    ("environment", True, ("n1",), {}),
    ("scratch", True, ("n1",), {"scratch_factor": 1.5}),
    ("killed", True, ("n1",), {}),
    ("lost", True, ("n1",), {}),
    ("memory", True, (), {"memory_factor": 1.5}),
    ("walltime", True, (), {"walltime_factor": 2.0}),
    ("transient", True, (), {}),
    ("program", True, (), {}),
    ("destination", True, (), {}),
    ("submit", True, (), {}),
]


def test_every_class_has_a_rule_here() -> None:
    assert sorted(rule[0] for rule in RULES) == sorted(CLASSES)


@pytest.mark.parametrize(("failure_class", "again", "excluded", "change"), RULES)
def test_the_first_failure(
    failure_class: str, again: bool, excluded: tuple[str, ...], change: dict[str, float]
) -> None:
    found = after(1, failure(failure_class), POLICY, 1000.0, nodes=("n1",))
    if not again:
        assert isinstance(found, GiveUp)
        assert found.reason.endswith("not tried again: what happened; do this")
        return
    assert found == RetryAt(at=1060.0, change=dict(change), exclude_nodes=excluded)


@pytest.mark.parametrize("failure_class", [rule[0] for rule in RULES if rule[1]])
def test_the_last_failure(failure_class: str) -> None:
    assert isinstance(after(2, failure(failure_class), POLICY, 0.0), RetryAt)
    found = after(3, failure(failure_class), POLICY, 0.0)
    assert isinstance(found, GiveUp) and "3 attempts failed, the policy allows 3" in found.reason


@pytest.mark.parametrize("failure_class", CLASSES)
@pytest.mark.parametrize("unspent", [0, 1, 10, 100_000])
def test_what_is_nobodys_try_only_waits_longer(failure_class: str, unspent: int) -> None:
    found = after(9, failure(failure_class, spent=False), POLICY, 0.0, attempts_unspent=unspent)
    assert isinstance(found, RetryAt)
    assert found.at == {0: 60.0, 1: 60.0}.get(unspent, 3600.0)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 60), (1, 60), (2, 240), (3, 960), (4, 3600), (10**9, 3600)]
)
def test_waits_grow_and_are_capped(attempts: int, seconds: float) -> None:
    assert delay_seconds(RetryPolicy(), attempts) == seconds


def test_more_grows_on_what_there_is_and_is_bounded() -> None:
    changes: dict[str, float | str] = {"binning": "2"}
    seen = []
    for _ in range(20):
        found = after(1, failure("memory"), POLICY, 0.0, changes=changes)
        assert isinstance(found, RetryAt)
        changes |= found.change
        seen.append(changes["memory_factor"])
    assert seen[:3] == [1.5, 2.25, 3.375] and seen[-1] == FACTOR_MAX
    assert changes["binning"] == "2"


def test_the_pipelines_own_remedy_is_taken_and_the_larger_factor_wins() -> None:
    wish: dict[str, float | str] = {"memory_factor": 4.0, "leave_iterations": "10"}
    found = after(1, failure("memory", change=wish), POLICY, 0.0, changes={"memory_factor": 2.0})
    assert isinstance(found, RetryAt)
    assert found.change == {"memory_factor": 8.0, "leave_iterations": "10"}
    found = after(1, failure("program", change=wish), POLICY, 0.0)
    assert isinstance(found, RetryAt) and found.change == wish


def test_a_sites_own_rules() -> None:
    rules = RetryPolicy(attempts_max=1, give_up=(), other_node=("memory",), more_memory=("memory",))
    policy = replace(POLICY, retry=rules)
    assert isinstance(after(0, failure("input"), policy, 0.0), RetryAt)
    found = after(1, failure("memory"), policy, 0.0)
    assert isinstance(found, GiveUp) and found.reason.startswith("1 attempt failed")
    found = after(0, failure("memory"), policy, 0.0, nodes=("n1",))
    assert found == RetryAt(at=60.0, change={"memory_factor": 1.5}, exclude_nodes=("n1",))


def test_a_class_to_be_held_waits_for_a_person_and_is_tried_again() -> None:
    policy = replace(POLICY, retry=RetryPolicy(hold=("program",)))
    found = after(1, failure("program"), policy, 0.0)
    assert isinstance(found, RetryAt)
    assert found.hold == "the policy holds it: what happened; do this"
    for other in (
        after(1, failure("node"), policy, 0.0),
        after(1, failure("program", spent=False), policy, 0.0),
    ):
        assert isinstance(other, RetryAt) and other.hold == ""


def test_a_datasets_own_rule_speaks_before_the_policys() -> None:
    own = RetryPolicy(attempts_max=5)
    assert isinstance(after(4, failure("node"), POLICY, 0.0, rule=own), RetryAt)
    assert isinstance(after(5, failure("node"), POLICY, 0.0, rule=own), GiveUp)


@given(st.floats() | st.text(max_size=3))
def test_a_factor_is_always_a_sane_number(value: float | str) -> None:
    assert 1.0 <= factor({"memory_factor": value}, "memory_factor") <= FACTOR_MAX
