"""Looks at the spool: hints save looks, and nothing depends on them."""

# ruff: noqa: ASYNC110, ASYNC230 - the files are tiny, and what is waited for comes from a thread

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiltd.daemon import poll, spool_watch, told
from tiltd.daemon.clock import Clock
from tiltd.daemon.core import observations as o
from tiltd.daemon.hands import Hands
from tiltd.daemon.spool import AttemptSeen, Spool, stat_of
from tiltd.daemon.spool_watch import AttemptHints, SpoolWatch, events_of
from tiltd.plugins.api import Temporary

IDS = [f"x.a{number}" for number in range(5)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    for attempt_id in IDS:
        spool.prepare(attempt_id, {"format": 1, "nonce": "n"})
    return spool


def says(spool: Spool, attempt_id: str, what: str = "progress") -> None:
    with open(spool.folder(attempt_id) / what, "ab") as file:
        file.write(b'\n{"phase": "step", "at": 1.0}\n')


def changed(watch: SpoolWatch, ids: list[str] = IDS, *, whole: bool = False) -> list[str]:
    gone = [attempt_id for attempt_id in (*IDS, "late.a1") if attempt_id not in ids]
    return [seen.attempt_id for seen in watch.look(ids, gone, whole=whole)]


def once(ids: list[str]) -> Callable[[], tuple[list[str], list[str]]]:
    """They all become live, and stay it: what is asked for later on are changes."""
    left = [(ids, list[str]())]
    return lambda: left.pop() if left else ([], [])


def test_where_the_kernel_tells_only_what_moved_is_looked_at(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = SpoolWatch(spool)
    assert watch.descriptor >= 0
    assert changed(watch, whole=True) == IDS and not watch.sees_all, "they may have moved just before"
    assert changed(watch) == [] and watch.sees_all and not watch.relied
    looked: list[str] = []
    real = SpoolWatch._signature

    def noted(self: SpoolWatch, folder: str, opened: bool) -> tuple[object, ...]:
        looked.append(folder)
        return real(self, folder, opened)

    monkeypatch.setattr(SpoolWatch, "_signature", noted)
    says(spool, IDS[3])
    assert changed(watch) == [IDS[3]] and watch.relied
    assert looked == [str(spool.folder(IDS[3]))]
    says(spool, IDS[1], "end")
    assert changed(watch, whole=True) == [IDS[1]] and watch.relied
    assert changed(watch) == []
    watch.close()


def test_an_attempt_that_is_new_or_not_there_yet_is_looked_at_until_it_is_watched(spool: Spool) -> None:
    watch = SpoolWatch(spool)
    ids = [*IDS, "late.a1"]
    for _ in range(2):
        changed(watch, ids)
    assert not watch.sees_all
    spool.prepare("late.a1", {"format": 1, "nonce": "n"})
    assert changed(watch, ids) == ["late.a1"]
    says(spool, "late.a1")
    assert changed(watch, ids) == ["late.a1"]
    changed(watch, ids)
    assert watch.sees_all
    assert changed(watch, IDS) == [] and watch.sees_all, "one that is over is watched no more"


def test_of_an_attempt_that_is_not_prepared_a_look_asks_for_its_folder_alone(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, asked = SpoolWatch(spool), list[str]()
    changed(watch, ["late.a1"])
    monkeypatch.setattr(spool_watch, "stat_of", lambda path: asked.append(path) or stat_of(path))
    changed(watch, ["late.a1"], whole=True)
    assert asked == [str(spool.folder("late.a1"))]


def test_a_change_that_nobody_told_of_ends_the_reliance_for_good(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where the runner is on another machine: the daemon's own changes are told, its are not."""
    watch = SpoolWatch(spool)
    for _ in range(2):
        changed(watch)
    says(spool, IDS[0])
    assert changed(watch) == [IDS[0]] and watch.relied
    with monkeypatch.context() as patch:
        patch.setattr(AttemptHints, "_drain", lambda self: os.read(self.descriptor, 65536) and set())
        says(spool, IDS[2])
        assert changed(watch, whole=True) == [IDS[2]]
        assert watch.relied, "the kernel may show a change a moment before it tells of it"
    assert changed(watch) == [] and not watch.relied
    says(spool, IDS[0])
    changed(watch)
    assert not watch.relied


def test_without_hints_every_look_is_whole(spool: Spool) -> None:
    watch = SpoolWatch(spool, hints=False)
    changed(watch)
    says(spool, IDS[4])
    assert changed(watch) == [IDS[4]] and not watch.relied and not watch.sees_all


def test_the_files_of_an_attempt_that_nobody_claimed_are_opened_once_something_stands_in_them(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its four changes two are the daemon's own: its folder made, and a script for the job in it."""
    opened: list[str] = []
    real = told._raw

    def noted(path: str) -> list[bytes]:
        opened.append(os.path.relpath(path, spool.root / "attempts"))
        return real(path)

    monkeypatch.setattr(told, "_raw", noted)
    watch = SpoolWatch(spool, hints=False)
    (spool.folder(IDS[1]) / "job.json").rename(spool.folder(IDS[1]) / "claimed.7")
    assert changed(watch) == IDS and opened == [f"{IDS[1]}/progress", f"{IDS[1]}/end"]
    opened.clear()
    (spool.folder(IDS[0]) / "job.sh").touch()
    assert changed(watch) == [IDS[0]] and opened == []
    says(spool, IDS[0])  # and the claim is not to be seen yet, as on NFS
    assert changed(watch) == [IDS[0]] and opened == [f"{IDS[0]}/progress", f"{IDS[0]}/end"]


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_look_that_failed_had_found_is_news_to_the_next(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    watch = SpoolWatch(spool)
    for _ in range(2):
        changed(watch)
    says(spool, IDS[0])
    says(spool, IDS[2])
    real = Spool.read

    def fails(self: Spool, attempt_id: str, **how: Any) -> AttemptSeen:
        if attempt_id == IDS[2]:
            raise Temporary("the server is away")
        return real(self, attempt_id, **how)

    with monkeypatch.context() as patch, pytest.raises(Temporary):
        patch.setattr(Spool, "read", fails)
        changed(watch, whole=whole)
    assert changed(watch) == [IDS[0], IDS[2]] and watch.relied


def test_lost_events_make_everything_worth_a_look(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    hints = AttemptHints()
    folders = {attempt_id: str(spool.folder(attempt_id)) for attempt_id in IDS}
    assert hints.take(folders, ()) == (set(IDS), set())
    overflow = (-1).to_bytes(4, "little", signed=True) + (0x4000).to_bytes(4, "little") + bytes(8)
    answers = [overflow, b""]
    monkeypatch.setattr("tiltd.daemon.spool_watch.os.read", lambda fd, size: answers.pop(0))
    assert hints.take({}, ()) == (set(), set(IDS))
    monkeypatch.undo()
    hints.close()


def test_events_are_read_one_behind_the_other() -> None:
    one = (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(4) + (16).to_bytes(4, "little")
    two = (7).to_bytes(4, "little") + (0x80).to_bytes(4, "little") + bytes(4) + bytes(4)
    events = list(events_of(one + b"progress".ljust(16, b"\0") + two))
    assert events == [(1, 2, b"progress"), (7, 0x80, b"")]


@pytest.mark.parametrize("seconds", [0.01, 0.3])
async def test_what_is_hinted_at_is_told_though_whole_looks_are_far_apart(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """However short the period: a look that is saved must never be a word that is lost."""
    monkeypatch.setattr(poll, "HINTED_LOOK_SECONDS", 600.0)
    monkeypatch.setattr(poll, "HINT_SECONDS", 0.02)
    heard: list[o.SpoolObserved] = []

    async def put(observation: o.Observation) -> None:
        assert isinstance(observation, o.SpoolObserved)
        heard.append(observation)

    watching = asyncio.create_task(poll.watch_spool(spool, Hands(), once(IDS), put, Clock(), seconds))
    try:
        for number, attempt_id in enumerate([*IDS, *IDS, *IDS]):
            folder = spool.folder(attempt_id)
            if (folder / "job.json").exists():
                (folder / "job.json").rename(folder / "claimed.7")
            phase = f"step{number}"
            with open(folder / "progress", "ab") as file:
                file.write(json.dumps({"phase": phase, "at": 1.0}).encode() + b"\n")
            async with asyncio.timeout(10.0):
                while not any(seen.progress and seen.progress.phase == phase for seen in heard):
                    await asyncio.sleep(0.005)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def test_after_a_look_that_failed_all_are_looked_at(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had found may be in no hint, and the next whole look far away."""
    looks: list[tuple[list[str], bool]] = []
    relied = property(lambda self: True)

    def look(self: SpoolWatch, came: list[str], gone: list[str], *, whole: bool) -> list[AttemptSeen]:
        looks.append((came, whole))
        if len(looks) == 2:
            raise Temporary("the server is away")
        return []

    monkeypatch.setattr(poll, "HINTED_LOOK_SECONDS", 600.0)
    monkeypatch.setattr(SpoolWatch, "look", look)
    monkeypatch.setattr(SpoolWatch, "relied", relied)
    watching = asyncio.create_task(poll.watch_spool(spool, Hands(), once(IDS), no_news, Clock(), 0.01))
    try:
        async with asyncio.timeout(10.0):
            while len(looks) < 4:
                await asyncio.sleep(0.005)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    assert looks[:4] == [(IDS, True), ([], False), ([], True), ([], False)]


async def no_news(observation: o.Observation) -> None:
    raise AssertionError(observation)
