"""A spool has one daemon, whether or not locks reach the other host."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from shell.daemon_process import DaemonProcess, Site, running
from tiltd.daemon.owning import StartError
from tiltd.daemon.spool_owner import SILENT_SECONDS, SpoolOwner

AT = 1_700_000_000.0
"""2023-11-14T22:13:20 UTC."""


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an NFS mount without a lock manager."""

    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def owner(spool: Path, host: str = "head1") -> SpoolOwner:
    return SpoolOwner(spool, "j1", AT, host)


def silent_for(spool: Path, seconds: float) -> None:
    """The owner was heard so long ago, by the file server's clock."""
    (spool / "probe").touch()
    now = (spool / "probe").stat().st_mtime
    os.utime(spool / "owner", (now - seconds, now - seconds))


def test_a_lock_tells_at_once_and_names_the_owner(tmp_path: Path) -> None:
    first = owner(tmp_path)
    with pytest.raises(StartError) as refused:
        owner(tmp_path, "head2")
    assert str(refused.value) == (
        f"the spool {tmp_path} belongs to the tiltd on head1 (process {os.getpid()}, since "
        "2023-11-14T22:13:20+00:00); stop that one first, or give this one a spool of its own (spool_dir)"
    )
    first.release()
    owner(tmp_path, "head2").release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_an_owner_on_another_host_is_waited_for(tmp_path: Path) -> None:
    owner(tmp_path)
    silent_for(tmp_path, 100.0)
    with pytest.raises(
        StartError, match=r"belongs to the tiltd on head1 .* heard 10\d s ago, .* wait until 300 s"
    ):
        owner(tmp_path, "head2")
    silent_for(tmp_path, SILENT_SECONDS + 1)
    owner(tmp_path, "head2")


@pytest.mark.usefixtures("no_locks")
def test_what_was_released_is_free_at_once(tmp_path: Path) -> None:
    owner(tmp_path).release()
    owner(tmp_path, "head2")


@pytest.mark.usefixtures("no_locks")
def test_a_crash_on_the_same_host_is_waited_for_by_nobody(tmp_path: Path) -> None:
    owner(tmp_path)
    owner(tmp_path)


@pytest.mark.usefixtures("no_locks")
def test_who_renews_is_heard(tmp_path: Path) -> None:
    first = owner(tmp_path)
    silent_for(tmp_path, SILENT_SECONDS + 1)
    assert first.renew() == ""
    with pytest.raises(StartError, match="heard 0 s ago"):
        owner(tmp_path, "head2")


@pytest.mark.usefixtures("no_locks")
def test_who_was_silent_for_too_long_has_to_go(tmp_path: Path) -> None:
    first = owner(tmp_path)
    silent_for(tmp_path, SILENT_SECONDS + 1)
    second = owner(tmp_path, "head2")
    assert first.renew() == (
        f"the tiltd on head2 has taken the spool {tmp_path}: this tiltd was not heard for too long"
    )
    first.release()  # what is another's is left alone
    assert second.renew() == ""


def test_a_spool_that_is_away_is_nobodys(tmp_path: Path) -> None:
    mine = owner(tmp_path / "spool")
    (tmp_path / "spool").rename(tmp_path / "away")
    assert mine.renew() == ""
    mine.release()


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"host": "x"}'])
def test_an_owner_file_that_was_torn_by_a_crash_stops_nobody(tmp_path: Path, torn: str) -> None:
    (tmp_path / "owner").write_text(torn)
    owner(tmp_path).release()


def test_two_daemons_with_states_of_their_own_cannot_share_a_spool(tmp_path: Path) -> None:
    first, second = (
        Site(tmp_path / name, spool=tmp_path / "spool", results=tmp_path / name / "results") for name in "ab"
    )
    with running(first):
        other = DaemonProcess(second).start(wait=False)
        other_ended = other._process
        assert other_ended is not None and other_ended.wait(20) == 1
        assert f"the spool {tmp_path / 'spool'} belongs to the tiltd on " in second.log_text()


def test_a_daemon_whose_spool_was_taken_stops(tmp_path: Path) -> None:
    site = Site(tmp_path)
    quick = (
        "import runpy, sys; import tiltd.daemon.app as app; app.MARK_SECONDS = 0.2; sys.argv[0] = 'tiltd'; "
        "runpy.run_module('tiltd.daemon', run_name='__main__', alter_sys=True)"
    )
    with running(site, python=quick) as daemon:
        (site.spool / "owner").write_text(
            '{"host": "head2", "pid": 1, "journal_id": "x", "since": "2026-11-22"}'
        )
        assert daemon._process is not None and daemon._process.wait(20) == 1
        assert "tiltd has to stop: the tiltd on head2 has taken the spool" in site.log_text()
