"""What an idle daemon costs: CPU and memory with the shipped periods, 4 feeds and finished series in them.

``python tests/benchmarks/bench_idle.py [--seconds N]`` runs the real daemon in a temporary folder, prints
the figures and ends with 1 if one is exceeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "_path"), str(Path(__file__).parents[1])]

import psutil  # noqa: E402

from plugins.series_files import mdoc, stack  # noqa: E402
from shell.daemon_process import Site, running  # noqa: E402

CPU_LIMIT_PERCENT = 1.0
MEMORY_LIMIT_MIB = 80.0
FEEDS = ("krios1", "krios2", "glacios", "talos")
SESSIONS, A_SESSION = 10, 25


def fill(feed: Path) -> None:
    """1,000 finished series in all feeds, as on an ordinary day."""
    for session in range(SESSIONS):
        folder = feed / f"p/s{session}"
        folder.mkdir(parents=True)
        for number in range(A_SESSION):
            (folder / f"ts_{number:03d}.mrc").write_bytes(stack())
            (folder / f"ts_{number:03d}.mrc.mdoc").write_bytes(mdoc())


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=45.0, help="how long to watch")
    seconds = arguments.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="tiltd-bench-") as folder:
        site = Site(Path(folder), feeds=FEEDS, scan_seconds=15)
        text = site.config.read_text()
        site.config.write_text(text[: text.index("[poll]")])
        for feed in site.feeds.values():
            fill(feed)
        with running(site) as daemon:
            process = psutil.Process(daemon.pid)
            time.sleep(5.0)  # the first looks and the baseline are not idling
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            time.sleep(seconds)
            percent = 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
            mebibytes = process.memory_info().rss / 2**20
    print(f"idle with {len(FEEDS)} feeds: {percent:.2f} % of a core (at most {CPU_LIMIT_PERCENT} %)")
    print(f"idle with {len(FEEDS)} feeds: {mebibytes:.1f} MiB resident (at most {MEMORY_LIMIT_MIB:.0f} MiB)")
    return int(percent > CPU_LIMIT_PERCENT or mebibytes > MEMORY_LIMIT_MIB)


if __name__ == "__main__":
    sys.exit(main())
