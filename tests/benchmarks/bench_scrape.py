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
from typing import get_args

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))

from shell.serving import Serving
from shell.test_metrics import life
from shell.web_scene import facility
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Failure, FailureClass, Placement, Reservation, Unplaceable
from tiltd.daemon.metrics import Metrics

SCRAPE_MS, SERIES_A_NODE, SERIES_BESIDE = 100.0, 10, 2_000
DATASETS, NODES, FEEDS, PIPELINES = 10_000, 1_000, 10, 3
REASONS = ("scratch", "cores", "memory", "node_offline", "limit", "breaker")


def filled(folder: Path) -> Serving:
    """A facility of that size: every node booked, every metric with every value that it usually has."""
    daemon = facility(folder, more=DATASETS)
    core = daemon.core
    node = next(iter(core.nodes.values()))
    core.nodes = {f"n{number:04}": replace(node, name=f"n{number:04}") for number in range(NODES)}
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


def lives(metrics: Metrics) -> None:
    """Of each feed and pipeline a series that failed first; every class of failure; runs of several sizes."""
    for feed in range(FEEDS):
        metrics.saw(o.FilesObserved(at=1.0, feed=f"feed{feed}", up=True))
        for pipeline in range(PIPELINES):
            metrics.observe(_one_life(f"feed{feed}", f"pipe{pipeline}"))
    for number, failure_class in enumerate(get_args(FailureClass)):
        for cores in (1, 2, 4, 8, 16):
            metrics.observe(_one_life("feed0", f"pipe{number % PIPELINES}", failure_class, cores))
    metrics.saw(o.DestinationsObserved(at=1.0, free_bytes={f"feed{n}": 10**12 for n in range(FEEDS)}))


def _one_life(
    feed: str, pipeline: str, failure_class: FailureClass = "memory", cores: int = 4
) -> list[f.Fact]:
    found = []
    for fact in life():
        if isinstance(fact, f.DatasetFound):
            fact = replace(fact, feed=feed, pipeline=pipeline)
        elif isinstance(fact, f.Placed):
            placement: Placement = replace(fact.attempt.placement, cores=cores, threads=cores)
            fact = replace(fact, attempt=replace(fact.attempt, placement=placement))
        elif isinstance(fact, f.AttemptFailed):
            fact = replace(fact, failure=Failure(failure_class=failure_class, reason="r", detail=""))
        found.append(fact)
    return found


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
    with tempfile.TemporaryDirectory() as folder, filled(Path(folder)) as serving:
        took, series, of_nodes = scraped(serving)
    most = SERIES_A_NODE * NODES + SERIES_BESIDE
    print(f"scrape, {DATASETS} datasets and {NODES} nodes: {took:.1f} ms of CPU (at most {SCRAPE_MS:g})")
    print(f"series in it: {series} (at most {most}), {of_nodes / NODES:g} of each node")
    return int(took > SCRAPE_MS or series > most)


if __name__ == "__main__":
    sys.exit(main())
