"""What systemd is told, and that only a loop that turns says that it is alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shell.daemon_process import DaemonProcess, Site, running
from shell.review_core import Scene
from shell.test_loop import Clock, FakeJournal, files
from tiltd.daemon import loop as rooms
from tiltd.daemon.loop import Loop
from tiltd.daemon.systemd import Systemd

BLOCKABLE = """
import os, runpy, sys, time
from tiltd.daemon.core.core import Core
from tiltd.daemon.journal import Journal

def hanging(work):
    def hang(*args):
        while os.path.exists(os.environ["TEST_HANG"]):
            time.sleep(0.02)
        return work(*args)
    return hang

if os.environ["TEST_HANG_IN"] == "core":
    Core.handle = hanging(Core.handle)
else:
    Journal.append_now = hanging(Journal.append_now)
sys.argv[0] = "tiltd"
runpy.run_module("tiltd.daemon", run_name="__main__", alter_sys=True)
"""
"""The daemon, which hangs while the file that TEST_HANG names is there: in its core, and all of it stands
still; or in the journal's thread, and everything but the loop goes on."""


class Ear:
    """systemd's side: the words that came, in their order."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.words: list[str] = []

    def heard(self) -> list[str]:
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.words += self.socket.recv(65536).decode().split("\n")
        return self.words

    def beats(self) -> int:
        return self.heard().count("WATCHDOG=1")


@pytest.fixture(params=["abstract", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@tiltd-test-{os.getpid()}-{time.monotonic_ns()}" if request.param == "abstract" else "notify"


@pytest.fixture
def ear(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    monkeypatch.chdir(tmp_path)  # a path of a socket may have 107 bytes, and pytest's folders are long
    made = Ear(address)
    yield made
    made.socket.close()


def test_the_words_of_a_life(ear: Ear, address: str) -> None:
    systemd = Systemd(address)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.ready()
    systemd.status("3 series\nWATCHDOG=1")
    systemd.status("3 series\nWATCHDOG=1")
    systemd.reloading()
    systemd.extend(90.0)
    systemd.stopping()
    words = ear.heard()
    reloaded_at = int(words.pop(3).removeprefix("MONOTONIC_USEC="))
    assert before <= reloaded_at <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    # One line: what a sentence holds cannot be taken for a word.
    assert words == [
        "READY=1",
        "STATUS=3 series\\nWATCHDOG=1",
        "RELOADING=1",
        "EXTEND_TIMEOUT_USEC=90000000",
        "STOPPING=1",
    ]


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_beats_are_as_many_as_it_takes(ear: Ear, address: str) -> None:
    now = [100.0]
    systemd = Systemd(address, 8.0, lambda: now[0])
    for _ in range(100):
        systemd.beat()
    assert ear.beats() == 1
    now[0] += 1.9
    systemd.beat()
    assert ear.beats() == 1
    now[0] += 0.2
    systemd.beat()
    assert ear.beats() == 2


@pytest.mark.parametrize("address", ["file"], indirect=True)
def test_nobody_watches_and_nothing_beats(ear: Ear, address: str) -> None:
    Systemd(address).beat()
    assert ear.heard() == []


def test_without_systemd_nothing_is_said_and_nothing_fails() -> None:
    for systemd in (Systemd(), Systemd("/nowhere/notify", 1.0), Systemd("x" * 200, 1.0)):
        systemd.ready()
        systemd.beat()
        systemd.stopping()


@pytest.mark.parametrize(
    ("watchdog", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_environment_is_taken_and_not_passed_on(watchdog: dict[str, str], seconds: float | None) -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "PATH": "/bin"} | watchdog
    assert Systemd.from_environment(environ).watchdog_seconds == seconds
    assert environ == {"PATH": "/bin"}


class Stage:
    """A loop whose turns are counted, on a journal that can hang."""

    def __init__(self) -> None:
        self.turns = 0
        self.journal = FakeJournal([])
        self.loop = Loop(
            Scene().core, self.journal, lambda effect: None, Clock(), turned=self._turned, turn_seconds=0.01
        )

    def _turned(self) -> None:
        self.turns += 1

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5.0):
            while not what():  # noqa: ASYNC110 - what is waited for is a count
                await asyncio.sleep(0.005)


async def test_an_idle_loop_turns() -> None:
    stage = Stage()
    task = asyncio.create_task(stage.loop.run())
    await stage.until(lambda: stage.turns >= 5)
    assert stage.journal.appended == []
    task.cancel()


async def test_a_loop_that_waits_for_its_journal_does_not_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, hangs, entered = Stage(), asyncio.Event(), asyncio.Event()

    async def append(steps: object) -> None:
        entered.set()
        await hangs.wait()

    monkeypatch.setattr(stage.journal, "append", append)
    task = asyncio.create_task(stage.loop.run())
    await stage.until(lambda: stage.turns >= 1)
    for observation in files("TS_01"):
        await stage.loop.put(observation)
    async with asyncio.timeout(5.0):
        await entered.wait()
    turns = stage.turns
    await asyncio.sleep(0.1)  # ten times as long as an idle loop takes for a turn
    assert stage.turns == turns
    hangs.set()
    await stage.until(lambda: stage.turns > turns)
    task.cancel()


async def test_a_loop_whose_disk_is_full_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again and tells so: a restart would free no disk."""
    monkeypatch.setattr(rooms, "APPEND_RETRY_SECONDS", (0.0,))
    stage = Stage()
    task = asyncio.create_task(stage.loop.run())
    await stage.until(lambda: stage.turns >= 1)
    stage.journal.failing, turns = 50, stage.turns
    for observation in files("TS_01"):
        await stage.loop.put(observation)
    await stage.until(lambda: not stage.journal.failing)
    assert stage.turns >= turns + 50
    task.cancel()


@pytest.fixture
def hang(tmp_path: Path) -> Path:
    return tmp_path / "hang"


@pytest.fixture
def where(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "core"))


@pytest.fixture
def daemon(tmp_path: Path, ear: Ear, address: str, hang: Path, where: str) -> Iterator[DaemonProcess]:
    place = address if address.startswith("@") else str(tmp_path / address)
    env = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "400000", "TEST_HANG": str(hang)}
    env["TEST_HANG_IN"] = where
    with running(Site(tmp_path / "site-folder"), python=BLOCKABLE, env=env) as made:
        yield made


@pytest.mark.parametrize("where", ["core", "journal"], indirect=True)
@pytest.mark.parametrize("address", ["abstract"], indirect=True)
def test_a_loop_that_is_blocked_does_not_feed_the_watchdog(
    daemon: DaemonProcess, ear: Ear, hang: Path
) -> None:
    """Nothing happens, and it beats; its core hangs, and it does not; it goes on, and it beats."""
    assert "READY=1" in ear.heard()
    beats = ear.beats()
    daemon.wait(lambda: ear.beats() >= beats + 3)
    hang.touch()
    daemon.site.feed("series.mrc")
    # Feeds and nodes are looked at several times a second, so it is in there at once.
    settled_at = time.monotonic() + 0.4
    daemon.wait(lambda: time.monotonic() > settled_at)
    beats = ear.beats()
    silent_until = time.monotonic() + 1.0  # more than twice the watchdog's time
    daemon.wait(lambda: time.monotonic() > silent_until)
    assert ear.beats() == beats
    hang.unlink()
    daemon.wait(lambda: ear.beats() > beats)
    assert daemon.stop() == 0
    assert "STOPPING=1" in ear.heard()
    status = [word for word in ear.heard() if word.startswith("STATUS=")]
    assert any("series in hand" in word for word in status) and "stopping" in status[-1]


@pytest.mark.parametrize("address", ["abstract"], indirect=True)
def test_jobs_do_not_get_the_socket_and_a_reload_is_told(
    daemon: DaemonProcess, ear: Ear, tmp_path: Path
) -> None:
    site = daemon.site
    site.step.write_text(site.step.read_text() + f"\nenv >{tmp_path}/environment\n")
    site.feed("series.mrc")
    daemon.delivered("series")
    told = (tmp_path / "environment").read_text()
    assert "TILTD_JOB_ID=" in told and "NOTIFY" not in told and "WATCHDOG" not in told
    os.kill(daemon.pid, 1)
    words = daemon.wait(lambda: (heard := ear.heard()).count("READY=1") == 2 and heard)
    assert words.index("RELOADING=1") < len(words) - words[::-1].index("READY=1") - 1


@pytest.mark.parametrize("address", ["abstract"], indirect=True)
def test_systemd_waits_while_the_journal_is_copied_for_an_upgrade(daemon: DaemonProcess, ear: Ear) -> None:
    daemon.stop()
    with contextlib.closing(sqlite3.connect(daemon.site.state / "journal.sqlite")) as journal, journal:
        journal.execute("UPDATE meta SET value = '0.0.9' WHERE key = 'release'")
    told = len(ear.heard())
    daemon.start()
    words = ear.heard()[told:]
    assert words.index("EXTEND_TIMEOUT_USEC=60000000") < words.index("READY=1")
    assert (daemon.site.state / "journal.left-by-0.0.9.sqlite").exists()
