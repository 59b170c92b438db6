"""Disks that are full: the destination's, the spool's, the journal's.  It is told, and nothing is lost."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shell.daemon_process import Site, running

SOON = """
from tiltd.daemon.core import ending
ending.RESCUE_PAUSE_SECONDS = 1.0
from tiltd.daemon.__main__ import main
raise SystemExit(main())
"""
"""A daemon that does not wait a minute before a rescue."""


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own."""
    path.mkdir(parents=True)
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        pytest.skip("no file system can be mounted here; the daemon's user may not, and need not")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Leave nothing free."""
    ballast = disk / "ballast"
    with open(ballast, "wb", 0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    assert shutil.disk_usage(disk).free == 0
    return ballast


def test_a_full_destination_strands_results_which_are_rescued_when_there_is_room(tmp_path: Path) -> None:
    """The booking keeps away from a destination that is full already; this one fills up during the job."""
    with small_disk(tmp_path / "disk", "200M") as disk:
        site = Site(tmp_path, step_seconds=1.0, feeds=("krios1", "glacios"))
        text = site.config.read_text()
        site.config.write_text(text.replace(f"{site.results}/krios1", f"{disk}/krios1"))
        with running(site, python=SOON) as daemon:
            site.feed("stranded.mrc")
            daemon.wait(site.runs)
            ballast = fill(disk)
            site.feed("other.mrc", feed="glacios")
            daemon.delivered("other")
            daemon.wait(lambda: "No space left" in daemon.why("stranded"), 30)
            assert site.scratch_left()
            assert "results cannot be staged out to" in daemon.why("stranded")
            assert len(site.runs()) == 2
            ballast.unlink()
            daemon.delivered("stranded")
            daemon.settled()
        assert len(site.runs()) == 2
        assert len(list(disk.rglob("manifest.json"))) == 1


def test_a_full_spool_stops_submissions_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "spool", "1M") as disk:
        site = Site(tmp_path, step_seconds=0, spool=disk)
        with running(site) as daemon:
            site.feed("before.mrc")
            daemon.delivered("before")
            daemon.settled()
            ballast = fill(disk)
            site.feed("during.mrc")
            daemon.wait(lambda: "No space left" in daemon.why("during"), 20)
            assert "make room there (tiltd prune shows what can go)" in daemon.why("during")
            assert daemon.alive()
            ballast.unlink()
            daemon.delivered("during", seconds=30)
            daemon.settled()
        assert len(site.runs()) == 2


def test_a_journal_without_space_stops_everything_and_is_red_until_there_is_some(tmp_path: Path) -> None:
    """A limit on the size of the daemon's files stands for the disk: it can be set from outside."""
    site = Site(tmp_path, step_seconds=0)
    with running(site) as daemon:
        site.feed("before.mrc")
        daemon.delivered("before")
        daemon.settled()
        size = Path(f"{site.state}/journal.sqlite-wal").stat().st_size
        _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, hard))
        site.feed("during.mrc")
        daemon.wait(lambda: not daemon.ready())
        assert "the journal cannot be written" in str(daemon.readiness())
        assert "free space on its disk" in str(daemon.readiness())
        assert "the journal cannot be written" in site.log_text()
        assert len(site.runs()) == 1
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
        daemon.wait(daemon.ready, 20)
        daemon.delivered("before", "during")
        daemon.settled()
        assert len(site.runs()) == 2
        assert daemon.stop() == 0


def test_a_journal_without_space_loses_nothing_when_the_daemon_dies_of_it(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0.5)
    with running(site) as daemon:
        site.feed("running.mrc")
        daemon.wait(lambda: daemon.states().get("running") == "running")
        size = Path(f"{site.state}/journal.sqlite-wal").stat().st_size
        _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, hard))
        site.feed("new.mrc")
        daemon.wait(lambda: not daemon.ready())
        daemon.kill()
        daemon.start()
        daemon.delivered("running", "new")
        daemon.settled()
    assert sorted(site.runs()) == sorted(set(site.runs()))
    assert len(site.runs()) == 2
