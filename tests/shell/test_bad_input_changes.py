"""Input that changes, vanishes or is replaced before, during and after its job; feeds that come and go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shell.daemon_process import DaemonProcess, Site, running


def revisions(daemon: DaemonProcess, name: str) -> dict[int, str]:
    """Revision -> state of everything that was ever known of a series."""
    rows = daemon.site.client.get("datasets", limit="1000")["datasets"]
    return {int(row["dataset_id"].rsplit(".", 2)[1]): row["state"] for row in rows if row["name"] == name}


def occupy(daemon: DaemonProcess) -> None:
    """The one core is taken for three seconds: what completes now waits, READY."""
    daemon.site.feed("busy.mrc")
    daemon.wait(lambda: daemon.states().get("busy") == "running")


def test_input_that_changes_or_vanishes_before_its_job(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=3.0, cores=1)
    with running(site) as daemon:
        occupy(daemon)
        site.feed("replaced.mrc")
        gone = site.feed("gone.mrc")
        gone_for_good = site.feed("gone_for_good.mrc")
        names = ("replaced", "gone", "gone_for_good")
        daemon.wait(lambda: {daemon.states().get(name) for name in names} == {"ready"})
        site.step.write_text(site.step.read_text().replace('sleep "$seconds"', ""))
        site.feed("replaced.mrc", fill=9)
        gone.rename(tmp_path / "elsewhere")
        Path(f"{gone}.mdoc").rename(tmp_path / "elsewhere.mdoc")
        Path(f"{gone_for_good}.mdoc").unlink()
        gone_for_good.unlink()
        daemon.wait(lambda: daemon.held("gone") == ["input_gone"])
        assert "its files are no longer in the feed" in daemon.why("gone")
        (tmp_path / "elsewhere").rename(gone)
        (tmp_path / "elsewhere.mdoc").rename(f"{gone}.mdoc")
        daemon.delivered("busy", "replaced", "gone")
        assert revisions(daemon, "replaced") == {1: "cancelled", 2: "delivered"}
        assert revisions(daemon, "gone") == {1: "delivered"}
        assert daemon.held("gone_for_good") == ["input_gone"]
        assert daemon.states()["gone_for_good"] == "ready"
        assert daemon.act("cancel", datasets=["gone_for_good"])[0]["ok"]
        daemon.settled()
    results = {path.name: (path / "volume.bin").read_bytes()[-1] for path in site.published()}
    assert sorted(results.values()) == [7, 7, 9]
    assert len(site.runs()) == 3


def test_input_that_changes_or_vanishes_during_its_job(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=3.0, cores=4)
    with running(site) as daemon:
        site.feed("replaced.mrc")
        vanished = site.feed("vanished.mrc")
        daemon.wait(lambda: len(site.runs()) == 2)
        site.step.write_text(site.step.read_text().replace('sleep "$seconds"', ""))
        site.feed("replaced.mrc", fill=9)
        vanished.unlink()
        Path(f"{vanished}.mdoc").unlink()
        daemon.delivered("replaced", "vanished")
        daemon.settled()
        assert revisions(daemon, "replaced") == {1: "cancelled", 2: "delivered"}
        assert revisions(daemon, "vanished") == {1: "delivered"}
    assert {(path / "volume.bin").read_bytes()[-1] for path in site.published()} == {7, 9}
    assert len(site.runs()) == 3


def test_input_that_changes_after_its_job_is_a_new_revision_beside_it(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    with running(site) as daemon:
        changed = site.feed("changed.mrc")
        touched, vanished = site.feed("touched.mrc"), site.feed("vanished.mrc")
        daemon.delivered("changed", "touched", "vanished")
        daemon.settled()
        os.utime(touched, (1e9, 1e9))
        vanished.unlink()
        site.feed("changed.mrc", fill=9)
        daemon.wait(lambda: revisions(daemon, "changed") == {1: "delivered", 2: "delivered"})
        site.feed("later.mrc")
        daemon.delivered("later")
        assert revisions(daemon, "touched") == {1: "delivered"}
        assert revisions(daemon, "vanished") == {1: "delivered"}
        daemon.settled()
    assert len(site.runs()) == 5
    results = {path.name: (path / "volume.bin").read_bytes()[-1] for path in site.published()}
    assert len(results) == 5
    assert sorted(value for name, value in results.items() if "changed" in name) == [7, 9]
    assert changed.exists()


def test_a_feed_that_disappears_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    """Its folder is away, then there but empty (a mount point without its file system), then back."""
    site = Site(tmp_path, step_seconds=2.5, cores=1, feeds=("krios1", "glacios"))
    feed, away = site.feeds["krios1"], tmp_path / "away"
    with running(site) as daemon:
        site.feed("before.mrc")
        daemon.wait(lambda: daemon.states().get("before") == "running")
        site.feed("waiting.mrc")
        daemon.wait(lambda: daemon.states().get("waiting") == "ready")
        site.step.write_text(site.step.read_text().replace('sleep "$seconds"', ""))
        feed.rename(away)
        daemon.wait(lambda: not daemon.ready())
        assert "the feed cannot be read (No such file or directory): mount it" in str(daemon.readiness())
        feed.mkdir()
        daemon.wait(lambda: "is empty although series were there" in str(daemon.readiness()))
        site.feed("other.mrc", feed="glacios")
        daemon.delivered("other", "before")
        assert daemon.states()["waiting"] != "failed"  # its job finds no input: that spends no attempt
        shutil.rmtree(feed)
        away.rename(feed)
        daemon.wait(daemon.ready)
        site.feed("after.mrc")
        daemon.delivered("before", "waiting", "after", "other", seconds=40)
        daemon.settled()
        assert {name: len(revisions(daemon, name)) for name in daemon.states()} == dict.fromkeys(
            ("before", "waiting", "after", "other"), 1
        )
    assert len(site.published()) == 4
