"""Jobs through the stand-in Torque, beside a bare floor on the same machine in the same run.

The floor submits with ``qsub``, 8 at once, and asks ``qstat -x`` every 5 s: nobody can do with less.  The
daemon does the same work with everything that it is for: a durable journal, claims, results verified and
published.  The jobs claim, sleep, stage out and say so; every fiftieth ends without a word, and fails.

How it is measured:

* CPU: user and system time of the daemon's own process, from before the first series is there until the last
  is over, by the kernel's account.  The commands that it starts (qsub, qstat, pbsnodes) are not in it; what
  they cost the stand-in's machine is, in that caches and the two clocks are shared with them.  The same in
  yards: a yard is a fixed piece of plain Python, timed all along beside it.  A virtual machine may be half as
  fast in one hour as in another, and the milliseconds with it; the yards stay.
* Submissions at once, and connections: as the stand-in's server counted them.
* Wall: from the first submission to the last end, as the server knows them, for both.
* An end noticed by its marker: from the time in the runner's last word to the time of the fact ``JobEnded``.
* An end noticed without one: from the end that the server knows to the fact ``AttemptFailed``, less the
  policy's ``marker_grace``, in which the word may still come.  One poll is ``queue_seconds`` and its jitter.
* Files: each half has a folder somewhere else on the disk.  An ext4 without a journal gives no inode out
  again for minutes after a file was deleted, and for each new file passes over all of those in that part of
  the disk, one after another: beside what a run before had left, that alone was 0.6 to 1 ms a job.
* Memory: the most that was resident (VmHWM), without what only developers install (rich, greenlet).

``python tests/benchmarks/bench_torque.py [--jobs N] [--seconds S] [--slots N]`` prints the figures and ends
with 1 if one of those that the project promises is exceeded.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "_path"), str(Path(__file__).parents[1])]

import psutil  # noqa: E402

from shell.daemon_process import POLICY, Site, running  # noqa: E402
from tiltd.daemon.core.facts import AttemptFailed, JobEnded  # noqa: E402
from tiltd.daemon.reader import JournalReader  # noqa: E402
from tiltd.daemon.standin.torque.batch import Pace  # noqa: E402
from tiltd.daemon.standin.torque.records import Pretend  # noqa: E402
from tiltd.daemon.standin.torque.site import StandIn  # noqa: E402

CPU_MS_A_JOB, WALL_FACTOR, AT_ONCE, QSTAT_A_MINUTE, NOTICED_SECONDS, RSS_MB = 3.5, 1.5, 8, 12.0, 0.5, 80.0
POLL_SECONDS = 5.0 * 1.1 + 0.5
"""Between two questions for all jobs while something moves, and the time that one takes."""
SILENT_EVERY, GRACE_SECONDS = 50, 1.0
CORES_A_NODE = 8
YARD_LOOPS = 30_000
QSUB_SECONDS = 0.01
"""A real qsub was measured at 8 to 17 ms; the stand-in's server answers at once."""
PACE = Pace(cycle_seconds=0.2, status_seconds=15.0, keep_completed_seconds=3600.0, exiting_seconds=0.02)
OVER = ("delivered", "failed")
AS_INSTALLED = (
    "import sys; sys.argv[0] = 'tiltd'; sys.modules['rich'] = sys.modules['greenlet'] = None; "
    "from tiltd.daemon.__main__ import main; sys.exit(main())"
)
"""Without what only developers have beside it: structlog takes up rich and greenlet where they are, 7 MB."""
GETFLAGS, SETFLAGS, TOPDIR_FLAG = 0x80086601, 0x40086602, 0x00020000
"""Of linux/fs.h, with 64 bits: what ``chattr +T`` uses."""
RUNNER = Path(__file__).with_name("_torque_runner.py")


def cluster(folder: Path, slots: int) -> StandIn:
    nodes = [
        Pretend(f"core-{number:03d}", cores=CORES_A_NODE, scratch_bytes=2 << 30)
        for number in range(slots // CORES_A_NODE)
    ]
    return StandIn(folder, nodes, PACE)


def scatter(folder: Path) -> None:
    """What is made in it lies far apart, by its name, where the file system can do that (``chattr +T``)."""
    flags = array.array("i", [0])
    opened = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # it is no ext4
        fcntl.ioctl(opened, GETFLAGS, flags)
        flags[0] |= TOPDIR_FLAG
        fcntl.ioctl(opened, SETFLAGS, flags)
    os.close(opened)


def span(told: dict[str, Any]) -> float:
    """Seconds from the first submission to the last end, as the server knows them."""
    jobs = told["jobs"]
    return float(max(job["ended_at"] for job in jobs) - min(job["submitted_at"] for job in jobs))


# -- the floor -----------------------------------------------------------------------------------------------


def floor(folder: Path, jobs: int, seconds: float, slots: int) -> dict[str, Any]:
    with cluster(folder / "torque", slots) as torque:
        torque.do("fault", command="qsub", kind="slow", times=-1, seconds=QSUB_SECONDS)
        script = folder / "job.sh"
        script.write_text(f"#!/bin/sh\nexec sleep {seconds}\n")
        argv = [torque.bin / "qsub", "-j", "oe", "-o", "/dev/null", "-l", "nodes=1:ppn=1", script]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: subprocess.run(argv, stdout=subprocess.DEVNULL, check=True), range(jobs)))
        while True:
            listed = subprocess.run([torque.bin / "qstat", "-x"], capture_output=True, check=True).stdout
            if listed.count(b"<job_state>C<") == jobs:
                return {"wall": span(torque.do("told"))}
            time.sleep(5.0)


# -- the daemon ----------------------------------------------------------------------------------------------


def site_on(folder: Path, torque: StandIn, seconds: float) -> Site:
    """The shipped periods of polling; a policy in a hurry about completeness only."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{RUNNER}" {seconds} "$@"\n')
    python.chmod(0o755)
    assert f'marker_grace = "{GRACE_SECONDS:.0f}s"' in POLICY
    # Those that end without a word are meant to: they are no reason to try again, nor to leave their nodes.
    once = POLICY.replace("[retry]", "[retry]\nattempts_max = 1") + "[breaker]\nseries = 16\n"
    site = Site(folder, scan_seconds=15.0, policy=once)
    text = site.config.read_text()
    before = text[: text.index("[[local.node]]")]
    site.config.write_text(
        f'resource_manager = "torque"\n{before}\n[torque]\npath = "{torque.bin}"\npython = "{python}"\n'
        f'scratch = "{folder}/scratch"\nsubmits_per_second = 1000\n'
    )
    return site


def daemon(folder: Path, jobs: int, seconds: float, slots: int) -> dict[str, Any]:
    with cluster(folder / "torque", slots) as torque:
        torque.do("fault", command="qsub", kind="slow", times=-1, seconds=QSUB_SECONDS)
        site = site_on(folder, torque, seconds)
        with running(site, python=AS_INSTALLED) as process:
            watched = psutil.Process(process.pid)
            for number in range(jobs):
                site.feed(f"{'ts' if number % SILENT_EVERY else 'silent'}_{number:04d}.mrc")
            before, asked_before, began = own(watched), torque.do("told")["connections"], time.monotonic()
            limit = time.monotonic() + 3 * jobs / slots * seconds + 120
            yards, reader = list[float](), JournalReader(site.state / "journal.sqlite")
            while time.monotonic() < limit:
                time.sleep(2.0)
                yards.append(yard())
                if sum(reader.counts().get(state, 0) for state in OVER) == jobs:
                    break
            else:
                raise AssertionError(f"not all were over:\n{process.tail()}")
            cpu, minutes = own(watched) - before, (time.monotonic() - began) / 60
            rss = peak_bytes(process.pid)
            told = torque.do("told")
        ended_at = {job["job_id"]: job["ended_at"] for job in told["jobs"]}
        noticed, unmarked, spent = endings(site, ended_at)
        assert len(unmarked) == len(range(0, jobs, SILENT_EVERY)), process.tail()
        return {
            "wall": span(told), "cpu_ms": 1e3 * cpu / jobs, "yard_ms": 1e3 * sum(yards) / len(yards),
            "rss": rss / 1e6, "noticed": noticed,
            "unmarked": unmarked,
            "attempts": spent, "at_once": told["most_at_once"]["qsub"],
            "qstat": (told["connections"]["qstat"] - asked_before.get("qstat", 0)) / minutes,
            "submitted": told["submitted"],
        }  # fmt: skip


def yard() -> float:
    """CPU seconds of a fixed piece of work, as dear as this machine makes it just now."""
    began, kept = time.thread_time(), {}
    for number in range(YARD_LOOPS):
        kept[number % 1000] = (number, str(number))
    return time.thread_time() - began


def own(process: psutil.Process) -> float:
    """CPU seconds of the process itself: the commands that it starts are counted apart."""
    times = process.cpu_times()
    return float(times.user + times.system)


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def endings(site: Site, ended_at: dict[str, float]) -> tuple[list[float], list[float], int]:
    """How long after each runner's marker the daemon recorded the end, and how long after the end that the
    server knows where there was no marker; both sorted; and how many attempts."""
    reader, noticed, unmarked, attempts = JournalReader(site.state / "journal.sqlite"), [], [], 0
    for row in reader.select(limit=100_000):
        attempts += len(row.attempts)
        for _, fact in reader.facts(row.dataset_id):
            if isinstance(fact, JobEnded):
                noticed.append(fact.at - fact.end.ended_at)
            elif isinstance(fact, AttemptFailed) and fact.failure.reason == "no_word":
                unmarked.append(fact.at - ended_at[row.attempts[-1].job_id] - GRACE_SECONDS)
    return sorted(noticed), sorted(unmarked), attempts


# -- both ----------------------------------------------------------------------------------------------------


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--slots", type=int, default=200)
    options = arguments.parse_args()
    given = (options.jobs, options.seconds, options.slots)
    folder = Path(tempfile.mkdtemp(prefix="tiltd-bench-"))
    try:
        scatter(folder)
        bare = floor(Path(tempfile.mkdtemp(dir=folder)), *given)
        ours = daemon(Path(tempfile.mkdtemp(dir=folder)), *given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return told(bare, ours, options.jobs)


def told(bare: dict[str, Any], ours: dict[str, Any], jobs: int) -> int:
    noticed, unmarked = ours["noticed"], ours["unmarked"]
    figures = [
        ("CPU of the daemon, ms a job", ours["cpu_ms"], CPU_MS_A_JOB),
        ("submissions at once", ours["at_once"], AT_ONCE),
        ("wall beside the floor's", ours["wall"] / bare["wall"], WALL_FACTOR),
        ("qstat connections a minute", ours["qstat"], QSTAT_A_MINUTE),
        ("end noticed by its marker, s (median)", noticed[len(noticed) // 2], NOTICED_SECONDS),
        ("end noticed by its marker, s (99 %)", noticed[int(0.99 * len(noticed))], NOTICED_SECONDS),
        ("end noticed without one, s (at most)", unmarked[-1], POLL_SECONDS),
        ("peak RSS, MB", ours["rss"], RSS_MB),
        ("jobs submitted beyond one a series", ours["submitted"] - jobs, 0),
    ]
    yards = f"{ours['cpu_ms'] / ours['yard_ms']:.2f} yards of {ours['yard_ms']:.2f} ms"
    print(f"{jobs} jobs: floor {bare['wall']:.1f} s, daemon {ours['wall']:.1f} s, noticed {len(noticed)}")
    print(f"{'CPU of the daemon a job':<40} {yards}")
    for name, value, limit in figures:
        print(f"{name:<40} {value:8.2f}  (at most {limit}){'' if value <= limit else '  EXCEEDED'}")
    print(
        json.dumps(
            {"floor": bare, "daemon": {k: v for k, v in ours.items() if k not in ("noticed", "unmarked")}}
        )
    )
    return int(any(value > limit for _, value, limit in figures))


if __name__ == "__main__":
    sys.exit(main())
