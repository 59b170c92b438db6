"""A machine with systemd as its process 1, in namespaces of its own: units run there as they would for real.

It sees this machine's programs; /etc is laid over, /run, /opt, /var/lib and /home are its own, and so are its
processes, its mounts and its control groups.  Of units it knows those alone that a test gives it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.programs import program

UID = 61234
SYSTEMD = "/lib/systemd/systemd"
BUS = """[Unit]
DefaultDependencies=no
[Service]
ExecStart={dbus} --system --address=systemd: --nofork --nopidfile
"""
BUS_SOCKET = """[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
"""
"""systemd joins a bus that it has started by these names."""
TARGETS = ("sysinit", "basic", "shutdown", "rest")
BOOT = """
set -e
mount --make-rprivate /
mount --bind {stage} /mnt
mount -t tmpfs tmpfs /run
mkdir /run/etc.new /run/etc.work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc.new,workdir=/run/etc.work /etc
for folder in /opt /srv /var/lib /home; do mount -t tmpfs -o mode=0755 tmpfs $folder; done
mkdir -p /opt/tiltd/bin /opt/tiltd/src /opt/tiltd/deps /opt/tiltd/python /srv/site
mount --bind {stage} /srv/site
mount --bind {checkout} /opt/tiltd/src
mount --bind {packages} /opt/tiltd/deps
mount --bind {python} /opt/tiltd/python
cp /mnt/tiltd /opt/tiltd/bin/tiltd
echo 'tiltd:x:{uid}:{uid}::/var/lib/tiltd:/usr/sbin/nologin' >>/etc/passwd
echo 'tiltd:x:{uid}:' >>/etc/group
mkdir /etc/tiltd
cp /mnt/tiltd.toml /mnt/policy.toml /etc/tiltd/
umount /mnt
umount -R /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export container=test SYSTEMD_UNIT_PATH=/srv/site/units
exec {systemd} --system --unit=rest.target --show-status=no --log-target=console
"""
TILTD = """#!/bin/sh
export PYTHONPATH=/srv/site/first:/opt/tiltd/src/tests/_path:/opt/tiltd/deps
export LD_LIBRARY_PATH=/opt/tiltd/python/lib
exec /opt/tiltd/python/bin/{python} -P -m tiltd.daemon "$@"
"""


class Booted:
    """The machine.  ``stage`` is its /srv/site, seen from outside; ``units`` lie in there."""

    def __init__(self, stage: Path, cgroup: Path, process: subprocess.Popen[bytes]) -> None:
        self.stage = stage
        self._cgroup = cgroup
        self._process = process
        self._init = 0

    def run(self, *argv: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command in there, as root."""
        inside = ["nsenter", "-t", str(self._init), "-m", "-p", "-C", "-i", "-u", "--", *argv]
        return subprocess.run(
            inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )

    def systemctl(self, *argv: str) -> str:
        done = self.run("systemctl", *argv)
        assert done.returncode == 0, f"systemctl {argv}: {done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout.strip()

    def shows(self, what: str) -> str:
        return self.systemctl("show", "--value", "-p", what, "tiltd.service")

    def log(self) -> str:
        return "\n".join(
            path.read_text(errors="replace")[-4000:]
            for path in (self.stage / "boot.log", self.stage / "tiltd.log")
            if path.exists()
        )

    def wait(self, what: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self._process.poll() is None, f"systemd has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"it did not happen within {seconds} s:\n{self.log()}"
            time.sleep(0.05)

    def up(self) -> bool:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._init = int(children[0]) if children else 0
        return bool(self._init) and self.run("systemctl", "is-active", "rest.target").returncode == 0

    def end(self) -> None:
        self._process.send_signal(signal.SIGKILL)  # its child, process 1, is killed with it, and all below
        self._process.wait(20)
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            deadline = time.monotonic() + 5.0
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
                    break
                time.sleep(0.05)


def cgroup2() -> Path | None:
    """Where the unified hierarchy of control groups is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None


def why_not() -> str:
    """Why no machine can be booted here; "" if it can.  What `.ci/run` installs is asked for elsewhere."""
    if os.geteuid() != 0:
        return "only root can make namespaces with mounts"
    groups = cgroup2()
    if groups is None or not os.access(groups, os.W_OK):
        return "no control groups can be made here"
    probe = "mount -t tmpfs tmpfs /run && mount -t cgroup2 cgroup2 /mnt"
    argv = ["unshare", "-p", "-m", "-C", "--fork", "--mount-proc", "sh", "-c", probe]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"no namespaces can be made here: {done.stderr.strip()}"


@contextlib.contextmanager
def booted(project: Path, stage: Path, settings: str, policy: str) -> Iterator[Booted]:
    """``stage/units`` has the units; ``settings`` and ``policy`` become /etc/tiltd's files."""
    program("systemd-analyze", "systemd")
    groups = cgroup2()
    assert groups is not None
    for name in TARGETS:
        (stage / "units" / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (stage / "units" / "dbus.service").write_text(BUS.format(dbus=program("dbus-daemon", "dbus")))
    (stage / "units" / "dbus.socket").write_text(BUS_SOCKET)
    (stage / "tiltd.toml").write_text(settings)
    (stage / "policy.toml").write_text(policy)
    python = Path(sys.executable).resolve()
    (stage / "tiltd").write_text(TILTD.format(python=python.name))
    (stage / "tiltd").chmod(0o755)
    places = {
        "stage": stage, "checkout": project, "packages": sysconfig.get_path("platlib"),
        "python": sys.base_prefix, "systemd": SYSTEMD,
    }  # fmt: skip
    script = BOOT.format(uid=UID, **{name: shlex.quote(str(path)) for name, path in places.items()})
    group = groups / f"tiltd-test-{os.getpid()}"
    group.mkdir()
    unshare = shutil.which("unshare") or "unshare"
    wrapper = f'echo $$ >{shlex.quote(str(group))}/cgroup.procs && exec "$@"'
    argv = ["sh", "-c", wrapper, "sh", unshare, "-p", "-m", "-u", "-i", "-C", "--fork", "--kill-child"]
    with open(stage / "boot.log", "wb") as log:
        process = subprocess.Popen(
            [*argv, "--mount-proc", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    machine = Booted(stage, group, process)
    try:
        machine.wait(machine.up)
        yield machine
    finally:
        machine.end()
