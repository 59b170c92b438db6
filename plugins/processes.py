"""Processes of this machine: who one is, who belongs to it, and how it is started and ended.

A pid alone says nothing: it is given out again.  So a process is known by its pid *and* its start: the
boot id and the clock ticks since boot of ``/proc/PID/stat`` (field 22), which, unlike a start in epoch
seconds, stay the same when the wall clock is set.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psutil

from tiltd.daemon.core.model import Record


class Process(Record):
    """One process, as it was met.  ``started`` is ``BOOT_ID:TICKS``."""

    pid: int
    started: str


@functools.cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "boot"


def look(pid: int) -> tuple[Process, str] | None:
    """The process that has this pid now and the letter of its state (``R S D T ...``); ``None`` when there
    is none, or only a zombie: what a process that ended leaves until its parent asks."""
    if pid <= 0:
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name stands in brackets and may hold blanks and brackets itself.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0].decode("ascii"), fields[19].decode("ascii")
    return None if state in "ZXx" else (Process(pid=pid, started=f"{_boot_id()}:{ticks}"), state)


def alive(process: Process) -> bool:
    """Whether this very process runs; another one with its pid does not count."""
    found = look(process.pid)
    return found is not None and found[0] == process


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this very process; false when it is gone.  Raises PermissionError.

    The pid is pinned by a pidfd before the start is compared, so a pid given out again in between is
    never hit.  Where the kernel has no pidfd, that gap of microseconds stays.
    """
    pinned = -1
    try:
        with contextlib.suppress(OSError):
            pinned = os.pidfd_open(process.pid)
        if not alive(process):
            return False
        if pinned >= 0:
            signal.pidfd_send_signal(pinned, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    finally:
        if pinned >= 0:
            os.close(pinned)
    return True


def family(process: Process) -> list[Process]:
    """The process, all its descendants, and what else lives in its session; empty when it is gone.

    A step whose parent died has init as its parent, but is still in the session.  Cost grows with the
    number of processes on the machine (some 20 us each).
    """
    if not alive(process):
        return []
    pids = {process.pid}
    with contextlib.suppress(psutil.Error):
        pids |= {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    if _session(process.pid) == process.pid:
        pids |= {pid for pid in psutil.pids() if _session(pid) == process.pid}
    found = [seen[0] for pid in sorted(pids - {process.pid}) if (seen := look(pid))]
    return [process, *found]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def with_command(folder: str) -> Iterator[tuple[Process, list[str], dict[str, str]]]:
    """Processes started as ``PYTHON RUNNER ENTRY`` with ENTRY right below ``folder``, the oldest first:
    the process, its command line and its environment.  A look at every process of the machine."""
    met: list[tuple[float, Process, list[str], dict[str, str]]] = []
    for candidate in psutil.process_iter(["cmdline", "create_time"]):
        words = candidate.info["cmdline"] or []
        if len(words) != 3 or os.path.dirname(words[2]) != folder:
            continue
        with contextlib.suppress(psutil.Error):
            if seen := look(candidate.pid):
                met.append((candidate.info["create_time"] or 0.0, seen[0], words, candidate.environ()))
    for _, process, words, environment in sorted(met, key=lambda one: (one[0], one[1].pid)):
        yield process, words, environment


def start(
    argv: Sequence[str],
    folder: str,
    log_path: str,
    environment: Mapping[str, str],
    cpus: Iterable[int],
    nice: int,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own, cwd ``folder``, stdin /dev/null, output appended to the log.

    Affinity and niceness are set from here and not between fork and exec, where a process with threads
    may only do what is async-signal-safe; the program's own children come later and inherit both.
    Raises OSError.
    """
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        child = subprocess.Popen(
            list(argv),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            start_new_session=True,
            umask=0o022,
        )
    finally:
        os.close(log)
    with contextlib.suppress(OSError):  # it may have ended already, or a core may have been taken away
        os.sched_setaffinity(child.pid, set(cpus))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, child.pid, nice)
    return child
