"""The loop that lets a moment pass between two turns."""

from __future__ import annotations

import os
import time

import pytest

from tiltd.daemon.turns import Unhurried


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses that were made, in a time that stands still but for them."""
    now, pauses = [1000.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return pauses


def woken(selector: Unhurried, timeout: float | None) -> int:
    return len(selector.select(timeout))


def test_after_a_rest_at_once_then_after_a_moment(slept: list[float]) -> None:
    selector = Unhurried(turn_seconds=0.5)
    read, write = os.pipe()
    selector.register(read, 1)
    os.write(write, b"x")
    assert woken(selector, None) == 1 and slept == []
    assert woken(selector, None) == 1 and slept == [0.5]
    assert woken(selector, 100.0) == 1 and slept == [0.5, 0.5]
    selector.close()
    os.close(read)
    os.close(write)


def test_a_timer_is_not_late(slept: list[float]) -> None:
    selector = Unhurried(turn_seconds=0.5)
    assert woken(selector, 0.001) == 0
    assert woken(selector, 0.125) == 0 and slept == [0.125]


def test_what_the_loop_has_still_to_do_does_not_wait(slept: list[float]) -> None:
    selector = Unhurried(turn_seconds=0.5)
    assert woken(selector, 0.0) == 0
    assert woken(selector, 0.001) == 0 and slept == [], "a turn without a wait is none"
    assert woken(selector, 0.0) == 0
    assert woken(selector, 0) == 0 and slept == []
