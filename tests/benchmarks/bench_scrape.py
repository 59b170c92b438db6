"""What a scrape costs with 10,000 live datasets and 1,000 nodes, and how many series it answers with.

CPU time of the daemon's process, the best of several rounds, in one answer over the loopback: at most 100 ms,
at most 10 series a node and 2,000 beside them.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))

from shell.serving import Serving
from shell.test_metrics import FEEDS, PIPELINES, lives
from shell.web_scene import facility
from tiltd.daemon.core.model import Reservation, Unplaceable

SCRAPE_MS, SERIES_A_NODE, SERIES_BESIDE = 100.0, 10, 2_000
DATASETS, NODES, FEW_NODES = 10_000, 1_000, 4
REASONS = ("scratch", "cores", "memory", "node_offline", "limit", "breaker")


def filled(folder: Path, nodes: int) -> Serving:
    """A facility of that size: every node booked, every metric with every value that it usually has."""
    daemon = facility(folder, more=DATASETS)
    core = daemon.core
    node = next(iter(core.nodes.values()))
    core.nodes = {f"n{number:04}": replace(node, name=f"n{number:04}") for number in range(nodes)}
    core.refusals = dict.fromkeys(REASONS, 5)
    blocked = [Unplaceable(rejected={reason: 9}, unblocked_by=("node",)) for reason in REASONS]
    core.blocked_by = lambda key: blocked[len(key) % len(blocked)]
    for number, name in enumerate(core.nodes):
        booked = Reservation(
            attempt_id=f"b{number}.1.1.a1",
            node=name,
            reserved_bytes=10,
            cores=4,
            memory_bytes=0,
            reserved_at=0.0,
        )
        core.state.ledger.book(booked)
    lives(daemon.metrics)
    return Serving(daemon)


def scraped(serving: Serving) -> tuple[float, int, int]:
    """Milliseconds of CPU, number of series, and how many of them are of a node."""
    costs, text = [], b""
    for _ in range(7):
        connection = http.client.HTTPConnection("127.0.0.1", serving.servers.port, timeout=30)
        before = time.process_time()
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read()
        costs.append(1000 * (time.process_time() - before))
        assert response.status == 200, response.status
        connection.close()
    series = [line for line in text.splitlines() if not line.startswith(b"#")]
    return min(costs), len(series), sum(b'node="' in line for line in series)


def main() -> int:
    missed = False
    print(f"{FEEDS} feeds and {PIPELINES} pipelines, with failures of every class")
    for nodes in (NODES, FEW_NODES):
        with tempfile.TemporaryDirectory() as folder, filled(Path(folder), nodes) as serving:
            took, series, of_nodes = scraped(serving)
        most = SERIES_A_NODE * nodes + SERIES_BESIDE
        print(f"scrape, {DATASETS} datasets and {nodes} nodes: {took:.1f} ms of CPU (at most {SCRAPE_MS:g})")
        print(f"series in it: {series} (at most {most}), {of_nodes / nodes:g} of each node")
        missed |= took > SCRAPE_MS or series > most
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
