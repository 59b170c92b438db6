"""A million series through 64 nodes: at most 5 minutes of CPU, 200 MiB and 2 node evaluations a placement.
``make bench`` runs it.

``TILTD_BENCH_DATASETS`` asks for fewer; the limits are then scaled (CPU) or kept (memory).
"""

from __future__ import annotations

import os
import sys

from tiltd.daemon.simulate.command import run, told
from tiltd.daemon.simulate.heap import HeapClock
from tiltd.daemon.simulate.report import Report
from tiltd.daemon.simulate.scene import Scene

DATASETS = int(os.environ.get("TILTD_BENCH_DATASETS", "1000000"))
CPU_SECONDS_MAX = 300.0 * DATASETS / 1_000_000
RSS_BYTES_MAX = 200 * 2**20
EVALUATIONS_MAX = 2.0


def main() -> int:
    clock, report = HeapClock(Scene(datasets=DATASETS, nodes=64, failures=0.01)), Report()
    run(clock, report)
    figures = report.figures(clock)
    print(told(figures))
    slow, large = figures["cpu_seconds"] > CPU_SECONDS_MAX, figures["peak_rss_bytes"] > RSS_BYTES_MAX
    print(f"cpu {figures['cpu_seconds']} s of {CPU_SECONDS_MAX:.0f} s: {'MISSED' if slow else 'ok'}")
    print(f"memory {figures['peak_rss_bytes'] / 2**20:.0f} MiB of 200 MiB: {'MISSED' if large else 'ok'}")
    evaluations = figures["evaluations_per_placement"]
    many = evaluations > EVALUATIONS_MAX
    print(f"evaluations a placement {evaluations} of {EVALUATIONS_MAX:.0f}: {'MISSED' if many else 'ok'}")
    return int(slow or large or many)


if __name__ == "__main__":
    sys.exit(main())
