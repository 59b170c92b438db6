"""The daemon under its operator: start, policy reload, stop with jobs running."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from shell.daemon_process import POLICY, DaemonProcess, Site, running, wait_until


def policy_version(daemon: DaemonProcess) -> str:
    return str(daemon.site.client.get("status")["policy_version"])


def test_a_refused_policy_changes_nothing_and_a_good_one_is_taken(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    with running(site) as daemon:
        before = policy_version(daemon)
        site.policy.write_text(POLICY.replace('quiet_min = "0.3s"', 'quiet_min = "soon"'))
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait(lambda: "the policy was refused, the one in force stays" in site.log_text())
        assert policy_version(daemon) == before
        assert "policy.toml:3" in site.log_text()
        site.feed("one.mrc")
        daemon.delivered("one")
        site.policy.write_text(POLICY.replace('quiet_min = "0.3s"', 'quiet_min = "0.4s"'))
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait(lambda: policy_version(daemon) != before)
        site.feed("two.mrc")
        daemon.delivered("two")


def test_a_stop_leaves_jobs_running_and_the_next_start_takes_them_up(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=1.5)
    with running(site) as daemon:
        site.feed("one.mrc")
        daemon.wait(site.runs)
        assert daemon.stop() == 0
        assert "tiltd has stopped; running jobs go on" in site.log_text()
        assert not site.socket.exists()
        wait_until(site.staged, 20, site.scratch_left)
        daemon.start()
        daemon.delivered("one")
        daemon.settled()
    assert len(site.runs()) == 1


def test_a_feed_that_is_not_there_at_the_start_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0, feeds=("krios1", "glacios"))
    site.feeds["krios1"].rmdir()
    daemon = DaemonProcess(site)
    try:
        daemon.start(wait=False)
        daemon.wait(lambda: "feed krios1: " in str(daemon.readiness()))
        daemon.wait(daemon.feeds_met)
        site.feed("one.mrc", feed="glacios")
        daemon.delivered("one")
        site.feeds["krios1"].mkdir()
        daemon.wait(daemon.ready)
        site.feed("two.mrc", feed="krios1")
        daemon.delivered("one", "two")
    finally:
        daemon.kill()
