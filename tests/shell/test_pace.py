"""How often a batch server is asked for its jobs: seldom while nothing moves, never two questions at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Job, JobState
from tiltd.daemon.poll import Pace, Poll
from tiltd.plugins.api import JobsSeen, Unreachable


def pace(chance: float = 0.0) -> Pace:
    return Pace(5.0, 60.0, lambda: chance)


def test_it_slows_down_while_nothing_moves_and_is_quick_again_at_once() -> None:
    ours = pace()
    pauses = [ours.after(close=False, failures=0) for _ in range(8)]
    assert pauses[:3] == [7.5, 11.25, 16.875]
    assert pauses[-1] == 60.0
    assert ours.after(close=True, failures=0) == 5.0


def test_nobody_is_asked_more_than_twelve_times_a_minute() -> None:
    assert min(pace(chance).after(close=True, failures=0) for chance in (0.0, 0.5, 1.0)) >= 5.0
    assert pace(1.0).after(close=True, failures=0) == 5.5, "a little of chance"


def test_a_server_that_does_not_answer_is_asked_less_and_less() -> None:
    ours = pace()
    assert [ours.after(close=True, failures=n) for n in (1, 2, 3, 4, 9)] == [10.0, 20.0, 40.0, 60.0, 60.0]
    assert ours.after(close=True, failures=0) == 5.0


def test_this_machine_is_looked_at_at_one_pace() -> None:
    ours = Pace(2.0, 2.0, lambda: 1.0)
    assert [ours.after(close=close, failures=0) for close in (True, False, False)] == [2.0, 2.0, 2.0]


class Manager:
    """Tells of the jobs in ``jobs``; remembers how many questions were open at once."""

    def __init__(self) -> None:
        self.listed: tuple[Job, ...] = ()
        self.asked = self.open = self.most_open = 0
        self.expected: list[Collection[str]] = []
        self.down = False

    def expect(self, job_ids: Collection[str]) -> None:
        self.expected.append(tuple(job_ids))

    async def jobs(self) -> JobsSeen:
        self.asked += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0.005)
        self.open -= 1
        if self.down:
            raise Unreachable("refused")
        return JobsSeen(jobs=self.listed, complete=True, asked_at=0.0)


class Clock:
    def now(self) -> float:
        return 0.0


@contextlib.asynccontextmanager
async def polling(manager: Manager, **more: Any) -> Any:
    seen: list[o.Observation] = []

    async def put(observation: o.Observation) -> None:
        seen.append(observation)

    poll = Poll(manager, put, Clock())  # type: ignore[arg-type]
    wanted = more.pop("wanted", lambda: True)
    task = asyncio.create_task(poll.jobs(more.pop("pace"), wanted, **more))
    try:
        yield poll, seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_look_can_be_asked_for_and_no_two_questions_are_open_at_once() -> None:
    manager, slow = Manager(), Pace(0.01, 600.0)
    for _ in range(40):
        slow.after(close=False, failures=0)
    async with polling(manager, pace=slow, close=lambda: False) as (poll, seen):
        for number in range(1, 6):
            await until(lambda number=number: manager.asked >= number)
            poll.look_at_jobs()
            poll.look_at_jobs()
    assert manager.most_open == 1
    assert len(seen) >= 4


async def test_it_keeps_at_the_least_pace_while_jobs_move() -> None:
    manager = Manager()
    async with polling(manager, pace=Pace(0.02, 600.0), close=lambda: False):
        for number in range(5):
            manager.listed = (Job(job_id=str(number), job_name="", owner="", state=JobState.QUEUED),)
            await until(lambda number=number: manager.asked > number)


async def test_it_is_told_which_jobs_are_expected() -> None:
    manager = Manager()
    async with polling(manager, pace=Pace(0.01, 0.01), expected=lambda: ["7.server"]):
        await until(lambda: manager.asked > 1)
    assert manager.expected[0] == ("7.server",)


async def test_with_no_attempt_live_it_is_asked_now_and_then_where_jobs_may_lie_in_a_queue() -> None:
    manager = Manager()
    async with polling(manager, pace=Pace(0.01, 0.01), wanted=lambda: False):
        await asyncio.sleep(0.1)
    assert manager.asked == 0
    async with polling(manager, pace=Pace(0.01, 0.01), wanted=lambda: False, idle=lambda: 0.03):
        await until(lambda: manager.asked >= 2)


async def test_no_answer_is_no_news_of_any_job() -> None:
    manager = Manager()
    manager.down = True
    async with polling(manager, pace=Pace(0.01, 0.01)) as (_, seen):
        await until(lambda: len(seen) >= 2)
    assert {type(one) for one in seen} == {o.ServerUnreachable}
