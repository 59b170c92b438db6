"""The history's arrivals once more, through the core and a modelled facility, under another policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from tiltd.daemon.core.model import Dataset, NodeInfo, Policy, Record
from tiltd.daemon.facility.cluster import LINK_BYTES_PER_SECOND, SERVER_BYTES_PER_SECOND, Hardware
from tiltd.daemon.facility.drive import Facility
from tiltd.daemon.facility.figures import Figures, figures, run_of
from tiltd.plugins.api import Pipeline

from .history import arrivals, pipelines_for, site_of, staging_rate


class Replayed(Record):
    """``really`` is what happened, ``simulated`` the same arrivals in the model, by the policy's name.

    How far the model is from the truth shows where the policy in force is simulated too.
    """

    series: int
    reruns: int
    really: Figures
    simulated: dict[str, Figures]
    unfinished: dict[str, int]
    killed: dict[str, int]
    link_bytes_per_second: float
    server_bytes_per_second: float


def replay(
    datasets: Sequence[Dataset],
    policies: Mapping[str, Policy],
    pipelines: Mapping[str, Pipeline],
    nodes: Sequence[NodeInfo],
    *,
    link_bytes_per_second: float | None = None,
    server_bytes_per_second: float | None = None,
) -> Replayed:
    """Cost: a millisecond or two for each series and policy."""
    link = link_bytes_per_second or staging_rate(datasets) or LINK_BYTES_PER_SECOND
    server = server_bytes_per_second or max(link, SERVER_BYTES_PER_SECOND)
    empty = tuple(
        replace(node, state="free", cores_free=node.cores, scratch_free_bytes=node.scratch_total_bytes)
        for node in nodes
    )
    hardware = Hardware(nodes=empty, link_bytes_per_second=link, server_bytes_per_second=server)
    coming, site = arrivals(datasets), site_of(datasets)
    by_name = pipelines_for(datasets, pipelines)
    told = {name: Facility(hardware, site, policy, by_name).day(coming) for name, policy in policies.items()}
    first = [run_of(dataset) for dataset in datasets if dataset.run == 1]
    return Replayed(
        series=len(coming),
        reruns=len(datasets) - len(coming),
        really=figures(first),
        simulated={name: figures(each.runs) for name, each in told.items()},
        unfinished={name: len(each.unfinished) for name, each in told.items()},
        killed={name: each.killed for name, each in told.items()},
        link_bytes_per_second=link,
        server_bytes_per_second=server,
    )
