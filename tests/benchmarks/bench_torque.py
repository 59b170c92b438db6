"""Jobs through the stand-in Torque, beside a bare floor on the same machine in the same run.

The floor submits with ``qsub``, 8 at once, and asks ``qstat -x`` every 5 s: nobody can do with less.  The
daemon does the same work with everything that it is for: a durable journal, claims, results verified and
published.  The jobs claim, sleep, stage out and say so.

``python tests/benchmarks/bench_torque.py [--jobs N] [--seconds S] [--slots N]`` prints the figures and ends
with 1 if one of those that the project promises is exceeded.
"""

from __future__ import annotations

import argparse
import json
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
from tiltd.daemon.reader import JournalReader  # noqa: E402
from tiltd.daemon.standin.torque.batch import Pace  # noqa: E402
from tiltd.daemon.standin.torque.records import Pretend  # noqa: E402
from tiltd.daemon.standin.torque.site import StandIn  # noqa: E402

CPU_MS_A_JOB, WALL_FACTOR, AT_ONCE, QSTAT_A_MINUTE, NOTICED_SECONDS, RSS_MB = 3.5, 1.5, 8, 12.0, 0.5, 80.0
CORES_A_NODE = 8
QSUB_SECONDS = 0.01
"""A real qsub was measured at 8 to 17 ms; the stand-in's server answers at once."""
PACE = Pace(cycle_seconds=0.2, status_seconds=15.0, keep_completed_seconds=3600.0, exiting_seconds=0.02)
RUNNER = Path(__file__).with_name("_torque_runner.py")


def cluster(folder: Path, slots: int) -> StandIn:
    nodes = [
        Pretend(f"core-{number:03d}", cores=CORES_A_NODE, scratch_bytes=2 << 30)
        for number in range(slots // CORES_A_NODE)
    ]
    return StandIn(folder, nodes, PACE)


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
    site = Site(folder, scan_seconds=15.0, policy=POLICY)
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
        with running(site) as process:
            watched = psutil.Process(process.pid)
            for number in range(jobs):
                site.feed(f"ts_{number:04d}.mrc")
            before, asked_before, began = own(watched), torque.do("told")["connections"], time.monotonic()
            limit = time.monotonic() + 3 * jobs / slots * seconds + 120
            while time.monotonic() < limit:
                time.sleep(2.0)
                reader = JournalReader(site.state / "journal.sqlite")
                if len([row for row in reader.select(limit=jobs) if row.state == "delivered"]) == jobs:
                    break
            else:
                raise AssertionError(f"not all were delivered:\n{process.tail()}")
            cpu, minutes = own(watched) - before, (time.monotonic() - began) / 60
            rss = peak_bytes(process.pid)
            told = torque.do("told")
        noticed, spent = endings(site)
        return {
            "wall": span(told), "cpu_ms": 1e3 * cpu / jobs, "rss": rss / 1e6, "noticed": noticed,
            "attempts": spent, "at_once": told["most_at_once"]["qsub"],
            "qstat": (told["connections"]["qstat"] - asked_before.get("qstat", 0)) / minutes,
            "submitted": told["submitted"],
        }  # fmt: skip


def own(process: psutil.Process) -> float:
    """CPU seconds of the process itself: the commands that it starts are counted apart."""
    times = process.cpu_times()
    return float(times.user + times.system)


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def endings(site: Site) -> tuple[list[float], int]:
    """How long after each runner's marker the daemon recorded the end, sorted; and how many attempts."""
    reader, noticed, attempts = JournalReader(site.state / "journal.sqlite"), [], 0
    for row in reader.select(limit=100_000):
        attempts += len(row.attempts)
        for _, fact in reader.facts(row.dataset_id):
            if type(fact).__name__ == "JobEnded":
                noticed.append(fact.at - fact.end.ended_at)  # type: ignore[attr-defined]
    return sorted(noticed), attempts


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
        (folder / "floor").mkdir()
        (folder / "daemon").mkdir()
        bare, ours = floor(folder / "floor", *given), daemon(folder / "daemon", *given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return told(bare, ours, options.jobs)


def told(bare: dict[str, Any], ours: dict[str, Any], jobs: int) -> int:
    noticed = ours["noticed"]
    figures = [
        ("CPU of the daemon, ms a job", ours["cpu_ms"], CPU_MS_A_JOB),
        ("submissions at once", ours["at_once"], AT_ONCE),
        ("wall beside the floor's", ours["wall"] / bare["wall"], WALL_FACTOR),
        ("qstat connections a minute", ours["qstat"], QSTAT_A_MINUTE),
        ("end noticed by its marker, s (median)", noticed[len(noticed) // 2], NOTICED_SECONDS),
        ("end noticed by its marker, s (99 %)", noticed[int(0.99 * len(noticed))], NOTICED_SECONDS),
        ("peak RSS, MB", ours["rss"], RSS_MB),
        ("jobs submitted beyond one a series", ours["submitted"] - jobs, 0),
    ]
    print(f"{jobs} jobs: floor {bare['wall']:.1f} s, daemon {ours['wall']:.1f} s, noticed {len(noticed)}")
    for name, value, limit in figures:
        print(f"{name:<40} {value:8.2f}  (at most {limit}){'' if value <= limit else '  EXCEEDED'}")
    print(json.dumps({"floor": bare, "daemon": {k: v for k, v in ours.items() if k != "noticed"}}))
    return int(any(value > limit for _, value, limit in figures))


if __name__ == "__main__":
    sys.exit(main())
