"""Worker threads: few as long as they are quick, more behind those that hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tiltd.daemon.hands import Hands


async def test_no_more_work_at_once_than_there_are_hands() -> None:
    hands, at_once, most = Hands(few=2, patience_seconds=30.0), 0, 0
    lock, both = threading.Lock(), threading.Barrier(2)

    def work(number: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        both.wait(10.0)
        with lock:
            at_once -= 1
        return number

    assert await asyncio.gather(*(hands.do(work, number) for number in range(10))) == list(range(10))
    assert most == 2


async def test_who_waits_behind_hands_that_hang_goes_on_all_the_same() -> None:
    hands, release = Hands(few=2, patience_seconds=0.02), threading.Event()
    hanging = [asyncio.create_task(hands.do(release.wait, 30.0)) for _ in range(2)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(hands.do(lambda: "done"), 10.0) == "done"
    assert not any(task.done() for task in hanging)
    release.set()
    assert await asyncio.gather(*hanging) == [True, True]
    assert await hands.do(lambda: "again") == "again"


async def test_what_fails_gives_its_hand_back() -> None:
    hands = Hands(few=1, patience_seconds=30.0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(hands.do(lambda: 1 // 0), 10.0)
