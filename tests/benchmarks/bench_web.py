"""What a scrape costs with 10,000 live datasets and 1,000 nodes, and how fast a command starts.

CPU time, the best of several rounds: at most 100 ms a scrape, 100 ms for ``tiltd --help``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))

from shell.test_metrics import core, dataset
from tiltd.daemon.metrics import Metrics

SCRAPE_MS, HELP_MS = 100.0, 100.0
DATASETS, NODES = 10_000, 1_000


def scrape_ms() -> float:
    metrics = Metrics(now=lambda: 10_000.0)
    view = core(*(dataset(f"d{number}.1.1") for number in range(DATASETS)))
    node = view.nodes["n1"]
    view.nodes = {f"n{number:04}": replace(node, name=f"n{number:04}") for number in range(NODES)}
    metrics.attach(view)
    costs = []
    for _ in range(7):
        before = time.process_time()
        metrics.render()
        costs.append(1000 * (time.process_time() - before))
    return min(costs)


def help_ms() -> float:
    costs = []
    for _ in range(7):
        before = _children_seconds()
        subprocess.run(
            [sys.executable, "-m", "tiltd.daemon", "--help"], stdout=subprocess.DEVNULL, check=True
        )
        costs.append(1000 * (_children_seconds() - before))
    return min(costs)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    scrape, start = scrape_ms(), help_ms()
    print(f"scrape, {DATASETS} datasets and {NODES} nodes: {scrape:.1f} ms of CPU (at most {SCRAPE_MS:g})")
    print(f"tiltd --help: {start:.1f} ms of CPU (at most {HELP_MS:g})")
    return int(scrape > SCRAPE_MS or start > HELP_MS)


if __name__ == "__main__":
    sys.exit(main())
