"""kill -9 of the real daemon, with jobs running on, at seeded random times."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

from shell.daemon_process import DaemonProcess, Site, running, wait_until

KILLS = 40
SERIES = 8


def test_forty_kills_lose_nothing_and_run_nothing_twice(tmp_path: Path) -> None:
    """Two of the series fail once, so there are retries to be lost too."""
    site = Site(tmp_path, step_seconds=0.4, cores=2)
    names = [f"ts_{n}" for n in range(SERIES - 2)] + ["fails_once_1", "fails_once_2"]
    chance = random.Random(20)
    with running(site) as daemon:
        for number in range(KILLS):
            if number < SERIES:
                site.feed(f"{names[number]}.mrc")
            time.sleep(chance.uniform(0.0, 0.4))  # the random time; nothing is waited for by it
            daemon.kill()
            daemon.start(wait=chance.random() < 0.7)
        daemon.wait(daemon.ready)
        daemon.delivered(*names, seconds=60)
        daemon.settled()
        stories = {name: row["attempts"] for name, row in daemon.rows().items()}
        assert daemon.stop() == 0
    assert_once(site, names)
    assert stories == {name: 2 if name.startswith("fails") else 1 for name in names}


def assert_once(site: Site, names: list[str]) -> None:
    """Each published once; no attempt ran its step twice; nothing is left over."""
    assert sorted(path.name for path in site.published()) == sorted(names)
    assert [job for job, times in Counter(site.runs()).items() if times > 1] == []
    expected = sum(2 if name.startswith("fails") else 1 for name in names)
    assert len(site.runs()) == expected
    assert site.staged() == []
    wait_until(lambda: not site.scratch_left(), 10, site.scratch_left)
    with sqlite3.connect(site.state / "journal.sqlite") as journal:
        counts = dict(
            journal.execute(
                "SELECT dataset_id, count(*) FROM facts WHERE kind = 'ResultCollected' GROUP BY 1"
            )
        )
        assert sorted(counts.values()) == [1] * len(names)
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_jobs_go_on_without_the_daemon_and_are_collected_by_the_next(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=1.0)
    with running(site) as daemon:
        site.feed("ts_1.mrc")
        daemon.wait(site.runs)
        daemon.kill()
        wait_until(site.staged, 20, lambda: site.scratch_left())
        wait_until(lambda: not site.scratch_left(), 20)
        daemon.start()
        daemon.delivered("ts_1")
        assert len(site.runs()) == 1


def test_a_runner_that_is_killed_with_the_daemon_is_run_again_and_leaves_no_scratch(tmp_path: Path) -> None:
    """Both at once: what a machine does that loses its memory but not its disk."""
    site = Site(tmp_path, step_seconds=1.0)
    with running(site) as daemon:
        site.feed("ts_1.mrc")
        daemon.wait(site.runs)
        daemon.kill()
        kill_runners(site)
        daemon.start()
        site.step.write_text(site.step.read_text().replace('sleep "$seconds"', ""))
        daemon.delivered("ts_1", seconds=40)
        daemon.settled()
    assert Counter(site.runs()) == {"local-" + a: 1 for a in attempts_of(site)}
    assert len(site.runs()) == 2


def kill_runners(site: Site) -> None:
    """The runners, their janitors and their steps: all that carry an attempt of this spool in their words."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = (
                    Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/environ").read_bytes()
                )
            except OSError:
                continue
            if str(site.folder).encode() in words and b"TILTD_JOB_ID" in words:
                os.kill(int(name), signal.SIGKILL)


def attempts_of(site: Site) -> list[str]:
    return sorted(path.name for path in (site.spool / "attempts").iterdir())


def test_two_daemons_do_not_share_a_state_folder(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with running(site) as daemon:
        second = DaemonProcess(site)
        second.start(wait=False)
        wait_until(lambda: not second.alive(), 20)
        assert f"another tiltd owns {site.state}; stop it first" in site.log_text()
        assert daemon.ready()
