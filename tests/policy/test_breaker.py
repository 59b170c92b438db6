"""Breakers: sequences of failures and successes, and the fold that they are."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltd.daemon.core.model import BreakerPolicy, FailureClass
from tiltd.policy import breaker as b

POLICY = BreakerPolicy(series=3, probe_seconds=600.0)
SCOPES = ("node:n1", "feed:krios", "pipeline:wbp", "destination:krios")


def series(number: int, revision: int = 1, run: int = 1) -> str:
    return f"TS_{number}-0000000{number}.{revision}.{run}"


def fail(
    state: b.Breakers, number: int, failure_class: str, *, scopes: tuple[str, ...] = SCOPES
) -> b.Breakers:
    return b.failed(state, scopes, failure_class, series(number), 100.0 + number)


def opened_by(failure_class: str, count: int = 3, nodes: tuple[str, ...] = ("n1",)) -> list[str]:
    state = b.Breakers()
    for number in range(count):
        scopes = (f"node:{nodes[number % len(nodes)]}", *SCOPES[1:])
        state = fail(state, number, failure_class, scopes=scopes)
    return b.to_open(state, scopes, failure_class, POLICY)


@pytest.mark.parametrize(
    ("failure_class", "scopes"),
    [
        ("node", ["node:n1"]),
        ("environment", ["node:n1"]),
        ("scratch", ["node:n1"]),
        ("killed", ["node:n1"]),
        ("lost", ["node:n1"]),
        ("destination", ["destination:krios"]),
        ("input", ["feed:krios"]),
        ("config", ["feed:krios"]),
        ("program", ["pipeline:wbp"]),
        ("licence", ["pipeline:wbp"]),
        ("submit", ["pipeline:wbp"]),
        ("memory", []),
        ("walltime", []),
        ("transient", []),
    ],
)
def test_three_series_open_what_the_class_speaks_against(failure_class: str, scopes: list[str]) -> None:
    assert opened_by(failure_class) == scopes
    assert opened_by(failure_class, 2) == []


def test_every_class_is_in_the_table_above() -> None:
    rows = test_three_series_open_what_the_class_speaks_against.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {row[0] for row in rows} == set(FailureClass.__args__)  # type: ignore[attr-defined]


def test_a_broken_environment_on_two_nodes_is_the_pipelines() -> None:
    assert opened_by("environment", 3, ("n1", "n2")) == ["pipeline:wbp"]
    assert opened_by("environment", 5, ("n1", "n2")) == ["node:n1", "pipeline:wbp"]


def test_revisions_and_runs_of_one_series_are_one_witness() -> None:
    state = b.Breakers()
    for revision, run in ((1, 1), (2, 1), (2, 2), (3, 1)):
        state = b.failed(state, SCOPES, "program", series(1, revision, run), 1.0)
    assert b.to_open(state, SCOPES, "program", POLICY) == []


def test_different_classes_do_not_add_up() -> None:
    state = fail(fail(fail(b.Breakers(), 1, "node"), 2, "killed"), 3, "lost")
    assert b.to_open(state, SCOPES, "lost", POLICY) == []


def test_a_success_between_clears_the_marks() -> None:
    state = fail(fail(b.Breakers(), 1, "program"), 2, "program")
    assert b.succeeded(state, SCOPES) == b.Breakers()
    state = fail(b.succeeded(state, SCOPES), 3, "program")
    assert b.to_open(state, SCOPES, "program", POLICY) == []


def opened() -> b.Breakers:
    state = b.Breakers()
    for number in range(3):
        state = fail(state, number, "program")
    return b.opened(state, "pipeline:wbp", "program", 1000.0)


def test_open_blocks_until_the_probe_is_due_and_lets_one_through() -> None:
    state, scope = opened(), "pipeline:wbp"
    assert b.to_open(state, SCOPES, "program", POLICY) == [], "one notice"
    assert b.is_open(state, scope) and b.open_scopes(state) == (scope,)
    assert b.blocks(state, scope, 1599.9, POLICY) and not b.blocks(state, "pipeline:imod", 1599.9, POLICY)
    assert b.next_probe_at(state, scope, POLICY) == 1600.0
    assert not b.blocks(state, scope, 1600.0, POLICY) and b.probe_due(state, scope, 1600.0, POLICY)
    state = b.probed(state, scope, series(7), 1600.0)
    assert b.blocks(state, scope, 9e9, POLICY) and b.next_probe_at(state, scope, POLICY) is None
    assert "program failures of 3 series" in b.reason(state, scope) and series(7) in b.reason(state, scope)


@pytest.mark.parametrize("failure_class", ["program", "memory", "node"])
def test_a_probe_that_fails_for_whatever_cause_is_over(failure_class: str) -> None:
    state = b.probed(opened(), "pipeline:wbp", series(7), 1600.0)
    state = b.failed(state, SCOPES, failure_class, series(7), 1700.0)
    assert b.blocks(state, "pipeline:wbp", 2299.0, POLICY)
    assert b.probe_due(state, "pipeline:wbp", 2300.0, POLICY)


def test_another_datasets_failure_does_not_end_the_probe() -> None:
    state = b.probed(opened(), "pipeline:wbp", series(7), 1600.0)
    state = b.failed(state, SCOPES, "program", series(8), 1700.0)
    assert b.next_probe_at(state, "pipeline:wbp", POLICY) is None


def test_a_probe_that_was_cancelled_is_over() -> None:
    state = b.probed(opened(), "pipeline:wbp", series(7), 1600.0)
    assert b.unprobed(state, series(8), 1700.0) == state
    assert b.next_probe_at(b.unprobed(state, series(7), 1700.0), "pipeline:wbp", POLICY) == 2300.0


def test_a_success_closes() -> None:
    state = b.probed(opened(), "pipeline:wbp", series(7), 1600.0)
    assert b.to_close(state, SCOPES) == ["pipeline:wbp"]
    assert b.succeeded(state, SCOPES) == b.closed(state, "pipeline:wbp") == b.Breakers()
    assert b.closed(b.Breakers(), "pipeline:wbp") == b.Breakers()
    assert b.probed(b.Breakers(), "pipeline:wbp", series(1), 1.0) == b.Breakers()


def test_a_failure_of_the_class_that_opened_it_is_the_places() -> None:
    assert b.is_known_cause(opened(), SCOPES, "program")
    assert not b.is_known_cause(opened(), SCOPES, "node")
    assert not b.is_known_cause(opened(), ("pipeline:imod",), "program")
    assert not b.is_known_cause(fail(b.Breakers(), 1, "program"), SCOPES, "program")


def test_blocked_nodes() -> None:
    state = b.opened(b.opened(b.Breakers(), "node:a:b", "node", 0.0), "feed:x", "input", 0.0)
    assert b.blocked_nodes(state, 10.0, POLICY) == {"a:b"}
    assert b.blocked_nodes(state, 600.0, POLICY) == frozenset()
    assert b.blocking(state, ("feed:x", "feed:y"), 10.0, POLICY) == ("feed:x",)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["failed", "succeeded", "opened", "probed", "unprobed", "closed"]),
        st.sampled_from(SCOPES),
        st.integers(0, 30),
        st.sampled_from(["node", "program", "environment"]),
    ),
    max_size=60,
)


def fold(steps: list[tuple[str, str, int, str]]) -> b.Breakers:
    state = b.Breakers()
    for at, (step, scope, number, failure_class) in enumerate(steps):
        match step:
            case "failed":
                state = b.failed(state, (scope, "node:n1"), failure_class, series(number), at)
            case "succeeded":
                state = b.succeeded(state, (scope,))
            case "opened":
                state = b.opened(state, scope, failure_class, at)
            case "probed":
                state = b.probed(state, scope, series(number), at)
            case "unprobed":
                state = b.unprobed(state, series(number), at)
            case _:
                state = b.closed(state, scope)
    return state


@given(_steps, st.integers(0, 60))
def test_it_is_a_fold_that_can_be_stored_anywhere(steps: list[tuple[str, str, int, str]], cut: int) -> None:
    state = fold(steps)
    assert state == fold(steps)
    stored = json.loads(json.dumps(msgspec.to_builtins(state)))
    assert msgspec.convert(stored, b.Breakers) == state
    before = fold(steps[:cut])
    text = repr(before)
    fold(steps)
    assert repr(before) == text, "a state that was handed out does not change"
    assert all(len(found.marks) <= b.MARKS_MAX for found in state.by_scope.values())
