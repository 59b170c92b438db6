"""What a placement decision costs: 64 nodes, and one node asked alone.  ``make bench`` runs it.

CPU time, the best of several rounds; the target of 200 microseconds a decision is for 64 nodes.  The last
figure is a ratio within this run: sixteen times the nodes should cost about sixteen times as much.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import NodeInfo, Policy, ResourceRequest
from tiltd.policy.place import fits, place

GB = 10**9
POLICY = Policy(version="bench")
REQUEST = ResourceRequest(cores=4, threads=4, memory_bytes=4 * GB, scratch_bytes=40 * GB)


def cluster(count: int) -> list[NodeInfo]:
    """Nodes of 4 and 8 cores, as in the study; every third is full."""
    return [
        NodeInfo(
            name=f"node{n:04}",
            state="free",
            cores=4 + 4 * (n % 2),
            cores_free=0 if n % 3 == 0 else 4,
            memory_bytes=16 * GB,
            scratch_total_bytes=200 * GB,
            scratch_free_bytes=200 * GB,
            scratch_path="/scratch",
            observed_at=0.0,
        )
        for n in range(count)
    ]


def microseconds(work: Callable[[], object], times: int, rounds: int = 7) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - start) / times)
    return best * 1e6


def main() -> int:
    few, many = cluster(64), cluster(1024)
    frees = {
        n.name: Free(cores=n.cores_free, memory_bytes=n.memory_bytes, scratch_bytes=10**11) for n in many
    }

    def free(node: NodeInfo) -> Free:
        return frees[node.name]

    at_64 = microseconds(lambda: place(REQUEST, few, free, POLICY, now=1.0), 200)
    at_1024 = microseconds(lambda: place(REQUEST, many, free, POLICY, now=1.0), 12)
    one = microseconds(lambda: fits(REQUEST, few[1], frees["node0001"], POLICY, now=1.0), 2000)
    print(f"place, 64 nodes:    {at_64:7.0f} us (target 200)")
    print(f"place, 1,024 nodes: {at_1024:7.0f} us ({at_1024 / at_64:.1f} times as much)")
    print(f"fits, one node:     {one:7.2f} us")
    return 0 if at_64 <= 200 else 1


if __name__ == "__main__":
    sys.exit(main())
