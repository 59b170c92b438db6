"""Work that waits for the disk: together, each with its own errors, and apart where the disks are."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tiltd.daemon import commits as commits_module
from tiltd.daemon import durable
from tiltd.daemon.commits import TOGETHER_MAX, Commits
from tiltd.daemon.durable import Durably, ToDisk, at_once, write_new
from tiltd.daemon.hands import Hands
from tiltd.daemon.perform import VERIFYING, Perform

ABOUT: contextvars.ContextVar[str] = contextvars.ContextVar("about", default="nothing")


@pytest.fixture
def hands() -> Hands:
    return Hands(patience_seconds=30.0)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was put on the disk, and "|" between what was waited for together."""
    told: list[str] = []
    real, together = os.fsync, durable.wait_for_disk

    def fsync(fd: int) -> None:
        told.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        if told[-1].startswith("bad"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    def wait(given: object) -> None:
        told.append("|")
        together(given)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(commits_module, "wait_for_disk", wait)
    return told


def written(folder: Path, *names: str) -> Durably[str]:
    """Each name after the one before it is on disk."""
    for name in names:
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            yield ToDisk((fd,), ())
        finally:
            os.close(fd)
    return f"{names[-1]} {ABOUT.get()}"


async def test_what_waits_at_the_same_time_waits_together(
    hands: Hands, tmp_path: Path, synced: list[str]
) -> None:
    commits = Commits(hands, gather_seconds=0.1)
    await commits.do("here", written, tmp_path, "before")
    first, second = await asyncio.gather(
        commits.do("here", written, tmp_path, "a1", "a2"), commits.do("here", written, tmp_path, "b1", "b2")
    )
    assert (first, second) == ("a2 nothing", "b2 nothing")
    assert synced == ["|", "before", "|", "a1", "b1", "|", "a2", "b2"]


async def test_after_a_commit_the_next_ones_gather(hands: Hands, tmp_path: Path, synced: list[str]) -> None:
    loop = asyncio.get_running_loop()
    commits = Commits(hands, gather_seconds=0.3)
    began = loop.time()
    await commits.do("here", written, tmp_path, "first")
    assert loop.time() - began < 0.2, "a daemon at rest does not wait"
    waiting = [
        asyncio.create_task(commits.do("here", written, tmp_path, name)) for name in ("second", "third")
    ]
    await asyncio.gather(*waiting)
    assert synced == ["|", "first", "|", "second", "third"]
    assert loop.time() - began >= 0.3


async def test_many_wait_for_no_more(hands: Hands, tmp_path: Path, synced: list[str]) -> None:
    commits = Commits(hands, gather_seconds=3600.0)
    await commits.do("here", written, tmp_path, "first")
    names = [f"n{number}" for number in range(TOGETHER_MAX)]
    done = await asyncio.wait_for(
        asyncio.gather(*(commits.do("here", written, tmp_path, name) for name in names)), 30.0
    )
    assert done == [f"{name} nothing" for name in names]
    assert sorted(synced) == sorted(["|", "first", "|", *names])


async def test_what_the_disk_refuses_is_told_to_whom_it_concerns(
    hands: Hands, tmp_path: Path, synced: list[str]
) -> None:
    commits = Commits(hands)
    bad, good = await asyncio.gather(
        commits.do("here", written, tmp_path, "bad", "never"),
        commits.do("here", written, tmp_path, "good"),
        return_exceptions=True,
    )
    assert isinstance(bad, OSError) and bad.errno == errno.EIO
    assert good == "good nothing"
    assert not (tmp_path / "never").exists()


async def test_nobody_waits_for_ever_behind_a_bug(
    hands: Hands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(together: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(commits_module, "wait_for_disk", broken)
    commits = Commits(hands)
    done = await asyncio.wait_for(
        asyncio.gather(
            *(commits.do("here", written, tmp_path, name) for name in "ab"), return_exceptions=True
        ),
        10.0,
    )
    assert [type(each) for each in done] == [ZeroDivisionError, ZeroDivisionError]


async def test_where_the_hint_is_refused_it_goes_to_the_disk_all_the_same(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refused)
    folder = tmp_path / "attempts" / "one"
    folder.mkdir(parents=True)
    at_once(write_new(str(folder), {"a": b"1", "b": b"2"}, {}, 0o644))
    assert synced == ["a", "b", "one", "attempts"]


async def test_it_goes_on_as_whoever_began_it(hands: Hands, tmp_path: Path) -> None:
    commits = Commits(hands)

    async def one(name: str) -> str:
        ABOUT.set(name)
        return await commits.do("here", written, tmp_path, f"{name}1", f"{name}2")

    assert await asyncio.gather(one("x"), one("y")) == ["x2 x", "y2 y"]


async def test_a_disk_that_hangs_stops_only_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, real = threading.Event(), os.fsync

    def fsync(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to("/dev/shm"):
            release.wait(30.0)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    other = Path("/dev/shm") / f"tiltd-test-{os.getpid()}"
    other.mkdir()
    commits = Commits(Hands(patience_seconds=0.02), gather_seconds=0.2)
    try:
        if os.stat(other).st_dev == os.stat(tmp_path).st_dev:  # noqa: PTH116
            pytest.skip("/dev/shm is no file system of its own here")
        await commits.do("here", written, tmp_path, "first")
        hung = asyncio.create_task(commits.do("there", written, other, "hung"))
        free = asyncio.create_task(commits.do("here", written, tmp_path, "free"))
        assert await asyncio.wait_for(free, 10.0) == "free nothing"
        assert not hung.done()
        release.set()
        assert await hung == "hung nothing"
    finally:
        release.set()
        (other / "hung").unlink(missing_ok=True)
        other.rmdir()


async def test_a_place_that_hangs_stops_only_its_own(tmp_path: Path) -> None:
    """Work looks at its destination before it waits for the spool's disk, which is the same for all."""
    release = threading.Event()
    commits = Commits(Hands(patience_seconds=0.02), gather_seconds=0.2)

    def looking(name: str, hangs: bool) -> Durably[str]:
        if hangs:
            release.wait(30.0)
        return (yield from written(tmp_path, name))

    for place in ("dead", "healthy"):
        await commits.do(place, looking, f"first {place}", False)
    hung = asyncio.create_task(commits.do("dead", looking, "hung", True))
    free = asyncio.create_task(commits.do("healthy", looking, "free", False))
    try:
        assert await asyncio.wait_for(free, 10.0) == "free nothing"
        assert not hung.done()
    finally:
        release.set()
    assert await hung == "hung nothing"


async def test_who_is_cancelled_closes_what_it_opened_and_stops_nobody(tmp_path: Path) -> None:
    hands, closed = Hands(patience_seconds=0.02), list[str]()
    commits = Commits(hands, gather_seconds=0.2)

    def noted(name: str) -> Durably[None]:
        try:
            yield from written(tmp_path, name, f"{name}2")
        finally:
            closed.append(name)

    await commits.do("here", written, tmp_path, "first")
    leaving = asyncio.create_task(commits.finish(await commits.begin("here", noted, "left")))
    staying = asyncio.create_task(commits.finish(await commits.begin("here", noted, "stays")))
    never = asyncio.create_task(commits.do("here", noted, "never"))
    await asyncio.sleep(0)
    leaving.cancel()
    never.cancel()
    await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving
    del leaving, staying, never
    assert sorted(closed) == ["left", "stays"]
    assert not (tmp_path / "left2").exists() and not (tmp_path / "never").exists()


async def test_what_is_quick_is_begun_with_the_commit_that_it_waits_for(
    hands: Hands, tmp_path: Path, synced: list[str]
) -> None:
    commits, begun = Commits(hands, gather_seconds=0.2), list[str]()

    def noted(name: str) -> Durably[str]:
        begun.append(name)
        return (yield from written(tmp_path, name))

    def nothing() -> Durably[str]:
        return "nothing"
        yield

    assert await commits.do("here", nothing) == "nothing", "which tells of no file system"
    await commits.do("here", noted, "first")
    slow = await commits.begin("here", noted, "slow")
    quick = asyncio.create_task(commits.do("here", noted, "quick"))
    await asyncio.sleep(0)
    assert begun == ["first", "slow"] and not quick.done()
    assert await asyncio.gather(commits.finish(slow), quick) == ["slow nothing", "quick nothing"]
    assert sorted(synced[2:]) == ["quick", "slow", "|"], "one commit for both"
    assert await commits.do("here", nothing) == "nothing"
    with pytest.raises(NotADirectoryError):
        await commits.do("here", noted, "first/below")


async def test_two_results_are_read_at_once_and_more_wait_to_be_published() -> None:
    reading, most, all_published = 0, 0, asyncio.Barrier(8)

    class Counting:
        async def begin(self, *_: object) -> None:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            await asyncio.sleep(0)
            reading -= 1

        async def finish(self, _: None) -> int:
            await all_published.wait()
            return 8

    dataset = SimpleNamespace(labels={}, feed="krios1", tilt_series_name="ts_01", revision=1, run=1)
    given = SimpleNamespace(
        _find=lambda effect: (dataset, None), _destination=lambda dataset: "/final", _judge=lambda *_: None,
        _collected=None, _clock=SimpleNamespace(now=float), _commits=Counting(),
        _verifying=asyncio.Semaphore(VERIFYING),
    )  # fmt: skip
    collect = cast(Any, Perform._collect)
    assert await asyncio.gather(*(collect(given, None) for _ in range(8))) == [8] * 8, "they wait together"
    assert most == VERIFYING


async def test_a_folder_of_several_is_waited_for_once_and_refused_to_all(
    hands: Hands, tmp_path: Path, synced: list[str]
) -> None:
    def one(name: str, parent: str) -> Durably[str]:
        folder = tmp_path / parent / name
        folder.mkdir(parents=True)
        yield from write_new(str(folder), {f"file_{name}": b"1"}, {}, 0o644)
        return name

    commits = Commits(hands, gather_seconds=0.1)
    await commits.do("here", written, tmp_path, "before")
    done = await asyncio.gather(*(commits.do("here", one, name, "attempts") for name in "abc"))
    assert done == ["a", "b", "c"]
    assert synced == ["|", "before", "|", "file_a", "file_b", "file_c", "a", "attempts", "b", "c"]
    refused = await asyncio.gather(
        *(commits.do("here", one, name, "bad") for name in "de"),
        commits.do("here", one, "f", "good"),
        return_exceptions=True,
    )
    assert [type(each) for each in refused] == [OSError, OSError, str]
    assert not list((tmp_path / "bad").glob("*/file_*")), "what is not there for certain is not there"


def test_alone_and_at_once(tmp_path: Path, synced: list[str]) -> None:
    assert at_once(written(tmp_path, "a", "b")) == "b nothing"
    assert synced == ["a", "b"]
    with pytest.raises(OSError, match="Input/output"):
        at_once(written(tmp_path, "bad"))


def test_new_files_and_all_their_names(tmp_path: Path, synced: list[str]) -> None:
    folder = tmp_path / "attempts" / "one"
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(b"what an earlier try has left there")
    at_once(write_new(str(folder), {"job.json": b"{}"}, {"job.sh": b"#!/bin/sh\n"}, 0o640))
    assert synced == ["job.json", "one", "attempts"]
    assert (folder / "job.json").read_bytes() == b"{}" and (folder / "job.sh").read_bytes() == b"#!/bin/sh\n"
    assert sorted(os.listdir(folder)) == ["job.json", "job.sh"]
    assert (folder / "job.sh").stat().st_mode & 0o777 == 0o640
