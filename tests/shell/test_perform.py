"""How effects are performed: a few of each kind at once, the others in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.perform import AT_ONCE, Perform


class Watched(Perform):
    """Only what starts effects; each runs until it is let go."""

    def __init__(self) -> None:
        self._waiting = {kind: deque() for kind in AT_ONCE}
        self._busy = dict.fromkeys(AT_ONCE, 0)
        self._tasks = set()
        self.begun: list[e.Effect] = []
        self.turn = asyncio.Semaphore(0)

    async def _perform(self, effect: e.Effect) -> None:
        self.begun.append(effect)
        await self.turn.acquire()


def fences(count: int) -> list[e.FenceAttempt]:
    return [e.FenceAttempt(attempt_id=f"a{number}", dataset_id="d") for number in range(count)]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_few_run_at_once_and_each_that_ends_lets_the_next_begin() -> None:
    perform, limit = Watched(), AT_ONCE[e.FenceAttempt]
    effects = fences(limit + 3)
    for effect in effects:
        perform.start(effect)
    await turns()
    assert perform.begun == effects[:limit]
    perform.turn.release()
    await turns()
    assert perform.begun == effects[: limit + 1]
    perform.start(e.RevokeAttempt(attempt_id="b", dataset_id="d"))
    await turns()
    assert isinstance(perform.begun[-1], e.RevokeAttempt), "another kind does not wait for it"
    for _ in effects:
        perform.turn.release()
    await turns()
    assert [each for each in perform.begun if isinstance(each, e.FenceAttempt)] == effects
    perform.start(effects[0])
    await turns()
    assert perform.begun[-1] is effects[0], "after a rest it begins again"


async def test_what_is_logged_tells_the_effect_that_it_is_about() -> None:
    told: list[dict[str, object]] = []

    class Telling(Watched):
        def __init__(self) -> None:
            super().__init__()
            self._handlers = {e.ImportSeries: self.importing}

        async def importing(self, effect: e.ImportSeries) -> o.ImportAnswered:
            told.append(structlog.contextvars.get_contextvars())
            return o.ImportAnswered(at=0.0, dataset_id=effect.dataset_id)

        async def _put(self, answer: o.Observation) -> None:
            await asyncio.sleep(0)

        async def _perform(self, effect: e.Effect) -> None:
            await Perform._perform(self, effect)

    perform = Telling()
    for name in ("ts_01", "ts_02"):
        perform.start(e.ImportSeries(dataset_id=name))
    assert perform._busy[e.ImportSeries] == AT_ONCE[e.ImportSeries] == 1
    await turns()
    assert told == [{"dataset": "ts_01"}, {"dataset": "ts_02"}]
    assert structlog.contextvars.get_contextvars() == {}, "it is no context of whoever asked for it"
