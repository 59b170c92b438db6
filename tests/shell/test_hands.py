"""Worker threads: few as long as they are quick, more behind those that hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tiltd.daemon import hands as hands_module
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


async def test_what_was_done_before_a_hand_hangs_is_told() -> None:
    hands, release = Hands(few=1, patience_seconds=0.02), threading.Event()
    done: list[int] = []
    await hands.do(done.append, 0)  # told just now: what is done next is not told at once
    quick = [asyncio.create_task(hands.do(done.append, number)) for number in (1, 2)]
    hanging = asyncio.create_task(hands.do(release.wait, 30.0))
    await asyncio.wait_for(asyncio.gather(*quick), 10.0)
    assert done == [0, 1, 2] and not hanging.done()
    release.set()
    assert await hanging


async def test_what_was_done_is_told_although_the_next_in_the_queue_was_done_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hands_module, "TOLD_SECONDS", 3600.0)
    hands, release = Hands(few=1, patience_seconds=0.02), threading.Event()
    hanging = asyncio.create_task(hands.do(release.wait, 30.0))
    queued = asyncio.create_task(hands.do(lambda: "done"))
    assert await asyncio.wait_for(queued, 10.0) == "done"
    release.set()
    assert await asyncio.wait_for(hanging, 10.0)


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    hands, release = Hands(few=1, patience_seconds=30.0), threading.Event()
    done: list[str] = []
    first = asyncio.create_task(hands.do(release.wait, 30.0))
    late = asyncio.create_task(hands.do(done.append, "late"))
    await asyncio.sleep(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    release.set()
    assert await first
    await hands.do(done.append, "next")
    assert done == ["next"]


async def test_hands_that_are_closed_end() -> None:
    hands, names = Hands(few=2), set()
    await hands.do(lambda: names.add(threading.current_thread()))
    hands.close()
    for thread in names:
        await asyncio.to_thread(thread.join, 10.0)
        assert not thread.is_alive()
