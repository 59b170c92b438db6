"""Clocks that jump, feeds full of history, journals lost or old: nothing runs by itself that should not."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from pathlib import Path

import psutil
import pytest

from plugins.series_files import mdoc, stack
from shell.daemon_process import DaemonProcess, Site, running, wait_until

WEEK_SECONDS = 7 * 86400.0

JUMPING_CLOCK = """
import os, pathlib, signal, time
real, jump, told = time.time, [0.0], pathlib.Path(os.environ["TILTD_TEST_JUMP"])
def look(*_):
    jump[0] = float(told.read_text())
look()
signal.signal(signal.SIGUSR1, look)
time.time = lambda: real() + jump[0]
from tiltd.daemon.__main__ import main
raise SystemExit(main())
"""
"""A daemon whose wall clock is set from outside: at its start, and at SIGUSR1."""


@pytest.mark.parametrize("seconds", [WEEK_SECONDS, -WEEK_SECONDS], ids=["forward", "back"])
def test_a_clock_that_jumps_while_the_daemon_runs_and_over_a_restart(tmp_path: Path, seconds: float) -> None:
    site, jump = Site(tmp_path, step_seconds=1.5), tmp_path / "jump"
    jump.write_text("0")
    with running(site, python=JUMPING_CLOCK, env={"TILTD_TEST_JUMP": str(jump)}) as daemon:
        site.feed("running.mrc")
        daemon.wait(site.runs)
        jump.write_text(str(seconds))
        psutil.Process(daemon.pid).send_signal(signal.SIGUSR1)
        site.feed("after.mrc")
        daemon.delivered("running", "after")
        daemon.settled()
        site.feed("over_restart.mrc")
        daemon.wait(lambda: len(site.runs()) == 3)
        daemon.kill()
        daemon.start()
        site.feed("after_restart.mrc")
        daemon.delivered("running", "after", "over_restart", "after_restart")
        daemon.settled()
        assert daemon.ready()
    assert len(site.runs()) == len(set(site.runs())) == 4


def test_two_years_of_series_at_the_first_start_are_not_run_until_they_are_released(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0, cores=4)
    sessions, a_session = 100, 40
    pixels, text = stack(), mdoc()
    for session in range(sessions):
        folder = site.feeds["krios1"] / f"p/s{session:03d}"
        folder.mkdir(parents=True)
        for number in range(a_session):
            (folder / f"ts_{session:03d}_{number:02d}.mrc").write_bytes(pixels)
            (folder / f"ts_{session:03d}_{number:02d}.mrc.mdoc").write_bytes(text)
    with running(site) as daemon:
        daemon.wait(lambda: f"held_for_release={sessions * a_session}" in site.log_text(), 30)
        site.feed("new.mrc", folder="p/s000")
        daemon.delivered("new")
        rows = daemon.rows()
        assert rows.pop("new")["state"] == "delivered"
        assert [row["held"] for row in rows.values()] == [["before_tiltd"]] * (sessions * a_session)
        assert psutil.Process(daemon.pid).memory_info().rss < 120 * 2**20
        assert len(site.runs()) == 1
        results = daemon.act("release", selection={"session": "s007"})
        assert [result["ok"] for result in results] == [True] * a_session
        daemon.wait(lambda: len(site.published()) == a_session + 1, 90)
        assert {path.parent.name for path in site.published()} == {"s000", "s007"}
        assert len(site.runs()) == a_session + 1
        daemon.kill()
        daemon.start()
        site.feed("newer.mrc", folder="p/s000")
        daemon.wait(lambda: len(site.published()) == a_session + 2)
        assert len(site.runs()) == a_session + 2


def lose(site: Site) -> None:
    for path in site.state.glob("journal.sqlite*"):
        path.unlink()


def copy_journal(site: Site, target: Path) -> None:
    """A backup, as sqlite makes one beside a running daemon."""
    with sqlite3.connect(site.state / "journal.sqlite") as source, sqlite3.connect(target) as backup:
        source.backup(backup)


def test_a_lost_journal_adopts_running_jobs_and_published_results(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=2.0)
    with running(site) as daemon:
        site.feed("published.mrc")
        site.feed("pruned.mrc", folder="p/s2")
        site.feed("fails_always.mrc")
        daemon.delivered("published", "pruned")
        daemon.wait(lambda: daemon.states()["fails_always"] == "failed")
        daemon.settled()
        site.feed("running.mrc")
        daemon.wait(lambda: len(site.runs()) == 6)
        daemon.wait(lambda: daemon.states().get("running") == "running")
        daemon.stop()
        lose(site)
        for folder in (site.spool / "attempts").glob("pruned*"):
            shutil.rmtree(folder)
        daemon.start()
        daemon.delivered("published", "running")
        assert daemon.held("pruned") == daemon.held("fails_always") == ["before_tiltd"]
        assert "the journal is older than its mark in the spool" in site.log_text()
        assert len(site.runs()) == 6
        assert daemon.act("release", datasets=["pruned"])[0]["ok"]
        daemon.delivered("published", "pruned", "running")
        assert daemon.held("fails_always") == ["before_tiltd"]
        site.feed("new.mrc")
        daemon.delivered("new")
    assert len(site.runs()) == len(set(site.runs())) == 7
    assert len(site.published()) == 4


def test_a_journal_of_last_week_runs_nothing_again(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0.5)
    backup = tmp_path / "backup"
    with running(site) as daemon:
        site.feed("known.mrc")
        daemon.delivered("known")
        daemon.settled()
        copy_journal(site, backup)
        site.feed("since.mrc")
        daemon.delivered("since")
        daemon.settled()
        site.feed("known.mrc", fill=9)
        daemon.wait(lambda: len(site.published()) == 3)
        daemon.settled()
        site.step.write_text(site.step.read_text().replace('sleep "$seconds"', "sleep 2"))
        site.feed("running.mrc")
        daemon.wait(lambda: len(site.runs()) == 4)
        daemon.kill()
        lose(site)
        shutil.copy(backup, site.state / "journal.sqlite")
        daemon.start()
        daemon.delivered("known", "since", "running")
        daemon.settled()
        assert len(site.runs()) == 4
        site.feed("new.mrc")
        daemon.delivered("new")
    assert len(site.runs()) == len(set(site.runs())) == 5
    assert len(site.published()) == 5


def test_a_broken_journal_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (site.state / "journal.sqlite").write_bytes(b"this is no database" * 1000)
    daemon = DaemonProcess(site).start(wait=False)
    wait_until(lambda: not daemon.alive(), 20)
    assert "restore it from a backup, or move it away to start with an empty one" in site.log_text()
    assert "Traceback" not in site.log_text()
