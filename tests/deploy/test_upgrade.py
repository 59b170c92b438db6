"""To the next release and back, with jobs that run and that wait: nothing is lost, nothing runs twice."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.on_torque import on_torque
from deploy.releases import NEXT, install
from shell.daemon_process import POLICY, DaemonProcess, Site, running
from tiltd.daemon.standin.torque.records import Pretend
from tiltd.daemon.standin.torque.site import StandIn

STEP = """
stack=$1 output=$2 folder=$3
echo "$TILTD_JOB_ID$PBS_JOBNAME" >>"$folder/runs"
until [ -e "$folder/go" ]; do sleep 0.1; done
cp "$stack" "$output/volume.bin"
"""


@pytest.fixture
def old(project: Path, tmp_path: Path) -> str:
    return install(project, tmp_path / "old", "0.1.0")


@pytest.fixture
def new(project: Path, tmp_path: Path) -> str:
    return install(project, tmp_path / "new", "0.2.0", NEXT)


class Laid(NamedTuple):
    """A site on which two jobs run at a time.  ``let_start`` is whether the batch server starts any; what may
    not start is ``waits``: in tiltd itself, or in the server's queue."""

    site: Site
    let_start: Callable[[bool], object]
    waits: str


@contextlib.contextmanager
def laid_out(folder: Path, manager: str) -> Iterator[Laid]:
    site = Site(folder, cores=2, policy=POLICY)
    site.step.write_text(STEP)
    if manager == "local":
        yield Laid(site, lambda started: None, "ready")
        return
    pretend = [Pretend("core-012", cores=4, scratch_bytes=10**9)]
    with StandIn(folder / "torque", pretend) as torque:
        on_torque(site, torque)
        yield Laid(site, lambda started: torque.do("queue", name="batch", started=started), "queued")


def tiltd(interpreter: str, *argv: str) -> str:
    done = subprocess.run(
        [interpreter, "-P", "-m", "tiltd.daemon", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def of(interpreter: str, site: Site) -> Iterator[DaemonProcess]:
    site.socket.parent.mkdir(exist_ok=True)  # removed with the daemon before
    with running(site, interpreter=interpreter) as daemon:
        yield daemon


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["local", "torque"])
def test_there_and_back(tmp_path: Path, old: str, new: str, manager: str) -> None:
    assert "tiltd 0.1.0" in tiltd(old, "version") and "tiltd 0.2.0" in tiltd(new, "version")
    with laid_out(tmp_path / "site", manager) as laid:
        there_and_back(laid, old, new)


def there_and_back(laid: Laid, old: str, new: str) -> None:
    site = laid.site
    half = sorted(["running"] * 2 + [laid.waits] * 2)
    with of(old, site) as daemon:
        site.feed("ts_0.mrc")
        site.feed("ts_1.mrc")
        daemon.wait(lambda: len(site.runs()) == 2 and list(daemon.states().values()) == ["running"] * 2)
        laid.let_start(False)
        site.feed("ts_2.mrc")
        site.feed("ts_3.mrc")
        daemon.wait(lambda: sorted(daemon.states().values()) == half)
        began = site.runs()
        assert len(began) == 2 and daemon.stop() == 0

    # The upgrade: the journal is migrated, what ran goes on running, what waited still waits.
    with of(new, site) as daemon:
        assert sorted(daemon.states().values()) == half
        site.feed("ts_4.mrc")
        daemon.wait(lambda: daemon.states().get("ts_4") in ("ready", "queued"))
        assert site.runs() == began and daemon.stop() == 0
    copy = site.state / "journal.left-by-0.1.0.sqlite"
    assert copy.exists()

    # The way back: refused with what to do, and that does it.
    refused = DaemonProcess(site, interpreter=old).start(wait=False)
    assert refused._process is not None and refused._process.wait(20) == 1
    assert "was written by tiltd 0.2.0, which is later than this one" in site.log_text()
    assert f"or go back to what the release before it left: tiltd restore {copy.name}" in site.log_text()
    tiltd(old, "restore", copy.name, "--config", str(site.config))
    with of(old, site) as daemon:
        assert list(daemon.states().values()).count("running") == 2 and site.runs() == began
        laid.let_start(True)
        (site.folder / "go").touch()
        daemon.delivered("ts_0", "ts_1", "ts_2", "ts_3", seconds=40.0)
        if daemon.held("ts_4"):
            assert daemon.held("ts_4") == ["before_tiltd"]
            daemon.act("release", datasets=["ts_4"])
        daemon.delivered("ts_4", seconds=40.0)
        assert len(site.runs()) == len(set(site.runs())) == 5
        assert len(site.published()) == 5
        daemon.settled()
