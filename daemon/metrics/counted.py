"""Metrics that are counted: a fold of the facts and observations that pass, and of nothing else.

Durations are between facts, so one small note a live dataset is kept here; after a restart it is made
again from the core's own record.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram

from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import (
    CHANNELS,
    LOG,
    TERMINAL,
    Dataset,
    Failure,
    FailureClass,
    Measured,
    State,
    channel_of,
)
from tiltd.plugins.api import CommandCount

from .labels import BoundedLabels
from .notes import Note, note_of
from .shapes import BoundedShapes, shape_of
from .table import METRICS
from .view import CoreView, Outside, ViewCollector

Child = TypeVar("Child", Counter, Histogram)


class Metrics:
    """The daemon calls :meth:`saw` for each observation, :meth:`observe` after each append, and
    :meth:`render` for a scrape.  Everything happens in the event loop's thread."""

    def __init__(self, now: Callable[[], float], journal_bytes: Callable[[], int] = lambda: 0) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self.outside = Outside(build=(_version(), platform.python_version()))
        self.finished: dict[tuple[str, State], int] = {}
        self._labels = BoundedLabels()
        self._shapes = BoundedShapes()
        self._notes: dict[str, Note] = {}
        self._pipelines: set[str] = set()
        self._children: dict[tuple[object, ...], Any] = {}
        self._counters = {
            m.name: _counter(m.name, self.registry) for m in METRICS.values() if _ours(m.name, "counter")
        }
        self._histograms = {
            m.name: _histogram(m.name, self.registry) for m in METRICS.values() if m.kind == "histogram"
        }
        for name in ("sent", "failures", "given_up"):
            for channel in CHANNELS:
                self.count(f"tiltd_notices_{name}_total", 0, channel=channel)
        self._view = ViewCollector(self.outside, self.finished, self._labels, now, journal_bytes)
        self.registry.register(self._view)
        prometheus_client.ProcessCollector(registry=self.registry)

    def attach(
        self,
        core: CoreView,
        ready: Callable[[], bool] = lambda: True,
        finished: Iterable[tuple[str, State, int]] = (),
        commands: Callable[[], Sequence[CommandCount]] = tuple,
    ) -> None:
        """Once the core is recovered: what a scrape reads from now on.  ``finished`` are (feed, state, count)
        of the datasets that have left the working set, from the journal; ``commands`` tells those that the
        resource manager's plugin has run."""
        self._view.core, self._view.ready, self._view.commands = core, ready, commands
        self.finished.update({(feed, state): count for feed, state, count in finished})
        self._notes = {key: note_of(dataset) for key, dataset in core.state.datasets.items()}
        for note in self._notes.values():
            self._begun(note.pipeline)

    def render(self) -> bytes:
        """The exposition text.  Cost grows with live datasets (one pass), nodes and label values."""
        return prometheus_client.generate_latest(self.registry)

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter of the table."""
        self._child(self._counters[name], name, labels).inc(amount)

    def measure(self, name: str, value: float, **labels: str) -> None:
        """Put a value into a histogram of the table; a clock that jumped back counts as 0."""
        self._child(self._histograms[name], name, labels).observe(max(0.0, value))

    def _child(self, metric: Child, name: str, labels: dict[str, str]) -> Child:
        """The metric of these labels, whose values are bounded; found once, since a job counts a score."""
        if not labels:
            return metric
        key: tuple[object, ...] = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            values = {label: self._labels.value(label, labels[label]) for label in METRICS[name].labels}
            child = metric.labels(**values)
            if values == labels:  # what is "other" by now may be called anything: not to be remembered
                self._children[key] = child
        return child

    def appended(self, seconds: float) -> None:
        """The journal made one durable append."""
        self.measure("tiltd_journal_append_seconds", seconds)

    # -- observations ------------------------------------------------------------------------------

    def saw(self, observation: o.Observation) -> None:
        """What an observation alone tells: who answers and who does not."""
        match observation:
            case o.FilesObserved(feed=feed, up=up):
                self._met(feed)
                self.outside.feed_up[feed] = up
            case o.DestinationsObserved(free_bytes=free_bytes):
                # Templates of the policy's rules are looked at too; they are no feeds.
                known = {name: free for name, free in free_bytes.items() if free is not None}
                self.outside.destination_free = {n: free for n, free in known.items() if "/" not in n}
            case o.JobsObserved(at=at) | o.NodesObserved(at=at):
                self.outside.manager_up, self.outside.manager_answered_at = True, at
            case o.ServerUnreachable():
                self.outside.manager_up = False
                self.count("tiltd_resource_manager_unreachable_total")
            case o.PolicyLoaded(policy=policy, at=at):
                self.outside.policy_version = policy.version
                self.outside.policy_accepted, self.outside.policy_accepted_at = True, at
                self.count("tiltd_policy_reloads_total", outcome="accepted")
            case o.NoticeAnswered(to=to, trouble=trouble) if trouble:
                self.count("tiltd_notices_failures_total", channel=channel_of(to))
            case o.PolicyRefused():
                self.policy_refused()
                self.count("tiltd_policy_reloads_total", outcome="refused")

    def _met(self, feed: str) -> None:
        """Counters begin at 0 and not with their first event, which a rate would not see."""
        if feed in self.outside.feed_up:
            return
        for name in ("tiltd_datasets_found_total", "tiltd_datasets_completed_total"):
            self.count(name, 0, feed=feed)
        for state in TERMINAL:
            self.count("tiltd_datasets_ended_total", 0, feed=feed, state=state)
        self._begin("tiltd_completion_to_submit_seconds", feed=feed)

    def _begun(self, pipeline: str) -> None:
        if pipeline in self._pipelines:
            return
        self._pipelines.add(pipeline)
        for failure_class in get_args(FailureClass):
            self.count("tiltd_failures_total", 0, pipeline=pipeline, failure_class=failure_class)
            self.count("tiltd_retries_total", 0, failure_class=failure_class)
        self.count("tiltd_results_stranded_total", 0, pipeline=pipeline)
        self.count("tiltd_runs_over_predicted_total", 0, pipeline=pipeline)
        for kind in ("run", "rescue"):
            self.count("tiltd_attempts_total", 0, pipeline=pipeline, kind=kind)
        for name in self._histograms:
            if METRICS[name].labels == ("pipeline",):
                self._begin(name, pipeline=pipeline)

    def _begin(self, histogram: str, **labels: str) -> None:
        """Have it exist before its first value."""
        self._child(self._histograms[histogram], histogram, labels)

    def policy_refused(self) -> None:
        """A policy file was read and not accepted; the old one stays in force."""
        self.outside.policy_accepted = False

    # -- facts -------------------------------------------------------------------------------------

    def observe(self, facts: Iterable[f.Fact], core: CoreView | None = None) -> None:
        """After an append.  ``core`` helps out where a dataset's earlier facts were not seen here."""
        for fact in facts:
            self.count("tiltd_journal_facts_total", kind=type(fact).__name__)
            if isinstance(fact, f.DatasetFact):
                self._dataset_fact(fact, core)
            elif isinstance(fact, f.SeriesIgnored):
                self.count("tiltd_sightings_ignored_total", reason=fact.reason)
            elif isinstance(fact, f.NoticeSent):
                self.count("tiltd_notices_sent_total", channel=channel_of(fact.to or LOG))
            elif isinstance(fact, f.NoticeGivenUp):
                self.count("tiltd_notices_given_up_total", channel=channel_of(fact.to))

    def _dataset_fact(self, fact: f.DatasetFact, core: CoreView | None) -> None:
        if isinstance(fact, f.DatasetFound):
            self._begun(fact.pipeline)
            self._begin("tiltd_last_tilt_to_tomogram_seconds", feed=fact.feed)
            self._notes[fact.dataset_id] = Note(fact.feed, fact.pipeline, fact.run)
            self.count("tiltd_datasets_found_total", feed=fact.feed)
            return
        if isinstance(fact, f.DatasetAdopted | f.DatasetRecalled):
            self._taken_in(fact.dataset_id, fact.record, recalled=isinstance(fact, f.DatasetRecalled))
            return
        note = self._note(fact.dataset_id, core)
        if note is None:
            return
        self._progress(fact, note)
        self._end(fact, note)

    def _note(self, dataset_id: str, core: CoreView | None) -> Note | None:
        note = self._notes.get(dataset_id)
        dataset = core.state.datasets.get(dataset_id) if note is None and core is not None else None
        if dataset is not None:
            note = self._notes[dataset_id] = note_of(dataset)
        return note

    def _taken_in(self, dataset_id: str, record: Dataset, recalled: bool) -> None:
        self._notes[dataset_id] = note_of(record)
        key = (record.feed, record.state)
        if recalled and record.state in TERMINAL and self.finished.get(key, 0) > 0:
            self.finished[key] -= 1

    def _progress(self, fact: f.DatasetFact, note: Note) -> None:
        match fact:
            case f.DatasetCompleted(at=at, last_change_at=changed_at):
                note.completed_at, note.last_change_at = at, changed_at
                self.count("tiltd_datasets_completed_total", feed=note.feed)
            case f.Placed(attempt=attempt):
                note.accepted_at = None
                if attempt.kind == "run":
                    note.predicted = attempt.decided.predicted if attempt.decided is not None else None
                    note.placement = attempt.placement
                    note.shape = shape_of(attempt.placement)
                self.count("tiltd_attempts_total", pipeline=note.pipeline, kind=attempt.kind)
            case f.JobAccepted(at=at):
                self._accepted(at, note)
            case f.JobStarted(started_at=started_at) if note.accepted_at is not None:
                waited = started_at - note.accepted_at
                self.measure("tiltd_queue_wait_seconds", waited, pipeline=note.pipeline)
                note.accepted_at = None
            case f.HoldPlaced(cause="quality"):
                self.count("tiltd_verdicts_total", pipeline=note.pipeline, verdict="bad")
            case f.ResultStranded():
                self.count("tiltd_results_stranded_total", pipeline=note.pipeline)

    def _accepted(self, at: float, note: Note) -> None:
        note.accepted_at = at
        if note.completed_at is not None and not note.submitted:
            self.measure("tiltd_completion_to_submit_seconds", at - note.completed_at, feed=note.feed)
        note.submitted = True

    def _end(self, fact: f.DatasetFact, note: Note) -> None:
        match fact:
            case f.ResultCollected():
                self._collected(fact, note)
            case f.AttemptFailed(failure=failure, retry_at=retry_at):
                run = fact.end.measured.run_seconds if fact.end is not None else 0.0
                if run > 0:  # a runner that was killed has measured nothing
                    self._ran(note, run, failure.failure_class)
                self._failed(note, failure, retry_at is not None)
            case f.DatasetRejected(failure=failure):
                self._failed(note, failure, again=False)
            case f.DatasetCancelled():
                self._terminal(note, State.CANCELLED)
            case f.AttemptStopped(intent=intent) if intent != "replace":
                self._terminal(note, State.CANCELLED)
            case f.DatasetRevived():
                note.ended = None
            case f.DatasetFinalized() | f.DatasetParked():
                self._left(fact.dataset_id, note)

    def _collected(self, fact: f.ResultCollected, note: Note) -> None:
        self._terminal(note, State.DELIVERED)
        if fact.adopted:  # an earlier life's result: its times are not ours
            return
        measured, pipeline = fact.measured, note.pipeline
        self._ran(note, measured.run_seconds, fact.verdict)
        self.count("tiltd_verdicts_total", pipeline=pipeline, verdict=fact.verdict)
        for problem in fact.problems:
            self.count("tiltd_problems_total", pipeline=pipeline, code=problem.code)
        for step, seconds in measured.step_seconds.items():
            self.measure("tiltd_step_seconds", seconds, pipeline=pipeline, step=step)
        self.measure("tiltd_stage_in_seconds", measured.stage_in_seconds, pipeline=pipeline)
        self.measure("tiltd_stage_out_seconds", measured.stage_out_seconds, pipeline=pipeline)
        self._against_predicted(measured, note)
        if note.last_change_at and note.run == 1:
            took = fact.at - note.last_change_at
            self.measure("tiltd_last_tilt_to_tomogram_seconds", took, feed=note.feed)

    def _ran(self, note: Note, seconds: float, outcome: str) -> None:
        labels = self._shapes.labels(note.pipeline, outcome, note.shape)
        self.measure("tiltd_run_seconds", seconds, **labels)

    def _against_predicted(self, measured: Measured, note: Note) -> None:
        """What was predicted of the run and asked for it, and what came of it."""
        seconds = measured.stage_in_seconds + measured.run_seconds + measured.stage_out_seconds
        memory, scratch = measured.peak_memory_bytes, measured.peak_scratch_bytes
        predicted, placed, pipeline = note.predicted, note.placement, note.pipeline
        ratios: list[tuple[str, float, float]] = []
        if placed is not None:
            ratios += [
                ("tiltd_walltime_used_ratio", seconds, placed.walltime_seconds),
                ("tiltd_memory_used_ratio", memory, placed.memory_bytes),
                ("tiltd_scratch_used_ratio", scratch, placed.scratch_bytes),
            ]
        if predicted is not None:
            ratios += [
                ("tiltd_run_of_predicted_ratio", seconds, predicted.seconds_p50),
                ("tiltd_memory_of_predicted_ratio", memory, predicted.memory_bytes_p99),
                ("tiltd_scratch_of_predicted_ratio", scratch, predicted.scratch_bytes_p99),
            ]
        for name, took, of in ratios:
            if took > 0 and of > 0:
                self.measure(name, took / of, pipeline=pipeline)
        if predicted is not None and seconds > predicted.seconds_p99:
            self.count("tiltd_runs_over_predicted_total", pipeline=pipeline)

    def _failed(self, note: Note, failure: Failure, again: bool) -> None:
        failure_class = failure.failure_class
        self.count("tiltd_failures_total", pipeline=note.pipeline, failure_class=failure_class)
        self.count("tiltd_failure_reasons_total", pipeline=note.pipeline, code=failure.reason)
        if again:
            self.count("tiltd_retries_total", failure_class=failure_class)
        else:
            self._terminal(note, State.FAILED)

    def _terminal(self, note: Note, state: State) -> None:
        note.ended = state
        self.count("tiltd_datasets_ended_total", feed=note.feed, state=state)

    def _left(self, dataset_id: str, note: Note) -> None:
        del self._notes[dataset_id]
        if note.ended is not None:
            key = (note.feed, note.ended)
            self.finished[key] = self.finished.get(key, 0) + 1


def _ours(name: str, kind: str) -> bool:
    return name.startswith("tiltd_") and METRICS[name].kind == kind and name not in _VIEWED


_VIEWED = frozenset(
    {
        "tiltd_refusals_total",
        "tiltd_jobs_forgotten_total",
        "tiltd_resource_manager_commands_total",
        "tiltd_resource_manager_command_seconds_total",
    }
)
"""Counters that others keep: they are read at a scrape."""


def _counter(name: str, registry: CollectorRegistry) -> Counter:
    metric = METRICS[name]
    return Counter(name, metric.meaning, metric.labels, registry=registry)


def _histogram(name: str, registry: CollectorRegistry) -> Histogram:
    metric = METRICS[name]
    return Histogram(name, metric.meaning, metric.labels, registry=registry, buckets=metric.buckets)


def _version() -> str:
    try:
        return version("tiltd")
    except PackageNotFoundError:
        return "0"
