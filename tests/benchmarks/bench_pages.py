"""What the page costs the daemon with 10,000 live datasets: list, search, overview, one dataset.

CPU time of the daemon's process, the best of several rounds, in one answer over the loopback.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from shell.serving import Serving
from shell.web_scene import facility

DATASETS = 10_000
PAGES = {
    "the list": ("/datasets", 100.0),
    "a search": ("/datasets?text=L0999", 100.0),
    "the overview": ("/", 100.0),
    "one dataset": ("/datasets/TS_11", 40.0),
    "the list as JSON, all rows": ("/api/v1/datasets?limit=10000", 400.0),
}
"""Address, and at most so many milliseconds of CPU."""


def cost_ms(serving: Serving, path: str) -> float:
    costs = []
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", serving.servers.port, timeout=30)
        before = time.process_time()
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        costs.append(1000 * (time.process_time() - before))
        connection.close()
    return min(costs)


def main() -> int:
    missed = False
    with tempfile.TemporaryDirectory() as folder, Serving(facility(Path(folder), more=DATASETS)) as serving:
        for name, (path, most) in PAGES.items():
            took = cost_ms(serving, path)
            print(f"{name}, {DATASETS} live datasets: {took:.1f} ms of CPU (at most {most:g})")
            missed = missed or took > most
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
