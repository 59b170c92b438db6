"""The journal's history as questions need it: datasets, arrivals with what each truly cost, the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import (
    Attempt,
    Dataset,
    NodeInfo,
    Options,
    Policy,
    ResourceRequest,
    Sighting,
    TiltSeries,
)
from tiltd.daemon.core.site import FeedInfo, Site
from tiltd.daemon.facility.study_pipeline import StudyPipeline
from tiltd.daemon.facility.work import Arrival, pace_of
from tiltd.daemon.reader import JournalReader
from tiltd.plugins.api import Pipeline

from .differ import Case
from .scene import asked_by, state_of

DATASETS_MAX = 200_000


def recorded(journal: Path, since_at: float) -> list[Dataset]:
    """Datasets that became complete since then, oldest first.  Costs all rows of the journal, and its state:
    only that knows how live ones stand."""
    reader = JournalReader(journal)
    try:
        found = {dataset.dataset_id: dataset for dataset in reader.select(limit=DATASETS_MAX)}
    finally:
        reader.close()
    found |= state_of(journal).datasets
    complete = [d for d in found.values() if d.series is not None and (d.completed_at or 0.0) >= since_at]
    return sorted(complete, key=lambda each: (each.completed_at or 0.0, each.dataset_id))


def cases(datasets: Iterable[Dataset], policy: Policy, pipelines: Mapping[str, Pipeline]) -> list[Case]:
    """With the features as they were when it was placed last, where that is recorded."""
    core = Core(Site(feeds={}), policy, pipelines)
    found = []
    for dataset in datasets:
        assert dataset.series is not None
        decided = next((a.decided for a in reversed(dataset.attempts) if a.decided is not None), None)
        features = decided.features if decided else core.placing.deciding.features(dataset)
        asked, _ = asked_by(pipelines.get(dataset.pipeline), dataset.series, dataset.options)
        found.append(Case(title=dataset.dataset_id, features=features, asked=asked))
    return found


class RecordedPipeline(StudyPipeline):
    """Stands in for a pipeline that is not installed here: it asks for what that one asked then."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self._known = {
            d.series.fingerprint.digest: _request_of(d.attempts[-1])
            for d in datasets
            if d.series is not None and d.attempts
        }

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        known = self._known.get(series.fingerprint.digest)
        if known is None:
            return ResourceRequest()
        return ResourceRequest(
            cores=known.cores,
            threads=known.threads,
            memory_bytes=known.memory_bytes,
            scratch_bytes=known.scratch_bytes,
            result_bytes=known.result_bytes,
        )


def _request_of(attempt: Attempt) -> ResourceRequest:
    """What was asked, with the pipeline's own words for memory and scratch where they are known."""
    if attempt.decided is None:
        return attempt.request
    return replace(
        attempt.request,
        memory_bytes=attempt.decided.asked_memory_bytes,
        scratch_bytes=attempt.decided.asked_scratch_bytes,
    )


def pipelines_for(datasets: Sequence[Dataset], installed: Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    """Those that are installed, and for the others what the history tells of them."""
    named = {dataset.pipeline for dataset in datasets}
    missing = named - installed.keys()
    return {**installed, **{name: RecordedPipeline(datasets) for name in missing}}


def arrivals(datasets: Iterable[Dataset]) -> list[Arrival]:
    """First runs only: a rerun is an operator's wish and no arrival.

    What a series costs is taken from its own measured run, carried to other shapes by the 2015 study's
    figures; without one it costs what is usual among the others.
    """
    first = [d for d in datasets if d.run == 1 and d.series is not None]
    paces = sorted(pace for d in first if (pace := _pace(d)) is not None)
    usual = paces[len(paces) // 2] if paces else 1.0
    return [_arrival(dataset, usual) for dataset in first]


def _pace(dataset: Dataset) -> float | None:
    measured, attempt = dataset.measured, dataset.attempt
    if measured is None or attempt is None or dataset.series is None or measured.run_seconds <= 0:
        return None
    placed = attempt.placement
    return pace_of(
        measured.run_seconds, dataset.series.total_bytes, len(placed.nodes), placed.cores, placed.threads
    )


def _arrival(dataset: Dataset, usual_pace: float) -> Arrival:
    series, pace, measured = dataset.series, _pace(dataset), dataset.measured
    assert series is not None
    at = dataset.last_change_at or dataset.completed_at or dataset.found_at
    sighting = Sighting(
        # A later revision came as a series of its own; the one before had gone its way by then.
        series_key=dataset.series_key
        if dataset.revision == 1
        else f"{dataset.series_key}#{dataset.revision}",
        tilt_series_name=dataset.tilt_series_name,
        kind=dataset.kind,
        size_bytes=series.total_bytes,
        mtime_ns=int(at * 1e9),
        stat_signature=dataset.dataset_id,
        labels=dataset.labels,
        series=series,
        section_count=series.tilt_count,
    )
    return Arrival(
        at=at,
        feed=dataset.feed,
        sighting=sighting,
        pace=usual_pace if pace is None else pace,
        result_bytes=dataset.result_bytes,
        peak_memory_bytes=measured.peak_memory_bytes if measured else 0,
        peak_scratch_bytes=measured.peak_scratch_bytes if measured else 0,
    )


def site_of(datasets: Iterable[Dataset]) -> Site:
    """The feeds that the history knows, with the pipelines and options of their newest series."""
    feeds = {}
    for dataset in datasets:
        feeds[dataset.feed] = FeedInfo(
            name=dataset.feed,
            pipeline=dataset.pipeline,
            destination="/replayed/{series}",
            options=dataset.options,
        )
    return Site(feeds=feeds)


def used_nodes(datasets: Iterable[Dataset]) -> tuple[NodeInfo, ...]:
    """The cluster as far as the history shows it: of each node the most that ran on it at one time."""
    spans: dict[str, list[tuple[float, float, int, int, int]]] = {}
    for dataset in datasets:
        for attempt in dataset.attempts:
            p, end = attempt.placement, attempt.ended_at
            for node in p.nodes if end is not None else ():
                row = (attempt.placed_at, end or 0.0, p.cores, p.memory_bytes, p.scratch_bytes)
                spans.setdefault(node, []).append(row)
    return tuple(_node(name, rows) for name, rows in sorted(spans.items()))


def _node(name: str, rows: Sequence[tuple[float, float, int, int, int]]) -> NodeInfo:
    cores, memory, scratch = (_most(rows, lambda row, n=n: row[n]) for n in (2, 3, 4))  # type: ignore[misc]
    return NodeInfo(
        name=name, state="free", cores=cores, cores_free=cores, memory_bytes=memory,
        scratch_total_bytes=scratch + 2_000_000_000, scratch_free_bytes=scratch + 2_000_000_000,
        scratch_path="/scratch", observed_at=0.0,
    )  # fmt: skip


def _most(
    rows: Sequence[tuple[float, float, int, int, int]],
    of: Callable[[tuple[float, float, int, int, int]], int],
) -> int:
    changes = sorted(change for row in rows for change in ((row[1], -of(row)), (row[0], of(row))))
    most = now = 0
    for _, step in changes:
        now += step
        most = max(most, now)
    return most


def staging_rate(datasets: Iterable[Dataset]) -> float | None:
    """Bytes per second at which most series came onto their node when little else was copied: the ninth
    decile.  ``None`` without a measured run."""
    rates = sorted(
        d.measured.stage_in_bytes / d.measured.stage_in_seconds
        for d in datasets
        if d.measured is not None and d.measured.stage_in_seconds > 0 and d.measured.stage_in_bytes > 0
    )
    return rates[int(0.9 * (len(rates) - 1))] if rates else None
