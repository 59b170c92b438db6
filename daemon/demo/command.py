"""The story of ``tiltd demo``, and its exit code: 0 only when all came out as expected."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from tiltd.daemon.client import Answered, NotRunning
from tiltd.daemon.standin.torque.site import StandInFailed
from tiltd.daemon.text import shown

from .checks import (
    Check,
    feed_check,
    metric_checks,
    result_checks,
    series_checks,
    site_checks,
    snapshot,
)
from .daemon import Daemon, DaemonFailed, running
from .follow import Seen, look
from .screen import Screen, row, table, verdict
from .shooting import EXPECTED, Microscope
from .site import Site, fresh_folder, lay_out
from .torque import Cluster

INTERRUPTED = 130
LOOK_SECONDS = 0.5
LOOK_CLOSELY_SECONDS = 0.1
"""Who waits for scratch, and says so, may wait for less than a second."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``tiltd demo``."""
    parser.description = (
        "A synthetic microscope writes tilt series, tiltd makes tomograms of them on this machine, and\n"
        "a table shows what came of each.  Exit code 0 only if all came out as expected."
    )
    parser.add_argument(
        "--folder", type=Path, help="where to do it, an empty or new folder (default: ./demo-tiltd-...)"
    )
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of an image (default: 256)")
    parser.add_argument("--tilts", type=int, default=41, metavar="N", help="tilts of a series (default: 41)")
    parser.add_argument(
        "--interval", type=float, default=0.12, metavar="SECONDS", help="between two tilts (default: 0.12)"
    )
    parser.add_argument(
        "--limit", type=float, default=170.0, metavar="SECONDS", help="give up after so long (default: 170)"
    )
    parser.add_argument(
        "--resource-manager", choices=("local", "torque"), default="local",
        help="parts of this machine, or qsub on a stand-in Torque with three pretend nodes (default: local)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="only one JSON object, at the end")


def main(args: argparse.Namespace) -> int:
    """Run it.  1 when something came out otherwise, 2 for arguments or a folder that cannot be used."""
    if args.size < 32 or args.tilts < 9 or not 0 <= args.interval <= 5:
        print(
            "The demo needs --size of at least 32, --tilts of at least 9, --interval of 0 to 5.",
            file=sys.stderr,
        )
        return 2
    try:
        folder = fresh_folder(args.folder)
        scratch_bytes = scratch_bytes_for_one(args.size, args.tilts)
        cluster = Cluster(folder, args.tilts, scratch_bytes) if args.resource_manager == "torque" else None
        site = cluster.site if cluster else lay_out(folder, args.tilts, scratch_bytes)
    except (OSError, ValueError) as error:
        print(f"The demo cannot make its folder: {shown(str(error))}", file=sys.stderr)
        return 2
    story = Demo(site, args, cluster)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with cluster.torque if cluster else contextlib.nullcontext():
            checks = story.run()
    except (DaemonFailed, NotRunning, Answered, StandInFailed, OSError) as error:
        print(f"{error}\nEverything is in {shown(str(site.folder))}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\nStopped, and the daemon with it. What there is, is in {shown(str(site.folder))}.",
            file=sys.stderr,
        )
        return INTERRUPTED
    story.conclude(checks)
    return 0 if all(check.kept for check in checks) else 1


def scratch_bytes_for_one(size_px: int, tilt_count: int) -> int:
    """Scratch of a node that holds one job and not two: a job keeps its input (2 bytes a pixel), the
    prepared images (4) and a volume a quarter as thick as wide (4), and 4 MB beside them."""
    pixels = size_px * size_px * tilt_count
    job_bytes = 6 * pixels + size_px**3 + 4_000_000
    return int(1.6 * job_bytes)


def _terminated(number: int, frame: object) -> NoReturn:
    """A demo that is ended takes its daemon along, as with Ctrl-C."""
    raise KeyboardInterrupt


class Demo:
    """One run: site, daemon, microscope, and what was seen."""

    def __init__(self, site: Site, args: argparse.Namespace, cluster: Cluster | None = None) -> None:
        self.site, self.args, self.cluster = site, args, cluster
        self.screen = Screen(EXPECTED, args.tilts, quiet=args.json)
        self.microscope = Microscope(site.incoming, args.size, args.tilts, args.interval)
        self.seen: dict[str, Seen] = {}
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def run(self) -> list[Check]:
        """All of it, the daemon stopped at the end.  Raises DaemonFailed, NotRunning, Answered or OSError."""
        say = self.screen.say
        say(f"tiltd demo in {shown(str(self.site.folder))}")
        with running(self.site) as daemon:
            daemon.wait_ready()
            say("The daemon is ready. Shooting two series, two PACE targets, one abort and one map.")
            self.microscope.start()
            try:
                self._follow(daemon)
            finally:
                self.microscope.stop()
            before = snapshot(self.site.incoming)
            self._until_released(daemon)
            checks = list(series_checks(EXPECTED, self.seen, self.site.nodes))
            checks += result_checks(EXPECTED, self.seen, self.args.tilts, 13.4 * 256 / self.args.size)
            checks += metric_checks(daemon.client.text("/metrics")[1], self.delivered)
            if self.cluster is not None:
                checks += self.cluster.checks()
            code = daemon.stop()
        checks += site_checks(self.site, self.delivered)
        checks.append(feed_check(before, snapshot(self.site.incoming)))
        checks.append(Check("the daemon ended cleanly when asked to", code == 0, f"its exit code is {code}"))
        return checks

    @property
    def delivered(self) -> int:
        return sum(series.outcome == "delivered" for series in EXPECTED)

    def _follow(self, daemon: Daemon) -> None:
        """Until everything has settled, or it takes too long."""
        while self.seconds < self.args.limit:
            daemon.check_alive()
            if self.microscope.error is not None:
                raise self.microscope.error
            self.seen = look(daemon.client, EXPECTED)
            if self.cluster is not None:
                self.cluster.watch(daemon.client.get("nodes"), self.seen)
            self.screen.draw(self.seconds, self.microscope, self.seen)
            if not self.microscope.shooting and all(self.seen[e.name].settled(e) for e in EXPECTED):
                return
            time.sleep(LOOK_SECONDS if self.cluster is None else LOOK_CLOSELY_SECONDS)

    def _until_released(self, daemon: Daemon) -> None:
        """Scratch is released just after a result is published; wait for the last one."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            nodes = daemon.client.get("nodes")["nodes"]
            if not any(node["attempts"] for node in nodes):
                return
            time.sleep(0.1)

    def conclude(self, checks: list[Check]) -> None:
        """The table, the promises, and what to try next."""
        folder = str(self.site.folder)
        rows = [row(series, self.seen[series.name], self.microscope, folder) for series in EXPECTED]
        kept = all(check.kept for check in checks)
        if self.args.json:
            print(json.dumps(self._report(rows, checks, kept)))
            return
        say = self.screen.say
        say("\n" + table(rows))
        say("  (seconds: from the last tilt to the tomogram at its final place)\n")
        say(verdict(checks))
        say(f"\n{'All' if kept else 'NOT all'} came out as expected, in {self.seconds:.0f} s.")
        say(self._next_steps())

    def _report(self, rows: list[dict[str, Any]], checks: list[Check], kept: bool) -> dict[str, Any]:
        return {
            "ok": kept,
            "folder": str(self.site.folder),
            "seconds": round(self.seconds, 1),
            "series": rows,
            "checks": [check._asdict() for check in checks],
        }

    def _next_steps(self) -> str:
        config, tiltd = shlex.quote(str(self.site.config)), shlex.quote(_own_command())
        results = shown(str(self.site.results))
        cluster = ""
        if self.cluster is not None:
            cluster = f"\n  {shlex.join(self.cluster.torque.server_argv)} &"
        return f"""
Everything stays in {shown(str(self.site.folder))}
  tomograms, manifests, reports    {results} (a report.html each)
  what the daemon said             {shown(str(self.site.log))}
Next, with the daemon running again in one terminal (nothing is computed twice):{cluster}
  {tiltd} run --config {config}
and in another:
  {tiltd} list --config {config}
  {tiltd} why TS_03 --config {config}
  {tiltd} accept TS_03 --config {config}     runs the aborted series as it is
  {tiltd} feed {shlex.quote(str(self.site.incoming))} --project demo --session grid2 --interval 0.2"""


def _own_command() -> str:
    beside = Path(sys.executable).with_name("tiltd")
    return str(beside) if beside.exists() else "tiltd"
