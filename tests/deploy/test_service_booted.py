"""The unit as it is shipped, under a real systemd: ready, reload, watchdog, sandbox, jobs that outlive it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.booted import UID, Booted, booted, why_not
from deploy.units import lay_out
from plugins.series_files import write_series
from shell.daemon_process import POLICY

SETTINGS = """
policy_file = "/etc/tiltd/policy.toml"
[listen]
port = 0
socket = "/run/tiltd/tiltd.sock"
[[feed]]
name = "krios1"
path = "/srv/site/feed"
pipeline = "command"
destination = "/srv/site/results/{series}"
scan_seconds = 0.2
options = { command = "sh /srv/site/step.sh {stack} {output}", results = "volume.bin", memory = 1e8 }
[[local.node]]
name = "here"
cores = 4
memory = 1_000_000_000
scratch = "/srv/site/scratch"
scratch_bytes = 1_000_000_000
[poll]
jobs_seconds = 0.2
nodes_seconds = 0.5
spool_seconds = 0.1
"""
STEP = """
echo "$TILTD_JOB_ID $$ $(cut -d ' ' -f 22 /proc/$$/stat)" >>/srv/site/scratch/runs
env >/srv/site/scratch/environment
cat /proc/self/status >/srv/site/scratch/status
touch /etc/tiltd/broken /usr/broken /srv/site/feed/broken 2>/dev/null
while [ -e /srv/site/wait ]; do sleep 0.1; done
cp "$1" "$2/volume.bin"
"""
HANG = """
import os, time
from tiltd.daemon.core.core import Core

handle = Core.handle

def hang(self, observation):
    if os.path.exists("/srv/site/scratch/hang"):
        os.unlink("/srv/site/scratch/hang")
        time.sleep(3600)
    return handle(self, observation)

Core.handle = hang
"""
"""Imported by every Python that the service starts: its core hangs, once, when it is told to."""
TRIED = """
[Service]
ReadWritePaths=/srv/site/results /srv/site/scratch
WatchdogSec=2
RestartSec=100ms
StandardError=append:/srv/site/tiltd.log
"""


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    stage = tmp_path / "stage"
    stage.mkdir()
    stage.chmod(0o755)
    for name in ("feed", "results", "scratch", "first"):
        (stage / name).mkdir()
    for name in ("results", "scratch"):
        os.chown(stage / name, UID, UID)
    (stage / "step.sh").write_text(STEP)
    (stage / "first" / "sitecustomize.py").write_text(HANG)
    return stage


@pytest.fixture
def machine(project: Path, stage: Path) -> Iterator[Booted]:
    if reason := why_not():
        pytest.skip(reason)
    unit = lay_out(project, stage / "units", ("local",), real_programs=True)
    (unit.parent / "tiltd.service.d" / "tried.conf").write_text(TRIED)
    with booted(project, stage, SETTINGS, POLICY) as machine:
        machine.systemctl("start", "tiltd.service")
        yield machine


def tiltd(machine: Booted, *argv: str) -> str:
    done = machine.run("/opt/tiltd/bin/tiltd", *argv)
    assert done.returncode == 0, done.stdout + done.stderr + machine.log()
    return done.stdout


def state(machine: Booted, name: str) -> str:
    rows = json.loads(tiltd(machine, "list", "--json"))
    return next((row["state"] for row in rows["datasets"] if row["name"] == name), "")


def is_up_when_systemd_says_so(machine: Booted, stage: Path) -> None:
    assert machine.shows("ActiveState") == "active" and machine.shows("SubState") == "running"
    tiltd(machine, "status")
    machine.wait(lambda: "series in hand" in machine.shows("StatusText"))


def reload_reads_the_policy_and_is_over(machine: Booted, stage: Path) -> None:
    told = machine.log().count("the policy was read")
    machine.systemctl("reload", "tiltd.service")
    machine.wait(lambda: machine.log().count("the policy was read") > told)
    machine.wait(lambda: machine.shows("SubState") == "running")


def jobs_outlive_a_restart_and_a_watchdog(machine: Booted, stage: Path) -> None:
    (stage / "wait").touch()
    write_series(stage / "feed", "TS_01.mrc")
    runs = stage / "scratch" / "runs"
    machine.wait(lambda: runs.exists())
    pid = machine.shows("MainPID")

    machine.systemctl("restart", "tiltd.service")
    assert machine.shows("MainPID") != pid and machine.shows("NRestarts") == "0"

    (stage / "scratch" / "hang").touch()
    machine.wait(lambda: machine.shows("NRestarts") == "1")
    machine.wait(lambda: machine.shows("SubState") == "running")
    # What was under way when it hung stands in the log, thread by thread.
    assert re.search(r"Fatal Python error: Aborted.*in hang", machine.log(), re.DOTALL)

    (stage / "wait").unlink()
    machine.wait(lambda: state(machine, "TS_01") == "delivered")
    assert len(runs.read_text().splitlines()) == 1
    assert (stage / "results" / "TS_01" / "volume.bin").exists()


def what_runs_inside_is_kept_inside(machine: Booted, stage: Path) -> None:
    """These are the notes that the job took."""
    assert list(stage.rglob("broken")) == []
    environment = (stage / "scratch" / "environment").read_text()
    assert "TILTD_JOB_ID" in environment and "NOTIFY_SOCKET" not in environment
    status = (stage / "scratch" / "status").read_text()
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)


def check_looks_from_inside(machine: Booted, stage: Path) -> None:
    """While the daemon runs, whose folder in /run must stay; and what the sandbox forbids is told."""
    machine.systemctl("start", "dbus.socket")
    machine.systemctl("start", "dbus.service")
    check = ("/opt/tiltd/bin/tiltd", "check", "--sandbox", "--config", "/etc/tiltd/tiltd.toml")
    done = machine.run(*check)
    assert done.returncode == 0 and "checks passed" in done.stdout, done.stdout + done.stderr
    assert "state_dir: /var/lib/tiltd can be written" in done.stdout
    tiltd(machine, "status")
    forbidden = stage / "units" / "tiltd.service.d" / "z-forbidden.conf"
    forbidden.write_text("[Service]\nReadWritePaths=\nReadWritePaths=/srv/site/scratch\n")
    machine.systemctl("daemon-reload")
    done = machine.run(*check)
    assert done.returncode == 1 and "1 of " in done.stdout, done.stdout + done.stderr
    assert (
        "destination of feed krios1: /srv/site/results cannot be written (Read-only file system)"
        in done.stdout
    )
    assert list((stage / "results").glob("*check*")) == []


def a_copy_is_made_while_it_runs(machine: Booted, project: Path, stage: Path) -> None:
    shutil.copy(project / "deploy" / "systemd" / "tiltd-backup.service", stage / "units")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "tiltd-backup.service")
    (name,) = machine.run("ls", "/var/lib/tiltd-backup").stdout.split()
    assert re.fullmatch(r"journal-\d{8}T\d{6}Z\.sqlite", name)
    tiltd(machine, "status")


def older_torques_helper_becomes_root(machine: Booted, project: Path, stage: Path) -> None:
    """`id`, setuid root, in the sandbox with and without the drop-in that lets pbs_iff be what it is."""
    helper = stage / "scratch" / "helper"
    shutil.copy(shutil.which("id") or "/usr/bin/id", helper)
    helper.chmod(0o4755)
    told = {}
    for name, drop_ins in (("without", ("torque",)), ("with", ("torque", "torque-setuid"))):
        unit = lay_out(project, stage / name, drop_ins, real_programs=True)
        parts = [unit, *sorted((stage / name / "tiltd.service.d").iterdir())]
        text = re.sub(
            r"^(Exec|Type|Watchdog|Restart)\w*=.*", "", "\n".join(p.read_text() for p in parts), flags=re.M
        )
        own = (
            "[Service]",
            "Type=oneshot",
            "ExecStart=/srv/site/scratch/helper -u",
            f"StandardOutput=file:/srv/site/{name}.told",
            "RuntimeDirectoryPreserve=yes",
        )
        (stage / "units" / f"{name}.service").write_text("\n".join((text, *own, "")))
        machine.systemctl("daemon-reload")
        machine.systemctl("start", f"{name}.service")
        told[name] = (stage / f"{name}.told").read_text().strip()
    assert told == {"without": str(UID), "with": "0"}


def stopped_is_stopped(machine: Booted, stage: Path) -> None:
    machine.systemctl("stop", "tiltd.service")
    assert machine.shows("ActiveState") == "inactive" and machine.shows("Result") == "success"
    assert "tiltd has stopped; running jobs go on" in machine.log()


@pytest.mark.slow
def test_the_life_of_a_service(machine: Booted, project: Path, stage: Path) -> None:
    is_up_when_systemd_says_so(machine, stage)
    reload_reads_the_policy_and_is_over(machine, stage)
    jobs_outlive_a_restart_and_a_watchdog(machine, stage)
    what_runs_inside_is_kept_inside(machine, stage)
    check_looks_from_inside(machine, stage)
    a_copy_is_made_while_it_runs(machine, project, stage)
    older_torques_helper_becomes_root(machine, project, stage)
    stopped_is_stopped(machine, stage)
