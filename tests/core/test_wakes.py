"""Wake-ups: soon or far away, each comes at its time, once, and not for a dataset that has left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltd.daemon.core.desk import SOON_SECONDS, Desk
from tiltd.daemon.core.model import Policy
from tiltd.daemon.core.site import Site
from tiltd.daemon.core.state import CoreState


@pytest.fixture
def desk() -> Desk:
    return new_desk()


def new_desk() -> Desk:
    desk = Desk(CoreState(), Policy(version="t"), Site(feeds={}), {})
    desk.begin(1000.0)
    return desk


def come(desk: Desk) -> list[tuple[float, str]]:
    """All that comes, as a driver would meet it."""
    met = []
    while (at := desk.next_wake_at) is not None:
        desk.begin(at)
        met += [(at, key[1]) for key in desk.due()]
    return met


@given(st.lists(st.tuples(st.floats(0.0, 20 * SOON_SECONDS), st.sampled_from("abc")), max_size=40))
def test_all_come_at_their_time_and_once(asked: list[tuple[float, str]]) -> None:
    desk = new_desk()
    for seconds, name in asked:
        desk.wake(1000.0 + seconds, "arrival", name)
    wanted = {(1000.0 + seconds, name) for seconds, name in asked}
    assert {(at, key[1]) for at, key in desk.wakes()} == wanted
    assert come(desk) == sorted(wanted)


def test_one_that_was_far_and_is_asked_for_again_when_it_is_near_is_one(desk: Desk) -> None:
    at = 1000.0 + 2.5 * SOON_SECONDS
    desk.wake(at, "arrival", "a")
    desk.begin(at - 0.9 * SOON_SECONDS)
    desk.wake(at, "arrival", "a")
    assert come(desk) == [(at, "a")]


def test_those_of_datasets_that_left_are_dropped_near_and_far(desk: Desk) -> None:
    desk.wake(1001.0, "dataset", "gone")
    desk.wake(9000.0, "dataset", "gone")
    desk.wake(9000.5, "arrival", "a")
    assert desk.next_wake_at == 9000.5
    assert list(desk.wakes()) == [(9000.5, ("arrival", "a"))]


def test_nothing_is_told_of_what_comes_later_than_asked(desk: Desk) -> None:
    desk.wake(1100.0, "arrival", "a")
    assert desk.next_wake_by(1099.0) is None
    assert desk.next_wake_by(1100.0) == 1100.0
