"""The hardware: the 2015 study's cluster, or the nodes that a history was recorded on."""

from __future__ import annotations

from tiltd.daemon.core.model import NodeInfo, Record

GB = 1_000_000_000
STUDY_MEMORY_BYTES = 16 * GB
STUDY_SCRATCH_BYTES = 655 * GB
"""Six disks a node, about 655 GB together."""

SERVER_BYTES_PER_SECOND = 1.25e9
LINK_BYTES_PER_SECOND = 125e6
"""The study does not tell its network: a server on 10 Gbit/s and nodes on 1 Gbit/s are assumed."""


class Hardware(Record):
    """``verify_bytes_share`` is how much of a result the daemon reads back before it publishes: 1 with
    ``verify = "full"``, over its own link, which is the server's."""

    nodes: tuple[NodeInfo, ...]
    server_bytes_per_second: float = SERVER_BYTES_PER_SECOND
    link_bytes_per_second: float = LINK_BYTES_PER_SECOND
    verify_bytes_share: float = 1.0


def study_nodes(scratch_bytes: int = STUDY_SCRATCH_BYTES) -> tuple[NodeInfo, ...]:
    """24 nodes: 15 of 4 cores and 9 of 8, each with 16 GB of memory."""
    return tuple(
        NodeInfo(
            name=f"core-{number:03d}",
            state="free",
            cores=4 if number <= 15 else 8,
            cores_free=4 if number <= 15 else 8,
            memory_bytes=STUDY_MEMORY_BYTES,
            scratch_total_bytes=scratch_bytes,
            scratch_free_bytes=scratch_bytes,
            scratch_path="/scratch",
            observed_at=0.0,
            properties=() if number <= 15 else ("eight",),
        )
        for number in range(1, 25)
    )


def study() -> Hardware:
    return Hardware(nodes=study_nodes())
