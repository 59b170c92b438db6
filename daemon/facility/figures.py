"""How long things took and what they occupied: the same figures of a simulated history and of a real one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from tiltd.daemon.core.model import Dataset, Record, State


class Run(Record):
    """One finished dataset.  Instants are ``None`` where it never came so far.

    ``core_seconds`` and ``node_seconds`` are of all its attempts, from the claim to the end of each;
    ``booked`` are (from, to, node, bytes) of scratch, ``rules`` what placed it last.
    """

    dataset_id: str
    state: State
    last_change_at: float
    completed_at: float | None
    placed_at: float | None
    started_at: float | None
    finished_at: float
    nodes: tuple[str, ...]
    cores: int
    threads: int
    rule: str
    attempts: int
    core_seconds: float
    node_seconds: float
    booked: tuple[tuple[float, float, str, int], ...]


class Figures(Record):
    """Seconds, unless the name says otherwise.  Of no series at all everything is 0.

    ``wait_*`` is from complete to started, ``tomogram_*`` from the last tilt to the published tomogram;
    ``node_hours`` count every node of a job from its claim to its end; ``scratch_peak_bytes`` is the most
    that was booked on all nodes at one time, ``node_scratch_peak_bytes`` on any one.
    """

    series: int
    delivered: int
    failed: int
    attempts: int
    wait_p50: float
    wait_p95: float
    tomogram_p50: float
    tomogram_p95: float
    makespan: float
    node_hours: float
    core_hours: float
    scratch_peak_bytes: int
    node_scratch_peak_bytes: int


def run_of(record: Dataset) -> Run:
    """From a dataset's record, live or out of the journal."""
    last = record.attempt
    ran = [
        (a, a.started_at, a.ended_at)
        for a in record.attempts
        if a.started_at is not None and a.ended_at is not None
    ]
    spans = [(a, max(0.0, ended - started)) for a, started, ended in ran]
    return Run(
        dataset_id=record.dataset_id,
        state=record.state,
        last_change_at=record.last_change_at or record.found_at,
        completed_at=record.completed_at,
        placed_at=last.placed_at if last else None,
        started_at=record.attempts[0].started_at if last else None,
        finished_at=record.state_since_at,
        nodes=(last.nodes or last.placement.nodes) if last else (),
        cores=last.placement.cores if last else 0,
        threads=last.placement.threads if last else 0,
        rule=last.placement.rule if last else "",
        attempts=len(record.attempts),
        core_seconds=sum(s * a.placement.cores * len(a.placement.nodes) for a, s in spans),
        node_seconds=sum(s * len(a.placement.nodes) for a, s in spans),
        booked=tuple(
            (a.placed_at, a.ended_at, node, a.placement.scratch_bytes)
            for a in record.attempts
            if a.ended_at is not None
            for node in a.placement.nodes
        ),
    )


def figures(runs: Sequence[Run]) -> Figures:
    """Cost: n log n of the runs."""
    delivered = [run for run in runs if run.state is State.DELIVERED]
    waits = sorted(
        max(0.0, run.started_at - run.completed_at)
        for run in delivered
        if run.started_at is not None and run.completed_at is not None
    )
    took = sorted(max(0.0, run.finished_at - run.last_change_at) for run in delivered)
    begin = min((run.completed_at for run in delivered if run.completed_at is not None), default=0.0)
    booked = [span for run in runs for span in run.booked]
    nodes = {node for _, _, node, _ in booked}
    return Figures(
        series=len(runs),
        delivered=len(delivered),
        failed=sum(run.state is State.FAILED for run in runs),
        attempts=sum(run.attempts for run in runs),
        wait_p50=_quantile(waits, 0.5),
        wait_p95=_quantile(waits, 0.95),
        tomogram_p50=_quantile(took, 0.5),
        tomogram_p95=_quantile(took, 0.95),
        makespan=max((run.finished_at for run in delivered), default=begin) - begin,
        node_hours=sum(run.node_seconds for run in runs) / 3600.0,
        core_hours=sum(run.core_seconds for run in runs) / 3600.0,
        scratch_peak_bytes=_peak((begin, end, size) for begin, end, _, size in booked),
        node_scratch_peak_bytes=max(
            (_peak((b, e, size) for b, e, node, size in booked if node == name) for name in nodes), default=0
        ),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest figure that at least ``share`` of them do not exceed."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _peak(spans: Iterable[tuple[float, float, int]]) -> int:
    """The largest sum at one time; what ends when another begins does not overlap it."""
    changes = sorted(change for begin, end, size in spans for change in ((end, -size), (begin, size)))
    most = now = 0
    for _, size in changes:
        now += size
        most = max(most, now)
    return most
