"""THE loop: what is durable before what, and who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from shell.review_core import AT, Scene, sighting
from tiltd.daemon import loop as rooms
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.journal import _SEEN, Journal
from tiltd.daemon.loop import AT_ONCE, BATCH_MAX, Loop


class Clock:
    """Stands still; the loop then sleeps for real, so no test leaves it a wake-up in the near future."""

    def __init__(self) -> None:
        self.at = AT

    def now(self) -> float:
        return self.at


class FakeJournal:
    """Keeps what is appended; fails as often as ``failing`` says."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.appended: list[Sequence[Step]] = []
        self.saved: list[int] = []
        self.asked: list[int] = []
        self.failing = 0
        self.due = False
        self.save_fails = False

    async def append(self, steps: Sequence[Step]) -> None:
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            self.log.append("append failed")
            raise sqlite3.OperationalError("database or disk is full")
        self.appended.append(steps)
        self.log += [type(fact).__name__ for step in steps for fact in step.facts]

    def snapshot_due(self, live: int) -> bool:
        self.asked.append(live)
        return self.due

    async def save(self, state: CoreState) -> None:
        if self.save_fails:
            raise sqlite3.OperationalError("database or disk is full")
        self.saved.append(len(state.datasets))
        self.log.append("saved")


class World:
    """A loop on a fake journal; ``log`` is what happened, in its order."""

    def __init__(self, scene: Scene | None = None) -> None:
        self.scene = scene or Scene()
        self.clock = Clock()
        self.log: list[str] = []
        self.journal = FakeJournal(self.log)
        self.started: list[e.Effect] = []
        self.recorded: list[str] = []
        self.loop = Loop(self.scene.core, self.journal, self._start, self.clock, self._recorded)

    def _start(self, effect: e.Effect) -> None:
        self.started.append(effect)
        self.log.append(f"start {type(effect).__name__}")

    def _recorded(self, observation: o.Observation | None, step: Step) -> None:
        self.recorded.append(type(observation).__name__)

    def put(self, *observations: o.Observation) -> None:
        for observation in observations:
            self.loop.inbox.put_nowait(observation)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.loop.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, true: Callable[[], Any]) -> None:
        """Let the loop turn; no time passes."""
        for _ in range(500):
            if true():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"it never happened; so far: {self.log}")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "APPEND_RETRY_SECONDS", (0.0,))


def files(*names: str) -> Iterable[o.Observation]:
    for name in names:
        yield o.FilesObserved(at=AT, feed="f", up=True, sightings=(sighting(name, series=None),))


def asked(request_id: str, dataset_id: str = "") -> o.Observation:
    return o.OperatorAsked(
        at=AT, action="close_breaker", dataset_id=dataset_id, by="op", request_id=request_id, reason="node:x"
    )


def ready() -> World:
    """A world with a series that will be placed as soon as a node is seen."""
    scene = Scene()
    scene.complete()
    return World(scene)


def node_seen(world: World) -> o.Observation:
    """What the next look at the nodes would show; nothing is taken in yet."""
    seen: list[o.Observation] = []
    handle = world.scene.core.handle
    world.scene.core.handle = lambda observation: seen.append(observation)  # type: ignore[assignment,func-returns-value]
    with contextlib.suppress(AttributeError):
        world.scene.nodes()
    world.scene.core.handle = handle  # type: ignore[method-assign]
    return seen[0]


# -- order ---------------------------------------------------------------------------------------


async def test_facts_are_durable_before_any_effect_of_theirs_starts() -> None:
    world = ready()
    world.put(node_seen(world))
    async with world.running():
        await world.until(lambda: world.started)
    assert world.log == ["Placed", "start SubmitJob"]


async def test_observations_that_wait_share_one_commit_in_their_order() -> None:
    world = World()
    world.put(*files("A", "B", "C"))
    async with world.running():
        await world.until(lambda: world.journal.appended)
    (steps,) = world.journal.appended
    assert [step.facts[0].tilt_series_name for step in steps] == ["A", "B", "C"]  # type: ignore[attr-defined]
    assert world.recorded == ["NoneType", "FilesObserved", "FilesObserved", "FilesObserved"]


async def test_a_commit_holds_no_more_than_its_share() -> None:
    world = World()
    world.put(*files(*(f"TS_{number}" for number in range(2 * BATCH_MAX + 3))))
    async with world.running():
        await world.until(lambda: len(world.journal.appended) == 3)
    assert [len(steps) for steps in world.journal.appended] == [BATCH_MAX, BATCH_MAX, 3]


async def test_what_leads_to_no_fact_costs_no_commit() -> None:
    world = World()
    world.put(asked("1"), o.ServerUnreachable(at=AT, detail="no answer"))
    async with world.running():
        await world.until(lambda: world.started)
    assert world.log == ["start Reply"]


async def test_after_a_restart_everything_outstanding_is_started_first() -> None:
    before = Scene()
    before.nodes()
    before.complete()
    before.nodes()
    scene = Scene(state=before.core.state, at=before.now)
    scene.core.performing._started.clear()
    world = World(scene)
    world.clock.at = before.now
    world.put(asked("1"))
    async with world.running():
        await world.until(lambda: len(world.started) == 2)
    assert world.log == ["start SubmitJob", "start Reply"]


# -- a journal that cannot be written ------------------------------------------------------------


async def test_while_the_journal_cannot_be_written_nothing_is_performed_or_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ready()
    world.journal.failing = 10**6
    monkeypatch.setattr(rooms, "APPEND_RETRY_SECONDS", (0.0,))
    world.put(node_seen(world), asked("1"))
    async with world.running():
        await world.until(lambda: world.log.count("append failed") == 3)
        assert world.started == world.recorded[1:] == []
        assert world.loop.stuck == (
            "the journal cannot be written (database or disk is full); free space on its disk or mend it"
        )
        assert world.loop.ahead
        world.put(asked("2"))
        await world.until(lambda: world.log.count("append failed") == 6)
        assert world.started == []
        world.journal.failing = 0
        await world.until(lambda: len(world.started) == 3)
        assert (world.loop.stuck, world.loop.ahead) == ("", False)
    assert [line for line in world.log if line != "append failed"] == [
        "Placed",
        "start SubmitJob",
        "start Reply",
        "start Reply",
    ]


@pytest.mark.usefixtures("no_pauses")
async def test_trouble_with_the_journal_is_logged_each_time_and_its_end_once() -> None:
    world = World()
    world.journal.failing = 2
    world.put(*files("A"))
    with structlog.testing.capture_logs() as lines:
        async with world.running():
            await world.until(lambda: world.journal.appended)
            await world.until(lambda: not world.loop.stuck)
    assert [(line["log_level"], line.get("tries")) for line in lines] == [
        ("error", 0),
        ("error", 1),
        ("info", None),
    ]
    assert lines[-1]["event"] == "the journal can be written again"


async def test_the_pauses_between_two_tries_grow_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    world, pauses = World(), []
    sleep = asyncio.sleep

    async def count(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(rooms.asyncio, "sleep", count)
    world.journal.failing = 7
    world.put(*files("A"))
    async with world.running():
        await world.until(lambda: world.journal.appended)
    assert pauses == [*rooms.APPEND_RETRY_SECONDS, 10.0, 10.0]


async def test_what_was_appended_after_trouble_is_in_the_journal_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real journal: a commit that failed leaves nothing behind."""
    journal = Journal.open(tmp_path / "journal.sqlite")
    monkeypatch.setattr(rooms, "APPEND_RETRY_SECONDS", (0.0,))
    world, tries, see = World(), [], Journal._see_found

    def fail_twice(journal: Journal, fact: Any, last: Any) -> None:
        tries.append(fact)
        if len(tries) < 3:
            raise sqlite3.OperationalError("database or disk is full")
        see(journal, fact, last)

    monkeypatch.setitem(_SEEN, f.DatasetFound, fail_twice)
    done = asyncio.Event()
    world.loop = Loop(
        world.scene.core, journal, world._start, world.clock, lambda seen, _: done.set() if seen else None
    )
    world.put(*files("A", "B"))
    async with world.running():
        await asyncio.wait_for(done.wait(), 10)
    assert [sequence for sequence, _ in journal.facts_after(0)] == [1, 2]
    assert journal.load() == world.scene.core.state
    await journal.close()


# -- time ----------------------------------------------------------------------------------------


async def test_an_overdue_wake_up_comes_right_behind_what_waits_in_a_full_inbox() -> None:
    world = World()
    world.scene.see(sighting("TS"))
    world.clock.at = AT + 1000.0
    world.put(*(o.ServerUnreachable(at=AT, detail="no answer") for _ in range(3 * BATCH_MAX)))
    async with world.running():
        await world.until(lambda: world.journal.appended)
    assert world.recorded.index("TimeReached") == 3 * BATCH_MAX + 1, "the core's recovery is the first"
    assert world.log == ["DatasetCompleted"]


async def test_a_wake_up_concludes_nothing_from_the_absence_of_what_waits_in_the_inbox() -> None:
    world = World()
    world.scene.see(sighting("TS"))
    world.clock.at = AT + 1000.0
    grown = sighting("TS", "2", size_bytes=5 << 30)
    world.put(o.FilesObserved(at=AT + 999.0, feed="f", up=True, sightings=(grown,)))
    async with world.running():
        await world.until(lambda: "TimeReached" in world.recorded)
    assert world.log == [], "it is not quiet"


async def test_a_wake_up_that_is_still_to_come_lets_observations_pass() -> None:
    world = World()
    world.scene.see(sighting("TS"))
    world.put(*files("A"))
    async with world.running():
        await world.until(lambda: len(world.recorded) == 2)
    assert "TimeReached" not in world.recorded


async def test_the_loop_wakes_by_itself_when_the_core_asked_for_it() -> None:
    world = World()
    world.scene.see(sighting("TS"))
    wake_at = world.scene.core.next_wake_at
    assert wake_at is not None
    world.clock.at = wake_at - 0.01  # a hundredth of a second, for real
    done = asyncio.Event()
    world.loop._recorded = lambda seen, _: done.set() if isinstance(seen, o.TimeReached) else None
    async with world.running():
        await asyncio.wait_for(done.wait(), 10)


# -- snapshots -----------------------------------------------------------------------------------


async def test_a_snapshot_is_taken_when_it_is_due_and_after_the_effects_were_started() -> None:
    world = ready()
    world.put(node_seen(world))
    async with world.running():
        await world.until(lambda: world.started)
        assert (world.journal.saved, world.journal.asked) == ([], [1])
        world.journal.due = True
        world.put(*files("A"))
        await world.until(lambda: world.journal.saved)
    assert world.log == ["Placed", "start SubmitJob", "DatasetFound", "saved"]
    assert (world.journal.saved, world.journal.asked) == ([2], [1, 2])


@pytest.mark.usefixtures("no_pauses")
async def test_no_snapshot_is_taken_of_what_is_not_durable() -> None:
    world = World()
    world.journal.due, world.journal.failing = True, 3
    world.put(*files("A"))
    async with world.running():
        await world.until(lambda: world.journal.saved)
    assert world.log == ["append failed"] * 3 + ["DatasetFound", "saved"]


async def test_a_snapshot_that_fails_is_told_and_stops_nothing() -> None:
    world = World()
    world.journal.due = world.journal.save_fails = True
    world.put(*files("A"))
    with structlog.testing.capture_logs() as lines:
        async with world.running():
            await world.until(lambda: lines)
            world.put(asked("1"))
            await world.until(lambda: world.started)
    assert lines[0]["event"].startswith("no snapshot could be written (database or disk is full)")
    assert not world.loop.stuck


async def test_a_busy_daemon_makes_few_commits() -> None:
    world = World()
    world.loop = Loop(
        world.scene.core, world.journal, world._start, world.clock, world._recorded, gather_seconds=0.2
    )
    began = asyncio.get_running_loop().time()
    async with world.running():
        for number in range(AT_ONCE):
            world.put(*files(f"first_{number}.mrc"))
            await world.until(lambda number=number: len(world.journal.appended) == number + 1)
        assert asyncio.get_running_loop().time() - began < 0.2, "after a rest some come at once"
        for name in ("b.mrc", "c.mrc", "d.mrc"):
            world.put(*files(name))
            await asyncio.sleep(0.01)
        assert len(world.journal.appended) == AT_ONCE, "then they wait for one another"
        async with asyncio.timeout(10.0):
            while len(world.recorded) < AT_ONCE + 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(world.journal.appended) == AT_ONCE + 1
        assert asyncio.get_running_loop().time() - began >= 0.15


async def test_who_has_enough_for_a_commit_does_not_wait_for_more() -> None:
    world = World()
    world.loop = Loop(
        world.scene.core, world.journal, world._start, world.clock, world._recorded, gather_seconds=3600.0
    )
    world.put(*files(*(f"TS_{number}" for number in range(10 * BATCH_MAX))))
    async with world.running():
        await world.until(lambda: len(world.journal.appended) >= 9)
